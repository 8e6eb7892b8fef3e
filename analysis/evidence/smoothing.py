"""A function with its kinks, jumps and plateaus smoothed, so that a climb feels from afar what is hidden behind them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from stabdeq.lyapunov.claims import Violation

# Its square is still a number.
SMALLEST_WIDTH = 1e-150


def smoothed(violation: Callable[[Tensor], Violation], width: float) -> Callable[[Tensor], Violation]:
    """Return ``violation`` with smooth functions in place of relu, clamp, comparisons, sigmoid and their like.

    Its scale is 1: relative to a scale that shrinks towards the centre, a wide blur is largest there.

    ``width`` is relative to the root mean square, over the batch, of what each of them is applied to: 1 blurs it over all
    that it meets. The first call measures that; later calls take batches (B, n) of any size and keep to it. Only what
    depends on the states is smoothed, and only where these ask for a gradient.
    """
    smoothing = _Smoothing(width)

    def evaluate(states: Tensor) -> Violation:
        smoothing.met = 0
        with smoothing:
            excess = violation(states).excess
        return Violation(excess, torch.ones_like(excess))

    return evaluate


class _Smoothing(TorchFunctionMode):
    """Replaces functions by name as they are called; ``scales`` holds the width of each call, in their order."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = width
        self.scales: list[Tensor] = []
        self.met = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Tensor.__gt__, torch.relu_ and so on go by the plain name.
        replacement = REPLACEMENTS.get(getattr(func, "__name__", "").strip("_"))
        result = None if replacement is None else replacement(self, *args, **kwargs)
        return func(*args, **kwargs) if result is None else result

    def scale(self, argument: Tensor) -> Tensor:
        """Return the width of the call that is being replaced, one for each entry of a state's ``argument``."""
        if self.met == len(self.scales):
            spread = argument.detach().square().mean(0, keepdim=True).sqrt()
            self.scales.append((self.width * spread).clamp(min=SMALLEST_WIDTH))
        self.met += 1
        return self.scales[self.met - 1]

    def ramp(self, argument: Tensor) -> Tensor:
        """Return a smooth max(argument, 0): its slope falls off as a power, so that it vanishes nowhere."""
        return (argument + torch.hypot(argument, self.scale(argument))) / 2

    def step(self, argument: Tensor) -> Tensor:
        """Return a smooth (argument > 0): the slope of ``ramp``."""
        return (1 + argument / torch.hypot(argument, self.scale(argument))) / 2


def _varies(*arguments: Any) -> bool:
    """Whether any of ``arguments`` depends on the states."""
    return any(isinstance(argument, Tensor) and argument.requires_grad for argument in arguments)


def _relu(smoothing: _Smoothing, argument: Tensor, inplace: bool = False) -> Tensor | None:
    return smoothing.ramp(argument) if _varies(argument) else None


def _clamp(smoothing: _Smoothing, argument: Tensor, min: Any = None, max: Any = None) -> Tensor | None:  # noqa: A002
    if not _varies(argument, min, max):
        return None
    raised = argument if min is None else min + smoothing.ramp(argument - min)
    return raised if max is None else max - smoothing.ramp(max - raised)


def _clamp_max(smoothing: _Smoothing, argument: Tensor, max: Any) -> Tensor | None:  # noqa: A002
    return _clamp(smoothing, argument, None, max)


def _hardtanh(
    smoothing: _Smoothing, argument: Tensor, min_val: float = -1, max_val: float = 1, inplace: bool = False
) -> Tensor | None:
    return _clamp(smoothing, argument, min_val, max_val)


def _maximum(smoothing: _Smoothing, first: Tensor, second: Any = None, *_: Any, **__: Any) -> Tensor | None:
    is_binary = isinstance(second, Tensor)
    return second + smoothing.ramp(first - second) if is_binary and _varies(first, second) else None


def _minimum(smoothing: _Smoothing, first: Tensor, second: Any = None, *_: Any, **__: Any) -> Tensor | None:
    is_binary = isinstance(second, Tensor)
    return second - smoothing.ramp(second - first) if is_binary and _varies(first, second) else None


def _stretched(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor | None]:
    """Return a replacement that applies ``function`` to an argument brought to the size of 1 / width, if beyond it."""

    def replacement(smoothing: _Smoothing, argument: Tensor, *_: Any, **__: Any) -> Tensor | None:
        return function(argument / smoothing.scale(argument).clamp(min=1)) if _varies(argument) else None

    return replacement


def _softplus(smoothing: _Smoothing, argument: Tensor, beta: float = 1, threshold: float = 20) -> Tensor | None:
    if not _varies(argument):
        return None
    width = smoothing.scale(argument).clamp(min=1 / beta)
    return width * torch.nn.functional.softplus(argument / width)


def _greater(smoothing: _Smoothing, first: Any, second: Any) -> Tensor | None:
    """Return the outcome of first > second with its smooth form as the attribute ``smooth``."""
    if not _varies(first, second):
        return None
    outcome = torch.gt(first, second)
    outcome.smooth = smoothing.step(first - second)  # pyrefly: ignore
    return outcome


def _less(smoothing: _Smoothing, first: Any, second: Any) -> Tensor | None:
    return _greater(smoothing, -first, -second)


def _where(smoothing: _Smoothing, condition: Any, input: Any = None, other: Any = None) -> Tensor | None:  # noqa: A002
    weight = getattr(condition, "smooth", None)
    return None if weight is None or other is None else weight * input + (1 - weight) * other


def _product(smoothing: _Smoothing, first: Any, second: Any) -> Tensor | None:
    weights = [getattr(factor, "smooth", factor) for factor in (first, second)]
    return None if weights[0] is first and weights[1] is second else weights[0] * weights[1]


def _number(smoothing: _Smoothing, outcome: Any, *_: Any, **__: Any) -> Tensor | None:
    return getattr(outcome, "smooth", None)


REPLACEMENTS: dict[str, Callable[..., Tensor | None]] = {
    "relu": _relu,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp_max,
    "hardtanh": _hardtanh,
    "relu6": lambda smoothing, argument, inplace=False: _clamp(smoothing, argument, 0, 6),
    "maximum": _maximum,
    "max": _maximum,
    "minimum": _minimum,
    "min": _minimum,
    "exp": _stretched(torch.exp),
    "sigmoid": _stretched(torch.sigmoid),
    "tanh": _stretched(torch.tanh),
    "softplus": _softplus,
    "gt": _greater,
    "ge": _greater,
    "lt": _less,
    "le": _less,
    "where": _where,
    "mul": _product,
    "rmul": _product,
    "to": _number,
    "double": _number,
    "float": _number,
}
