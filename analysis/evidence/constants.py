"""What a function reads besides its states: weights, biases, centres."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def constants_of(function: Callable[[Tensor], object], states: Tensor) -> list[Tensor]:
    """Return the tensors that ``function`` reads when it is called with ``states`` (B, n), in the order it meets them.

    Only those of which nothing is computed before: a function that squares a weight reads the weight, not the square.
    """
    # What it computes once and keeps is not read in the second call.
    function(states)
    with _Reading(states) as reading:
        function(states)
    return reading.constants


class _Reading(TorchDispatchMode):
    """Collects the tensors that operations meet and that are neither the states, nor results, nor views of these."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.constants: list[Tensor] = []
        self.computed = {_memory(states)}
        # As long as they live, no other tensor gets their memory or their identity.
        self.results: dict[int, Tensor] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Skipping it would import torch._dynamo, two seconds or more; nothing is compiled here.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors([*args, *(kwargs or {}).values()]):
            is_new = not any(tensor is constant for constant in self.constants)
            if is_new and id(tensor) not in self.results and _memory(tensor) not in self.computed:
                self.constants.append(tensor)
        constant_memory = {_memory(constant) for constant in self.constants}
        results = func(*args, **(kwargs or {}))
        for tensor in _tensors([results]):
            self.results[id(tensor)] = tensor
            if _memory(tensor) not in constant_memory:
                self.computed.add(_memory(tensor))
        return results


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among ``values`` and in their lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
