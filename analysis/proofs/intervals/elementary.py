"""Functions of one number on intervals: each with its first and its second derivative."""

import math
from typing import Any

import torch

from analysis.proofs.intervals.interval import Interval, monotone
from analysis.proofs.intervals.jets import Rule

aten = torch.ops.aten


def _one(u: Interval) -> Interval:
    return Interval.point(torch.ones_like(u.low))


def _times(u: Interval, factor: float) -> Interval:
    """Return u times a constant within a unit in the last place of ``factor`` > 0."""
    ends = (u.low.new_tensor(math.nextafter(factor, 0)), u.low.new_tensor(math.nextafter(factor, math.inf)))
    return u * Interval(*ends)


def _tanh_slope(u: Interval) -> Interval:
    return (_one(u) - u.tanh().square()).within(0, 1)


def _sigmoid_slope(u: Interval) -> Interval:
    return u.sigmoid() * (-u).sigmoid()


def _atan_slope(u: Interval) -> Interval:
    return (_one(u) + u.square()).reciprocal()


def _tan_slope(u: Interval) -> Interval:
    return _one(u) + u.tan().square()


def _log1p_slope(u: Interval) -> Interval:
    return (_one(u) + u).reciprocal()


def _erf(u: Interval) -> Interval:
    return monotone(torch.erf, u, exact_at=(0.0,)).within(-1, 1)


def _erfc(u: Interval) -> Interval:
    return -monotone(lambda x: -torch.erfc(x), u, exact_at=(0.0,)).within(-2, 0)


def _erf_slope(u: Interval) -> Interval:
    return _times((-u.square()).exp(), 2 / math.sqrt(math.pi))


def _erf_curvature(u: Interval) -> Interval:
    return (u * _erf_slope(u)).scaled(-2)


def _sinh(u: Interval) -> Interval:
    return monotone(torch.sinh, u, exact_at=(0.0,))


def _cosh(u: Interval) -> Interval:
    found = monotone(torch.cosh, u.absolute(), exact_at=(0.0,))
    return Interval(found.low.clamp(min=1), found.high)


def _asinh(u: Interval) -> Interval:
    return monotone(torch.asinh, u, exact_at=(0.0,))


def _asinh_slope(u: Interval) -> Interval:
    return (_one(u) + u.square()).power(-0.5)


def _asinh_curvature(u: Interval) -> Interval:
    return -(u * _asinh_slope(u).power(3))


def _acosh(u: Interval) -> Interval:
    return monotone(torch.acosh, u, exact_at=(1.0,)).where_known(u.low >= 1)


def _acosh_slope(u: Interval) -> Interval:
    return ((u - _one(u)) * (u + _one(u))).power(-0.5)


def _acosh_curvature(u: Interval) -> Interval:
    return -(u * _acosh_slope(u).power(3))


def _atanh(u: Interval) -> Interval:
    return monotone(torch.atanh, u, exact_at=(0.0,)).where_known((u.low > -1) & (u.high < 1))


def _gap(u: Interval) -> Interval:
    """Return 1 - u^2."""
    return (_one(u) - u) * (_one(u) + u)


def _atanh_slope(u: Interval) -> Interval:
    return _gap(u).reciprocal()


def _atanh_curvature(u: Interval) -> Interval:
    return (u * _gap(u).square().reciprocal()).scaled(2)


def _asin(u: Interval) -> Interval:
    return monotone(torch.asin, u, exact_at=(0.0,)).where_known((u.low >= -1) & (u.high <= 1))


def _acos(u: Interval) -> Interval:
    return -monotone(lambda x: -torch.acos(x), u, exact_at=(1.0,)).where_known((u.low >= -1) & (u.high <= 1))


def _asin_slope(u: Interval) -> Interval:
    return _gap(u).power(-0.5)


def _asin_curvature(u: Interval) -> Interval:
    return u * _asin_slope(u).power(3)


def _exp2(u: Interval) -> Interval:
    found = monotone(torch.exp2, u, exact_at=(0.0,))
    return Interval(found.low.clamp(min=0), found.high)


def _log2(u: Interval) -> Interval:
    return monotone(torch.log2, u, exact_at=(1.0,)).where_known(u.low > 0)


def _log10(u: Interval) -> Interval:
    return monotone(torch.log10, u, exact_at=(1.0,)).where_known(u.low > 0)


LN_2, INVERSE_LN_2, INVERSE_LN_10 = math.log(2), 1 / math.log(2), math.log10(math.e)
# The value, the slope and the curvature of each function.
ELEMENTARY: dict[Any, tuple[Rule, Rule, Rule]] = {
    aten.exp.default: (Interval.exp, Interval.exp, Interval.exp),
    aten.exp2.default: (_exp2, lambda u: _times(_exp2(u), LN_2), lambda u: _times(_times(_exp2(u), LN_2), LN_2)),
    aten.expm1.default: (Interval.expm1, Interval.exp, Interval.exp),
    aten.log.default: (Interval.log, Interval.reciprocal, lambda u: -u.square().reciprocal()),
    aten.log2.default: (
        _log2,
        lambda u: _times(u.reciprocal(), INVERSE_LN_2),
        lambda u: -_times(u.square().reciprocal(), INVERSE_LN_2),
    ),
    aten.log10.default: (
        _log10,
        lambda u: _times(u.reciprocal(), INVERSE_LN_10),
        lambda u: -_times(u.square().reciprocal(), INVERSE_LN_10),
    ),
    aten.log1p.default: (Interval.log1p, _log1p_slope, lambda u: -_log1p_slope(u).square()),
    aten.sin.default: (Interval.sin, Interval.cos, lambda u: -u.sin()),
    aten.cos.default: (Interval.cos, lambda u: -u.sin(), lambda u: -u.cos()),
    aten.tan.default: (Interval.tan, _tan_slope, lambda u: (u.tan() * _tan_slope(u)).scaled(2)),
    aten.asin.default: (_asin, _asin_slope, _asin_curvature),
    aten.acos.default: (_acos, lambda u: -_asin_slope(u), lambda u: -_asin_curvature(u)),
    aten.atan.default: (Interval.atan, _atan_slope, lambda u: (u * _atan_slope(u).square()).scaled(-2)),
    aten.sinh.default: (_sinh, _cosh, _sinh),
    aten.cosh.default: (_cosh, _sinh, _cosh),
    aten.tanh.default: (Interval.tanh, _tanh_slope, lambda u: (u.tanh() * _tanh_slope(u)).scaled(-2)),
    aten.asinh.default: (_asinh, _asinh_slope, _asinh_curvature),
    aten.acosh.default: (_acosh, _acosh_slope, _acosh_curvature),
    aten.atanh.default: (_atanh, _atanh_slope, _atanh_curvature),
    aten.sigmoid.default: (
        Interval.sigmoid,
        _sigmoid_slope,
        lambda u: _sigmoid_slope(u) * ((-u).sigmoid() - u.sigmoid()),
    ),
    aten.erf.default: (_erf, _erf_slope, _erf_curvature),
    aten.erfc.default: (_erfc, lambda u: -_erf_slope(u), lambda u: -_erf_curvature(u)),
}
