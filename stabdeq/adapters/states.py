"""States of several tensors, in tuples, lists and dicts, as the one tensor (B, n) that solvers and audits read, and back."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stabdeq.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """How a state is put together: of one tensor, ``shape`` without its batch; of several, their ``container`` and ``parts``.

    >>> layout = Layout.of((torch.zeros(2, 3), {"low": torch.ones(2, 1, 2)}))
    >>> layout.flatten(layout.restore(torch.arange(10.0).view(2, 5)))
    tensor([[0., 1., 2., 3., 4.],
            [5., 6., 7., 8., 9.]])
    """

    shape: tuple[int, ...] = ()
    container: type | None = None  # None of a single tensor
    keys: tuple[Any, ...] = ()  # of a dict
    parts: tuple["Layout", ...] = ()

    @classmethod
    def of(cls, state: Any) -> "Layout":
        """Return the layout of ``state``, tensors (B, *) in tuples, lists and dicts; raises ConfigError for anything else."""
        tensors = _tensors(state)
        if not tensors:
            raise ConfigError("the state holds no tensor: expected tensors (B, *), in tuples, lists or dicts")
        first = tensors[0]
        for one in tensors:
            _require_like(one, first)
        return cls._of(state)

    @classmethod
    def _of(cls, state: Any) -> "Layout":
        if isinstance(state, Tensor):
            return cls(shape=tuple(state.shape[1:]))
        keys = tuple(state) if isinstance(state, dict) else ()
        return cls(container=type(state), keys=keys, parts=tuple(map(cls._of, _parts(state))))

    @property
    def size(self) -> int:
        """The number n of components of a sample."""
        if self.container is None:
            return torch.Size(self.shape).numel()
        return sum(part.size for part in self.parts)

    def flatten(self, state: Any) -> Tensor:
        """Return ``state``, put together like this, as one tensor (B, n); raises ConfigError where it is another."""
        self._require_same(state, "the state")
        tensors = self._in_order(state)
        for one in tensors:
            _require_like(one, tensors[0])
        return torch.cat([one.flatten(1) if one.dim() > 1 else one[:, None] for one in tensors], 1)

    def restore(self, flat: Tensor) -> Any:
        """Return ``flat`` (B, n) as a state put together like this."""
        if self.container is None:
            return flat.reshape(len(flat), *self.shape)
        split = flat.split([part.size for part in self.parts], 1)
        parts = [part.restore(one) for part, one in zip(self.parts, split, strict=True)]
        if issubclass(self.container, dict):
            return dict(zip(self.keys, parts, strict=True))
        return self.container(*parts) if hasattr(self.container, "_fields") else self.container(parts)

    def _in_order(self, state: Any) -> list[Tensor]:
        if self.container is None:
            return _tensors(state)
        parts = [state[key] for key in self.keys] if self.keys else list(state)
        return [one for part, held in zip(self.parts, parts, strict=True) for one in part._in_order(held)]

    def _require_same(self, state: Any, name: str) -> None:
        if self.container is None:
            if not isinstance(state, Tensor) or tuple(state.shape[1:]) != self.shape:
                raise ConfigError(
                    f"{name} is {_kind(state)}, where the first one was a tensor (B, *) with * = {self.shape}"
                )
            return
        if isinstance(state, dict):
            same = issubclass(self.container, dict) and set(state) == set(self.keys)
            named = [(f"[{key!r}]", state.get(key)) for key in self.keys]
        else:  # whether it is a list or a tuple tells the parts alike
            same = isinstance(state, tuple | list) and not self.keys and len(state) == len(self.parts)
            named = [(f"[{place}]", part) for place, part in enumerate(state)] if same else []
        if not same:
            held = f"with {list(self.keys)}" if self.keys else f"of {len(self.parts)}"
            raise ConfigError(f"{name} is {_kind(state)}, where the first one was a {self.container.__name__} {held}")
        for part, (place, one) in zip(self.parts, named, strict=True):
            part._require_same(one, name + place)


def _parts(state: Any) -> list[Any]:
    return list(state.values()) if isinstance(state, dict) else list(state)


def _tensors(state: Any, place: str = "state") -> list[Tensor]:
    """Return the tensors of ``state``; raises ConfigError, which says what to write, where it holds anything else."""
    if isinstance(state, Tensor):
        if state.dim() < 1:
            raise ConfigError(f"{place} is a tensor without a batch: expected (B, *); write {place}.view(1, 1)")
        if not state.is_floating_point():
            raise ConfigError(
                f"{place} is of {state.dtype}, which no solver moves: keep it among the inputs, or write {place}.float()"
            )
        return [state]
    if isinstance(state, dict):
        return [one for key, part in state.items() for one in _tensors(part, f"{place}[{key!r}]")]
    if isinstance(state, tuple | list):
        return [one for number, part in enumerate(state) for one in _tensors(part, f"{place}[{number}]")]
    raise ConfigError(
        f"{place} is {_kind(state)}: expected tensors (B, *), in tuples, lists or dicts; of an object write its tensors, "
        f"({place}.high, {place}.low), and make it of them inside the block"
    )


def _require_like(one: Tensor, first: Tensor) -> None:
    if len(one) != len(first):
        raise ConfigError(
            f"tensors of one state have {len(first)} and {len(one)} samples on their first axis: put the batch first, "
            "state.movedim(1, 0) where it is the second"
        )
    if (one.dtype, one.device) != (first.dtype, first.device):
        raise ConfigError(
            f"tensors of one state are of {first.dtype} on {first.device} and {one.dtype} on {one.device}: make them alike, "
            "state.to(first)"
        )


def _kind(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
