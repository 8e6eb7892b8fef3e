"""Operations on jets whose rule changes from place to place: ELU, roundings to integers, the angle of a point."""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from analysis.proofs.intervals.elementary import ELEMENTARY
from analysis.proofs.intervals.interval import Interval, choose
from analysis.proofs.intervals.jets import Jet, Rule, Truth, aligned, where
from analysis.proofs.shapes import common_shape

ATAN = ELEMENTARY[torch.ops.aten.atan.default]


def elu(x: Jet, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Jet:
    """Return scale x where x > 0, and scale alpha (exp(input_scale x) - 1) elsewhere, all three positive."""
    if min(alpha, scale, input_scale) <= 0:
        raise TypeError("expected positive coefficients")

    def left(u: Interval, function: Rule, factors: list[float]) -> Interval:
        """Return ``function`` of the negative part of input_scale u, times ``factors``."""
        found = function(Interval(u.low.clamp(max=0), u.high.clamp(max=0)).scaled(input_scale))
        for factor in factors:
            found = found.scaled(factor)
        return found

    def pieces(u: Interval, right: Interval, function: Rule, factors: list[float]) -> Interval:
        negative = left(u, function, factors)
        return choose(u.low > 0, right, choose(u.high < 0, negative, right.hull(negative)))

    def constant(u: Interval, number: float) -> Interval:
        return Interval.point(torch.full_like(u.low, number))

    u = x.value
    below, above = left(u, Interval.expm1, [alpha, scale]), u.scaled(scale)
    value = Interval(torch.where(u.low > 0, above.low, below.low), torch.where(u.high > 0, above.high, below.high))
    found = x.chained(
        value,
        lambda u: pieces(u, constant(u, scale), Interval.exp, [alpha, scale, input_scale]),
        lambda u: pieces(u, constant(u, 0.0), Interval.exp, [alpha, scale, input_scale, input_scale]),
    )
    if x.gradient is None:
        return found
    rise = Fraction(alpha) * Fraction(input_scale) - 1  # by so much is the slope left of 0 larger, of that on the right
    return replace(
        found,
        bends_up=found.bends_up | u.holds_zero & (rise < 0),
        bends_down=found.bends_down | u.holds_zero & (rise > 0),
    )


def steps(function: Callable[[Tensor], Tensor]) -> Callable[[Jet], Jet]:
    """Return the operation of a non-decreasing function that is constant but for jumps, at floats: a rounding to integers."""

    def operation(x: Jet) -> Jet:
        u = x.value
        infinity = u.low.new_tensor(math.inf)
        is_steady = function(torch.nextafter(u.low, -infinity)) == function(torch.nextafter(u.high, infinity))
        found = x.chained(Interval(function(u.low), function(u.high)), _zero, _zero)
        return _unknown_where(~is_steady, found)

    return operation


def _zero(u: Interval) -> Interval:
    return Interval.point(torch.zeros_like(u.low))


def _unknown_where(jumps: Tensor, jet: Jet) -> Jet:
    """Return the jet with no more than its value known where the function ``jumps``."""
    if jet.gradient is None:
        return jet
    gradient, hessian = (part and part.where_known(~jumps) for part in (jet.gradient, jet.hessian))
    return replace(
        jet, gradient=gradient, hessian=hessian, bends_up=jet.bends_up | jumps, bends_down=jet.bends_down | jumps
    )


def angle(y: Jet, x: Jet) -> Jet:
    """Return atan2(y, x), whose value alone is known where the boxes meet its cut, y = 0 and x <= 0."""
    y, x = aligned(y, x)

    def arc(quotient: Jet) -> Jet:
        value, slope, curvature = ATAN
        return quotient.chained(value(quotient.value), slope, curvature)

    quarter = Interval(*(y.value.low.new_tensor([math.nextafter(math.pi / 2, end)]) for end in (0, math.inf)))
    quarter = quarter.moved(lambda bound: bound.reshape((1,) * y.value.low.dim()))
    right, upper, lower = x.value.low > 0, y.value.low > 0, y.value.high < 0
    found = Jet.flat(quarter.scaled(2).hull(-quarter.scaled(2)))
    for known, part in (
        (lower, Jet.flat(-quarter) - arc(x / y)),
        (upper, Jet.flat(quarter) - arc(x / y)),
        (right, arc(y / x)),
    ):
        known = known.expand(common_shape(right.shape, upper.shape))
        found = where(Truth(known, known), part, found)
    return _unknown_where(~(right | upper | lower), found)
