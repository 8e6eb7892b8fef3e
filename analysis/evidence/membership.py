"""Whether a state lies in a region for certain, its coordinates and the region's numbers being meant exactly."""

from fractions import Fraction

from torch import Tensor

from analysis.evidence.regions import Ball, Box, Outside, Pairs, Region
from analysis.evidence.sublevel import Sublevel


def surely_contains(region: Region, state: Tensor) -> bool:
    """Return whether ``state`` (n,) lies in ``region``: exactly for balls and boxes; a sublevel set's V to rounding."""
    if isinstance(region, Pairs):
        return all(surely_contains(region.region, part) for part in state.chunk(2))
    if isinstance(region, Outside):
        return surely_contains(region.region, state) and _square(region, state) >= Fraction(region.inner) ** 2
    if isinstance(region, Ball):
        return _square(region, state) <= Fraction(region.radius) ** 2
    if isinstance(region, Box):
        return bool(((state >= region.low) & (state <= region.high)).all())
    if isinstance(region, Sublevel) and not surely_contains(region.base, state):
        return False
    return bool(region.contains(state[None])[0])


def _square(region: Region, state: Tensor) -> Fraction:
    """Return the squared distance from the centre."""
    pairs = zip(state.tolist(), region.centre.tolist(), strict=True)
    return sum(((Fraction(x) - Fraction(c)) ** 2 for x, c in pairs), start=Fraction(0))
