"""The volume of {V <= C} within a ball or a box: of boxes surely inside it, and of those that may meet it."""

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import reduce

import torch
from torch import Tensor

from analysis.evidence.sublevel import Sublevel
from analysis.findings import exactly
from analysis.proofs.box_search import Search
from analysis.proofs.intervals.branch_and_bound import Examined, cover, middle
from analysis.proofs.intervals.graph import UnboundedError
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.linear import LinearBounds

BOXES = 2**15
# The bounds are close enough once they differ by this part of the upper one.
GAP = 0.02
_DIGITS = 4
_WORDS = {1: "length", 2: "area"}


@dataclass(frozen=True)
class Volume:
    """A set's volume in real arithmetic lies between ``low`` and ``high``, shown on so many ``boxes``; ``words`` are one sentence."""

    low: float
    high: float
    boxes: int
    words: str


def volume(region: Sublevel, *, deadline: float = math.inf) -> Volume | None:
    """Return bounds of the volume of all of {V <= level} within the base of ``region``, in the units of the coordinates.

    They are refined on up to ``BOXES`` boxes, or until ``deadline``, a time of ``time.monotonic``. None where V cannot be bounded, and
    where no box is seen to lie inside the set.
    """
    search = Search(region.value, None, region, None, BOXES, deadline)
    try:
        parts = _Parts(search, LinearBounds(search.value.graph))
        low, high = search.corners
        found = cover(
            low[None],
            high[None],
            lambda low, high: search.agreed(parts, Interval(low, high), middle(low, high)),
            max_boxes=BOXES,
            deadline=deadline,
            at_once=BOXES,
        )
    except UnboundedError:
        return None
    least, most = float(parts.inside.low), float((parts.inside + parts.undecided).high)
    if not 0 < least <= most < math.inf:
        return None
    between = f"between {_rounded(least, ROUND_FLOOR)} and {_rounded(most, ROUND_CEILING)}"
    set_of = f"{{V <= {exactly(region.level)}}} within {region.base.within}"
    words = f"The {_WORDS.get(len(low), 'volume')} of {set_of} is {between}, by linear bounds on {found.boxes} boxes."
    return Volume(least, most, found.boxes, words)


class _Parts:
    """The volumes of the boxes found inside the set, and of those still undecided; called with all of the latter at once."""

    def __init__(self, search: Search, bounds: LinearBounds) -> None:
        self.search, self.bounds = search, bounds
        self.inside = self.undecided = Interval.point(torch.zeros((), dtype=torch.float64))

    def __call__(self, box: Interval, points: Interval) -> Examined:
        planes = self.bounds(box)
        inside, outside = self.search.is_inside(box, planes.value), self.search.is_outside(box, planes.value)
        is_open = ~(inside | outside)
        self.inside = self.inside + _total(box, inside)
        self.undecided = _total(box, is_open)
        is_close = bool(self.undecided.high <= GAP * (self.inside.low + self.undecided.high))
        # Unlike the doubt that a proof is after, V's slope is what makes the boundary cross a box.
        weights = planes.upper.abs() + planes.doubt
        return Examined(~is_open | is_close, torch.zeros_like(is_open), weights)


def _total(box: Interval, chosen: Tensor) -> Interval:
    """Return bounds () of the volume of the ``chosen`` (B,) of the boxes (B, n)."""
    low, high = box.low[chosen], box.high[chosen]
    sides = (Interval.point(high) - Interval.point(low)).within(0, math.inf)
    columns = [sides.moved(lambda bound, side=side: bound[:, side]) for side in range(low.shape[1])]
    return reduce(Interval.__mul__, columns).sum([-1])


def _rounded(number: float, way: str) -> str:
    """Return the number with four digits, rounded the ``way`` that ``decimal`` names.

    >>> _rounded(3.14159, ROUND_FLOOR), _rounded(3.14159, ROUND_CEILING)
    ('3.141', '3.142')
    """
    return f"{float(Context(prec=_DIGITS, rounding=way).create_decimal(Decimal(number))):g}"
