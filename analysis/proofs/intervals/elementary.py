"""Functions of one number on intervals: each with its first and its second derivative."""

from typing import Any

import torch

from analysis.proofs.intervals.interval import Interval
from analysis.proofs.intervals.jets import Rule

aten = torch.ops.aten


def _one(u: Interval) -> Interval:
    return Interval.point(torch.ones_like(u.low))


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


# The value, the slope and the curvature of each function.
ELEMENTARY: dict[Any, tuple[Rule, Rule, Rule]] = {
    aten.exp.default: (Interval.exp, Interval.exp, Interval.exp),
    aten.expm1.default: (Interval.expm1, Interval.exp, Interval.exp),
    aten.log.default: (Interval.log, Interval.reciprocal, lambda u: -u.square().reciprocal()),
    aten.log1p.default: (Interval.log1p, _log1p_slope, lambda u: -_log1p_slope(u).square()),
    aten.sin.default: (Interval.sin, Interval.cos, lambda u: -u.sin()),
    aten.cos.default: (Interval.cos, lambda u: -u.sin(), lambda u: -u.cos()),
    aten.tan.default: (Interval.tan, _tan_slope, lambda u: (u.tan() * _tan_slope(u)).scaled(2)),
    aten.tanh.default: (Interval.tanh, _tanh_slope, lambda u: (u.tanh() * _tanh_slope(u)).scaled(-2)),
    aten.sigmoid.default: (
        Interval.sigmoid,
        _sigmoid_slope,
        lambda u: _sigmoid_slope(u) * ((-u).sigmoid() - u.sigmoid()),
    ),
    aten.atan.default: (Interval.atan, _atan_slope, lambda u: (u * _atan_slope(u).square()).scaled(-2)),
}
