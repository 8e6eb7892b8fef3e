"""Tensors of bounded floats, which every strategy here is made of, and the checks of its arguments."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from hypothesis import strategies
from hypothesis.extra import numpy as arrays
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from stabdeq.errors import ConfigError

Made = TypeVar("Made")

LARGEST_DENSE = 256


def tensors(shape: tuple[int, ...], low: float, high: float) -> SearchStrategy[Tensor]:
    """Return a strategy for float64 tensors of ``shape`` with entries between ``low`` and ``high``.

    It shrinks entry by entry, to 0 or the simplest number in range.
    """
    entries = strategies.floats(low, high, allow_subnormal=False)
    # Drawn one by one, entries shrink to 0; repeating one number, Hypothesis' way, shrinks to vectors like (1, 1, 1). It
    # can hold less than a thousand draws, though.
    fill = strategies.nothing() if math.prod(shape) <= LARGEST_DENSE else None
    return made_from(arrays.arrays("float64", shape, elements=entries, fill=fill), torch.from_numpy)


@strategies.composite
def _made_from(draw: strategies.DrawFn, parts: SearchStrategy[Any], make: Callable[[Any], Made]) -> Made:
    return make(draw(parts))


def made_from(parts: SearchStrategy[Any], make: Callable[[Any], Made]) -> SearchStrategy[Made]:
    """Return ``parts.map(make)``, save that a failing example shows what was made, not the calls that made it."""
    return _made_from(parts, make)


def require_sizes(*sizes: int) -> None:
    """Raise ConfigError unless all ``sizes`` are whole numbers of at least 1."""
    for size in sizes:
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"expected whole numbers of at least 1 for dim, batch, hidden and steps, got {size!r}")


def ranges_of(dim: int, low: float | Sequence[float], high: float | Sequence[float]) -> list[tuple[float, float]]:
    """Return (low, high) of each of ``dim`` coordinates, each given as a number for all or as one a coordinate.

    Raises ConfigError unless there are as many as coordinates, finite, with low < high.
    """
    sides = []
    for side, given in (("low", low), ("high", high)):
        numbers = [float(given)] * dim if isinstance(given, int | float) else [float(number) for number in given]
        if len(numbers) != dim:
            raise ConfigError(f"{side}: expected a number, or {dim}, one a coordinate, got {len(numbers)}")
        sides.append(numbers)
    for lowest, highest in zip(*sides, strict=True):
        if not -math.inf < lowest < highest < math.inf:
            raise ConfigError(f"expected finite low < high, got {lowest} and {highest}")
    return list(zip(*sides, strict=True))


def require_positive(name: str, number: float) -> None:
    """Raise ConfigError unless ``number`` is positive and finite."""
    if not 0 < number < math.inf:
        raise ConfigError(f"{name} must be positive and finite, got {number}")


def require_non_negative(name: str, number: float) -> None:
    """Raise ConfigError unless ``number`` is at least 0 and finite."""
    if not 0 <= number < math.inf:
        raise ConfigError(f"{name} must be at least 0 and finite, got {number}")
