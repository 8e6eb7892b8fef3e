"""Numbers that depend on a state in a box, as linear functions of it with an error: a(z - c) + b, give or take e.

The coefficients are plain float64 numbers: any would do, as long as the error holds what they leave out. Whatever rounding does to
them is therefore charged to the error, and errors alone are rounded upwards. The tensors hold the elements first and the boxes last.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from analysis.proofs.intervals.interval import ROUNDOFF, Interval

# What underflow may take from a sum of products, as long as the factors are not huge (``HUGE``).
SMALLEST = 1e-290
HUGE = 1e100
UP = 1 + 32 * ROUNDOFF


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes (n, B) by their ``centre`` and their ``radius``, the latter rounded upwards."""

    low: Tensor
    high: Tensor

    @cached_property
    def centre(self) -> Tensor:
        return self.low / 2 + self.high / 2

    @cached_property
    def radius(self) -> Tensor:
        # The differences are rounded by half a unit, and by nothing where they are tiny.
        return torch.maximum(self.high - self.centre, self.centre - self.low) * UP


class Form:
    """Bounds of m numbers over boxes: ``terms`` (m, n + 1, B) are the slopes and the value at the centre, ``error`` (m, B) >= 0.

    ``low`` and ``high`` (m, B) are the numbers' range; ``hull`` narrows it where more is known than the form tells.
    """

    def __init__(self, terms: Tensor, error: Tensor, boxes: Boxes, hull: Interval | None = None) -> None:
        self.terms, self.error, self.boxes, self._hull = terms, error, boxes, hull

    @property
    def slopes(self) -> Tensor:
        return self.terms[:, :-1]

    @property
    def centre(self) -> Tensor:
        return self.terms[:, -1]

    @cached_property
    def radius(self) -> Tensor:
        """(m, B): how far the numbers may be from the centre's, rounded upwards."""
        return reach(self.slopes, self.boxes.radius).add_(self.error).mul_(UP)

    @cached_property
    def size(self) -> Tensor:
        """(m, B): at least the magnitude of the numbers, and of the sum of the terms'."""
        return self.centre.abs().add_(self.radius).mul_(UP)

    @cached_property
    def range(self) -> Interval:
        slack = self.size * (2 * ROUNDOFF)
        found = Interval(self.centre - self.radius - slack, self.centre + self.radius + slack)
        return found if self._hull is None else found.intersected(self._hull)


def reach(slopes: Tensor, radius: Tensor) -> Tensor:
    """Return the sum (m, B) of |slopes| (m, n, B) times ``radius`` (n, B), rounded to nearest."""
    total = slopes[:, 0].abs().mul_(radius[0])
    for place in range(1, len(radius)):
        total.addcmul_(slopes[:, place].abs(), radius[place])
    return total
