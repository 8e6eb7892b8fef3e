"""Functions of one number on balls: each with its derivative, not a number where it has none."""

from collections.abc import Callable
from typing import Any

import torch
from flint import arb

aten = torch.ops.aten


def _sigmoid(u: arb) -> arb:
    return 1 / (1 + (-u).exp())


def _erf_slope(u: arb) -> arb:
    return 2 / arb.pi().sqrt() * (-(u * u)).exp()


def _level(jumps: bool) -> arb:
    return arb("nan") if jumps else arb(0)


def _holds_integer(u: arb) -> bool:
    return bool(u.contains_integer())


def _trunc(u: arb) -> arb:
    return u.floor() if u >= 0 else u.ceil() if u <= 0 else u.floor().union(u.ceil())


def _rounded(u: arb) -> arb:
    """Return the nearest integer, of two as near the even one."""
    lower, upper = (u - arb(0.5)).ceil(), (u + arb(0.5)).floor()
    if not (u.is_exact() and (2 * u).is_integer()):
        return lower.union(upper)
    return lower if (lower / 2).is_integer() else upper


# The value and the slope of each function.
ELEMENTARY: dict[Any, tuple[Callable[[arb], arb], Callable[[arb], arb]]] = {
    aten.exp.default: (arb.exp, arb.exp),
    aten.exp2.default: (
        lambda u: (u * arb.const_log2()).exp(),
        lambda u: (u * arb.const_log2()).exp() * arb.const_log2(),
    ),
    aten.expm1.default: (arb.expm1, arb.exp),
    aten.log.default: (arb.log, lambda u: 1 / u),
    aten.log2.default: (lambda u: u.log() / arb.const_log2(), lambda u: 1 / (u * arb.const_log2())),
    aten.log10.default: (lambda u: u.log() / arb.const_log10(), lambda u: 1 / (u * arb.const_log10())),
    aten.log1p.default: (arb.log1p, lambda u: 1 / (1 + u)),
    aten.sin.default: (arb.sin, arb.cos),
    aten.cos.default: (arb.cos, lambda u: -u.sin()),
    aten.tan.default: (arb.tan, lambda u: 1 + u.tan() * u.tan()),
    aten.asin.default: (arb.asin, lambda u: 1 / (1 - u * u).sqrt()),
    aten.acos.default: (arb.acos, lambda u: -1 / (1 - u * u).sqrt()),
    aten.atan.default: (arb.atan, lambda u: 1 / (1 + u * u)),
    aten.sinh.default: (arb.sinh, arb.cosh),
    aten.cosh.default: (arb.cosh, arb.sinh),
    aten.tanh.default: (arb.tanh, lambda u: 1 / u.cosh() ** 2),
    aten.asinh.default: (arb.asinh, lambda u: 1 / (1 + u * u).sqrt()),
    aten.acosh.default: (arb.acosh, lambda u: 1 / (u * u - 1).sqrt()),
    aten.atanh.default: (arb.atanh, lambda u: 1 / (1 - u * u)),
    aten.sigmoid.default: (_sigmoid, lambda u: _sigmoid(u) * _sigmoid(-u)),
    aten.erf.default: (arb.erf, _erf_slope),
    aten.erfc.default: (arb.erfc, lambda u: -_erf_slope(u)),
    # The roundings to integers are constant but for their jumps.
    aten.floor.default: (arb.floor, lambda u: _level(_holds_integer(u))),
    aten.ceil.default: (arb.ceil, lambda u: _level(_holds_integer(u))),
    aten.trunc.default: (_trunc, lambda u: _level(_holds_integer(u) and not -1 < u < 1)),
    aten.round.default: (_rounded, lambda u: _level(_holds_integer(u + arb(0.5)))),
}
