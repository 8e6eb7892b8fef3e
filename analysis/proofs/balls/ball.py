"""Numbers known to any precision: balls that surely hold the exact value, with their derivatives along one direction.

The numbers are ``arb`` of the library Arb, through python-flint (F. Johansson, Arb: efficient arbitrary-precision midpoint-radius
interval arithmetic, IEEE Trans. Computers 2017).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, ctx
from torch import Tensor

FEWEST_BITS, MOST_BITS = 64, 2048


def sign_of(number: Callable[[], arb]) -> int | None:
    """Return the sign -1, 0 or 1 of ``number``, which is evaluated at doubled precision until it is certain; None where it never is.

    A number that contains 0 at ``MOST_BITS`` bits, or is not defined, has no sign that is certain.

    >>> sign_of(lambda: arb(2).sqrt() ** 2 - 2) is None, sign_of(lambda: arb("1e-40") + 1 - 1), sign_of(lambda: arb(0))
    (True, 1, 0)
    """
    before, bits = ctx.prec, FEWEST_BITS
    try:
        while bits <= MOST_BITS:
            ctx.prec = bits
            found = number()
            if not found.is_finite():
                return None
            if found > 0 or found < 0:
                return 1 if found > 0 else -1
            if found.is_zero():
                return 0
            bits *= 2
    finally:
        ctx.prec = before
    return None


@dataclass(frozen=True)
class Balls:
    """Numbers with their derivatives along one direction: arrays of ``arb`` of one shape; no ``slope`` is a slope of 0."""

    value: np.ndarray
    slope: np.ndarray | None = None

    def __post_init__(self) -> None:
        # An operation on arrays of no dimension gives their number itself.
        object.__setattr__(self, "value", array_of(self.value))
        object.__setattr__(self, "slope", None if self.slope is None else array_of(self.slope))

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> "Balls":
        """Return what a map that only moves numbers makes of both."""
        return Balls(move(self.value), None if self.slope is None else move(self.slope))

    def through(self, function: Callable[[arb], arb], slope: Callable[[arb], arb]) -> "Balls":
        """Return ``function`` of each number, ``slope`` being its derivative."""
        value = each(function, self.value)
        return Balls(value, None if self.slope is None else each(slope, self.value) * self.slope)


@dataclass(frozen=True)
class Truths:
    """Conditions: ``sure`` where they hold, ``possible`` where they may; on the ``edge``, where both sides are equal, no slope exists."""

    sure: np.ndarray
    possible: np.ndarray
    edge: np.ndarray


def exact(numbers: Tensor) -> np.ndarray:
    """Return the floats of a tensor as exact balls."""
    return each(lambda number: arb(float(number)), np.array(numbers.detach().double().numpy(), dtype=object))


def each(function: Callable[[Any], Any], numbers: np.ndarray) -> np.ndarray:
    """Return ``function`` of each of ``numbers``, an array of objects."""
    made = np.empty(numbers.shape, dtype=object)
    made[...] = np.frompyfunc(function, 1, 1)(numbers)
    return made


def array_of(numbers: Any) -> np.ndarray:
    """Return ``numbers``, an array or one number, as an array."""
    if isinstance(numbers, np.ndarray):
        return numbers
    made = np.empty((), dtype=object)
    made[...] = numbers
    return made


def full(number: float | arb) -> np.ndarray:
    """Return an array of no dimension that holds ``number``."""
    made = np.empty((), dtype=object)
    made[...] = arb(number)
    return made
