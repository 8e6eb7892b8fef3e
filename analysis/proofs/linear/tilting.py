"""Upper planes that follow what is concave: a square below 0 has a tangent anywhere, the one at a box's middle being seldom the best."""

from typing import NamedTuple

import torch
from torch import Tensor

from analysis.proofs.intervals.interval import ROUNDOFF
from analysis.proofs.linear.forms import UP, Boxes, reach

# What underflows in a sum of products, as long as the coordinates are no larger than ``bounds.LARGEST``.
UNDERFLOWN = 1e-200
# Shares of the tilt that would be best if the plane stayed highest at the same corner.
SHARES = (1.0, 0.5, 0.25)


class Squares(NamedTuple):
    """Numbers ``weight`` q^2 / 4 over boxes, (m, B), up to the sign, with q = ``slopes`` (m, n, B) . (z - c) to within ``spare``."""

    weight: Tensor
    slopes: Tensor
    spare: Tensor

    @classmethod
    def of(cls, coefficients: Tensor, first: Tensor, second: Tensor, spare: Tensor) -> tuple["Squares", "Squares"]:
        """Return what is convex and what is concave in ``coefficients`` (m, B) times (p^2 - q^2) / 4, by the slopes of p and of q."""
        is_first = (coefficients > 0)[:, None]
        both = torch.where(is_first, first, second), torch.where(is_first, second, first)
        return tuple(cls(coefficients.abs(), slopes, spare) for slopes in both)  # pyrefly: ignore


def tilted(slope: Tensor, offset: Tensor, concave: list[Squares], boxes: Boxes) -> tuple[Tensor, Tensor]:
    """Return an upper plane that is lower at its highest over the boxes, from ``slope`` (n, B) and ``offset`` (B,) of one that leaves
    ``concave`` parts out, since they are at most 0.

    For any number t, -k q^2 / 4 <= t q + t^2 / k. The t is chosen by trial, for each part in turn.
    """
    for part in [Squares(*one) for parts in concave for one in zip(*parts, strict=True)]:
        along = (slope.sign() * part.slopes * boxes.radius).sum(0)
        best = -along.sign() * (along.abs() - part.spare).clamp(min=0) * part.weight / 2
        tilts = torch.stack([torch.zeros_like(best), *(best * share for share in SHARES)])
        added = (tilts * tilts / part.weight.clamp(min=UNDERFLOWN) + tilts.abs() * part.spare) * UP
        tops = ((slope + tilts[:, None] * part.slopes).abs() * boxes.radius).sum(1) + added
        choice = tops.argmin(0, keepdim=True)
        tilt, rise = tilts.gather(0, choice)[0], added.gather(0, choice)[0]
        turn = tilt * part.slopes
        at_centre = (turn * boxes.centre).sum(0)
        # Sums of n products, whose factors are rounded too.
        size = (
            ((slope.abs() + turn.abs()) * (boxes.centre.abs() + boxes.radius)).sum(0) + at_centre.abs() + offset.abs()
        )
        rounded = (size + rise) * ((len(turn) + 8) * ROUNDOFF) + UNDERFLOWN
        takes = tilt.abs() > 0
        slope = torch.where(takes, slope + turn, slope)
        offset = torch.where(takes, offset - at_centre + rise + rounded, offset)
    return slope, offset


def extent(slope: Tensor, offset: Tensor, boxes: Boxes) -> tuple[Tensor, Tensor]:
    """Return the least and the most (B,) that a plane is over the boxes, rounded outwards."""
    middle, around = (slope * boxes.centre).sum(0) + offset, reach(slope[None], boxes.radius)[0]
    # Sums of n products, and of these.
    size = (slope.abs() * boxes.centre.abs()).sum(0) + around + offset.abs()
    spare = size * ((len(slope) + 8) * ROUNDOFF) + UNDERFLOWN
    return middle - around - spare, middle + around + spare
