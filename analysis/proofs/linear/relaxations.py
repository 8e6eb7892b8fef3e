"""A function of one number between two parallel lines over an interval: their slope, and bounds of what the function exceeds s x by.

Any slope s is admissible; that of the chord makes the gap the smallest, or nearly.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from analysis.proofs.intervals.elementary import ELEMENTARY
from analysis.proofs.intervals.interval import FUNCTION_ERROR, ROUNDOFF, UNDERFLOW, Interval
from analysis.proofs.intervals.jets import Jet, Rule

aten = torch.ops.aten

# From the interval of x, of any shape: a slope s, the bounds of f(x) - s x over it, and those of f(x).
Relaxation = Callable[[Interval], tuple[Tensor, Interval, Interval]]


def kinked(below: float, above: float) -> Relaxation:
    """Return the relaxation of x -> ``below`` x for x < 0, ``above`` x for x > 0, with ``below`` < ``above``."""

    def relaxed(x: Interval) -> tuple[Tensor, Interval, Interval]:
        low, high = x.low.clamp(max=0), x.high.clamp(min=0)
        chord = ((above * high - below * low) / (high - low)).clamp(below, above)
        right, left = x.low >= 0, x.high <= 0
        slope = chord.masked_fill(left, below).masked_fill(right, above)
        # Between 0 at the kink, where it is least, and the larger of both ends, where it is open.
        ends = torch.maximum((slope - below) * -low, (above - slope) * high) * (1 + 4 * ROUNDOFF) + UNDERFLOW
        top = ends.masked_fill(left | right, 0)
        # Of both lines, f is the higher one.
        values = [torch.maximum(below * end, above * end) for end in (x.low, x.high)]
        least, most = (
            torch.minimum(*values).masked_fill((x.low < 0) & (x.high > 0) & (below <= 0), 0),
            torch.maximum(*values),
        )
        value = Interval(least, most)
        if not {below, above} <= {-1, 0, 1}:
            value = Interval(least - (least.abs() * ROUNDOFF + UNDERFLOW), most + (most.abs() * ROUNDOFF + UNDERFLOW))
        return slope, Interval(top * 0, top), value

    return relaxed


def square(x: Interval) -> tuple[Tensor, Interval, Interval]:
    """Return the relaxation of x^2, whose gap is least at s / 2."""
    slope = x.low + x.high
    top = torch.maximum(x.low * (x.low - slope), x.high * (x.high - slope))
    magnitude = x.magnitude
    most = magnitude * magnitude
    error = most * (16 * ROUNDOFF) + UNDERFLOW
    nearest = torch.minimum(x.low.abs(), x.high.abs()).masked_fill((x.low <= 0) & (x.high >= 0), 0)
    least = (nearest * nearest * (1 - 4 * ROUNDOFF) - UNDERFLOW).clamp(min=0)
    return slope, Interval(slope * slope / -4 - error, top + error), Interval(least, most + error)


def tanh(x: Interval) -> tuple[Tensor, Interval, Interval]:
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
    far, near = critical * (1 + 1e-9) + 1e-9, critical * (1 - 1e-9) - 1e-9
    # The critical point may be among the numbers, or may not: a gap too many does no harm.
    high = torch.where((x.high >= near) & (x.low <= far), torch.fmax(high, gap), high)
    low = torch.where((x.low <= -near) & (x.high >= -far), torch.fmin(low, -gap), low)
    error = 4 * FUNCTION_ERROR + (4 * ROUNDOFF) * slope * x.magnitude
    value = Interval(
        (below - FUNCTION_ERROR * below.abs() - UNDERFLOW).clamp(min=-1),
        (above + FUNCTION_ERROR * above.abs() + UNDERFLOW).clamp(max=1),
    )
    return slope, Interval(low - error, high + error), value


def squared_tanh(x: Interval) -> tuple[Tensor, Interval, Interval]:
    """Return the relaxation of tanh^2, whose second derivative is 2 (1 - q)(1 - 3q) at q = tanh^2, the least at q = 2/3."""
    below, above = torch.tanh(x.low).square_(), torch.tanh(x.high).square_()
    width = x.high - x.low
    slope = torch.where(width > 0, (above - below) / width, 0)
    gap_below, gap_above = below - slope * x.low, above - slope * x.high
    inside = (x.low <= 0) & (x.high >= 0)
    least = torch.minimum(below, above).masked_fill(inside, 0)
    most = torch.maximum(below, above)
    bends = [2 * (1 - q) * (1 - 3 * q) for q in (least, most)]
    lowest = torch.minimum(*bends).masked_fill((least <= 2 / 3) & (most >= 2 / 3), -2 / 3)
    arc = width * width / 8
    error = 4 * FUNCTION_ERROR + (4 * ROUNDOFF) * slope.abs() * x.magnitude + arc * (32 * FUNCTION_ERROR)
    gap = Interval(
        torch.minimum(gap_below, gap_above) - arc * torch.maximum(*bends).clamp(min=0) - error,
        torch.maximum(gap_below, gap_above) - arc * lowest.clamp(max=0) + error,
    )
    return narrower(
        slope, gap, Interval((least - 3 * FUNCTION_ERROR).clamp(min=0), (most + 3 * FUNCTION_ERROR).clamp(max=1))
    )


def curved(value: Rule, slope: Rule, curvature: Rule) -> Relaxation:
    """Return the relaxation of a function that is twice differentiable where it is known, by it and its derivatives on intervals."""

    def relaxed(x: Interval) -> tuple[Tensor, Interval, Interval]:
        over = value(x)
        ends = [value(Interval.point(end)) for end in (x.low, x.high)]
        return _about_chord(x, over, ends, slope(x), curvature(x).where_known(~(over.low.isnan() | over.high.isnan())))

    return relaxed


def smooth(operation: Callable[[Jet], Jet]) -> Relaxation:
    """Return the relaxation of a function that is twice differentiable, given as an operation on jets."""

    def jet_over(x: Interval, order: int) -> Jet:
        return operation(Jet.states(x.moved(lambda bound: bound.reshape(-1, 1)), order))

    def relaxed(x: Interval) -> tuple[Tensor, Interval, Interval]:
        shape = x.shape

        def part(interval: Interval | None) -> Interval:
            found = interval or Interval.point(torch.zeros(shape, dtype=torch.float64))
            return found.moved(lambda bound: bound.expand(*bound.shape[:-3], shape.numel(), 1, 1).reshape(shape))

        over = jet_over(x, 2)
        ends = [part(jet_over(Interval.point(end), 0).value) for end in (x.low, x.high)]
        bends = (over.bends_up | over.bends_down).expand(shape.numel(), 1, 1).reshape(shape)
        return _about_chord(x, part(over.value), ends, part(over.gradient), part(over.hessian).where_known(~bends))

    return relaxed


def _about_chord(
    x: Interval, value: Interval, ends: list[Interval], gradient: Interval, curvature: Interval
) -> tuple[Tensor, Interval, Interval]:
    """Return the relaxation of f by the chord and the second derivative, from bounds of f and its derivatives over x, and at its ends.

    With l <= x <= h, f(x) less the chord is -f''(y) (x - l)(h - x) / 2, where (x - l)(h - x) is between 0 and (h - l)^2 / 4.
    """
    width = (x.high - x.low) * (1 + 2 * ROUNDOFF)
    middles = [end.low / 2 + end.high / 2 for end in ends]
    slope = torch.where(width > 0, (middles[1] - middles[0]) / width, gradient.low)
    # The chord of an interval a few units wide is rounding: the slope is among the derivatives.
    slope = torch.minimum(torch.maximum(slope, gradient.low), gradient.high)
    at = [slope * x.low, slope * x.high]
    low, high = torch.minimum(ends[0].low - at[0], ends[1].low - at[1]), ends[0].high - at[0]
    high = torch.maximum(high, ends[1].high - at[1])
    arc = width * width / 8 + UNDERFLOW
    lowered, raised = arc * curvature.high.clamp(min=0), arc * (-curvature.low).clamp(min=0)
    # A few roundings of each of these numbers.
    size = sum((end.magnitude for end in ends), start=at[0].abs() + at[1].abs())
    error = (size + lowered + raised) * (8 * ROUNDOFF) + 4 * UNDERFLOW
    return narrower(slope, Interval(low - lowered - error, high + raised + error), value)


def narrower(slope: Tensor, gap: Interval, value: Interval) -> tuple[Tensor, Interval, Interval]:
    """Return the relaxation, or a constant one by the function's own bounds where these are closer together, or alone known."""
    sloped = gap.high - gap.low <= value.high - value.low
    sloped |= value.low.isnan()
    return (
        slope.masked_fill(~sloped, 0),
        Interval(torch.where(sloped, gap.low, value.low), torch.where(sloped, gap.high, value.high)),
        value,
    )


KNOWN: dict[Any, Relaxation] = {
    **{target: curved(*rules) for target, rules in ELEMENTARY.items()},
    aten.reciprocal.default: curved(
        Interval.reciprocal, lambda u: -u.square().reciprocal(), lambda u: u.power(3).reciprocal().scaled(2)
    ),
    aten.square.default: square,
    aten.tanh.default: tanh,
    "tanh^2": squared_tanh,
}
