"""A function of one number between two parallel lines over an interval: its slope, and bounds of what the function exceeds it by.

Any slope is admissible; that of the chord makes the gap the smallest, or nearly.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from analysis.proofs.intervals.interval import FUNCTION_ERROR, ROUNDOFF, UNDERFLOW, Interval
from analysis.proofs.intervals.jets import Jet

# From the interval of x to a slope s, the same shape, and the bounds of f(x) - s x over it.
Relaxation = Callable[[Interval], tuple[Tensor, Interval]]


def kinked(below: float, above: float) -> Relaxation:
    """Return the relaxation of x -> ``below`` x for x < 0, ``above`` x for x > 0, with ``below`` < ``above``."""

    def relaxed(x: Interval) -> tuple[Tensor, Interval]:
        low, high = x.low.clamp(max=0), x.high.clamp(min=0)
        chord = (above * high - below * low) / (high - low)
        slope = torch.where(x.low >= 0, above, torch.where(x.high <= 0, below, chord.clamp(below, above)))
        # Between 0 at the kink, where it is least, and the larger of both ends, where it is open.
        ends = torch.maximum((slope - below) * -low, (above - slope) * high) * (1 + 4 * ROUNDOFF) + UNDERFLOW
        top = torch.where((x.low >= 0) | (x.high <= 0), 0, ends)
        return slope, Interval(torch.zeros_like(top).masked_fill(top.isnan(), math.nan), top)

    return relaxed


def tanh(x: Interval) -> tuple[Tensor, Interval]:
    """Return the relaxation of tanh, whose gap ends at the ends of the interval or where the slopes agree: tanh^2 = 1 - s."""
    below, above = torch.tanh(x.low), torch.tanh(x.high)
    width = x.high - x.low
    slope = torch.where(width > 0, (above - below) / width, 1 - below * below).clamp(0, 1)
    gap_below, gap_above = below - slope * x.low, above - slope * x.high
    low, high = torch.minimum(gap_below, gap_above), torch.maximum(gap_below, gap_above)
    # At the critical points +-y: y = atanh(r) with r = sqrt(1 - s), and (1 - r)(1 + r) = s.
    root = (1 - slope).sqrt()
    critical = torch.log1p(root) - slope.log() / 2
    gap = root - slope * critical
    reach = critical * (1 + 1e-9) + 1e-9
    near = critical * (1 - 1e-9) - 1e-9
    # The critical point may be among the numbers, or may not: a gap too many does no harm.
    high = torch.where((x.high >= near) & (x.low <= reach) & (slope > 0), torch.maximum(high, gap), high)
    low = torch.where((x.low <= -near) & (x.high >= -reach) & (slope > 0), torch.minimum(low, -gap), low)
    error = 4 * FUNCTION_ERROR + 4 * ROUNDOFF * slope * x.magnitude
    return slope, Interval(low - error, high + error)


def smooth(operation: Callable[[Jet], Jet]) -> Relaxation:
    """Return the relaxation of a function that is twice differentiable, by the bounds of its second derivative.

    With l <= x <= h, f(x) less the chord is -f''(y) (x - l)(h - x) / 2, where (x - l)(h - x) is between 0 and (h - l)^2 / 4.
    """

    def jet_over(x: Interval, order: int) -> Jet:
        return operation(Jet.states(x.moved(lambda bound: bound.reshape(-1, 1)), order))

    def relaxed(x: Interval) -> tuple[Tensor, Interval]:
        shape = x.shape

        def part(interval: Interval | None) -> Interval:
            found = interval or Interval.point(torch.zeros(shape, dtype=torch.float64))
            return found.moved(lambda bound: bound.expand(*bound.shape[:-3], shape.numel(), 1, 1).reshape(shape))

        over = jet_over(x, 2)
        ends = [part(jet_over(Interval.point(end), 0).value) for end in (x.low, x.high)]
        width = (Interval.point(x.high) - Interval.point(x.low)).high
        middles = [end.low / 2 + end.high / 2 for end in ends]
        gradient = part(over.gradient)
        slope = torch.where(width > 0, (middles[1] - middles[0]) / width, gradient.low)
        # The chord of an interval a few units wide is rounding: the slope is among the derivatives.
        slope = torch.minimum(torch.maximum(slope, gradient.low), gradient.high)
        factor = Interval.point(slope)
        gaps = [end - factor * Interval.point(at) for end, at in zip(ends, (x.low, x.high), strict=True)]
        gap = gaps[0].hull(gaps[1])
        curvature = part(over.hessian)
        bend = Interval.point(width / 2).square().scaled(0.5)
        lowered, raised = (
            (bend * Interval.point(worst)).high
            for worst in (curvature.high.clamp(min=0), (-curvature.low).clamp(min=0))
        )
        found = Interval((gap - Interval.point(lowered)).low, (gap + Interval.point(raised)).high)
        bends = (over.bends_up | over.bends_down).expand(shape.numel(), 1, 1).reshape(shape)
        return _or_flat(slope, found.where_known(~bends), part(over.value))

    return relaxed


def _or_flat(slope: Tensor, gap: Interval, value: Interval) -> tuple[Tensor, Interval]:
    """Return the relaxation, or a constant one where that is narrower, or alone known."""
    known = gap.low.isfinite() & gap.high.isfinite() & slope.isfinite()
    return torch.where(known, slope, 0), Interval(
        torch.where(known, gap.low, value.low), torch.where(known, gap.high, value.high)
    )
