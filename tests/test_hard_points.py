"""Elementary functions of intervals against ball arithmetic, where a double's neighbours make it hard to be right.

Bounds have to hold the true value, which arb gives at 1500 bits; the points are known hard ones.
"""

import math
from collections.abc import Callable

import pytest
import torch
from flint import arb, ctx
from torch import Tensor

from analysis.proofs.intervals.interval import Interval

BITS = 1500
TINY = 2.0**-1074
# Doubles next to a multiple of pi / 2; the last is the one that lies nearest of all (Kahan; Muller, Elementary Functions, 11.3).
NEAR_QUARTER_TURNS = [
    math.pi / 2,
    math.pi,
    3 * math.pi / 2,
    2 * math.pi,
    355.0,
    710.0,
    103993.0,
    1e22,
    float.fromhex("0x1.6ac5b262ca1ffp+849"),
    6381956970095103 * 2.0**797,
]
NEAR_ONE = [1 - 2.0**-53, 1 + 2.0**-52, 1 + 2.0**-51, 1 - 2.0**-52]
# The hardest of exp and log to round to nearest in double precision (Lefevre and Muller, 2001), and where they overflow.
HARD_EXP = [
    float.fromhex("0x1.9e9cbbfd6080bp-31"),
    float.fromhex("-0x1.ed318efb627eap-27"),
    float.fromhex("0x1.83d4bcdebb3f4p+2"),
    709.782712893384,
    709.7827128933841,
    -745.1332191019411,
    -745.1332191019412,
    -708.3964185322641,
]
HARD_LOG = [
    float.fromhex("0x1.62a88613629b5p+678"),
    float.fromhex("0x1.ab50b409c8aeep+8"),
    float.fromhex("0x1.accebe12b3ef7p-1"),
    *NEAR_ONE,
]
SMALL = [0.0, TINY, -TINY, 2.0**-1022, -(2.0**-1022), 2.0**-537, 2.0**-53, -(2.0**-54), 1e-8, -1e-8]
ORDINARY = [0.5, -0.5, 1.0, -1.0, 2.0, 3.0, 10.0, -10.0, 19.0615, 22.5, -40.0, 100.0]
POSITIVE = [x for x in [*SMALL, *ORDINARY, 1e300, 1.7976931348623157e308] if x > 0]

FUNCTIONS: dict[str, tuple[Callable[[Interval], Interval], Callable[[arb], arb], list[float]]] = {
    "sqrt": (Interval.sqrt, arb.sqrt, [0.0, *POSITIVE, *NEAR_ONE]),
    "exp": (Interval.exp, arb.exp, [*SMALL, *ORDINARY, *HARD_EXP]),
    "expm1": (Interval.expm1, arb.expm1, [*SMALL, *ORDINARY, *HARD_EXP]),
    "log": (Interval.log, arb.log, [*POSITIVE, *HARD_LOG]),
    "log1p": (Interval.log1p, arb.log1p, [*SMALL, *POSITIVE, -1 + 2.0**-53, -0.5, *HARD_LOG]),
    "tanh": (Interval.tanh, arb.tanh, [*SMALL, *ORDINARY, *HARD_EXP]),
    "sigmoid": (Interval.sigmoid, lambda x: 1 / (1 + (-x).exp()), [*SMALL, *ORDINARY, *HARD_EXP]),
    "atan": (Interval.atan, arb.atan, [*SMALL, *ORDINARY, *NEAR_ONE, 1e300, -1e300]),
    "tan": (Interval.tan, arb.tan, [*SMALL, *ORDINARY, *NEAR_QUARTER_TURNS]),
    "sin": (Interval.sin, arb.sin, [*SMALL, *ORDINARY, *NEAR_QUARTER_TURNS]),
    "cos": (Interval.cos, arb.cos, [*SMALL, *ORDINARY, *NEAR_QUARTER_TURNS]),
    "reciprocal": (Interval.reciprocal, lambda x: 1 / x, [*POSITIVE, *[-x for x in POSITIVE], *NEAR_ONE]),
    "square": (Interval.square, lambda x: x * x, [*SMALL, *ORDINARY, *NEAR_ONE, 1.3e154, 1e300]),
    "cube": (lambda x: x.power(3), lambda x: x**3, [*SMALL, *ORDINARY, *NEAR_ONE, 1e102, 5.6e102]),
    "power 1.5": (lambda x: x.power(1.5), lambda x: x ** arb(1.5), [*POSITIVE, *NEAR_ONE]),
    "power -2": (lambda x: x.power(-2), lambda x: 1 / (x * x), [*POSITIVE, *NEAR_ONE]),
}


def ends(interval: Interval) -> tuple[Tensor, Tensor]:
    return interval.low, interval.high


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bounds_hold_the_truth(name: str) -> None:
    enclose, true, points = FUNCTIONS[name]
    points = sorted(
        {*points, *(math.nextafter(x, math.inf) for x in points if enclosable(name, math.nextafter(x, math.inf)))}
    )
    low, high = ends(enclose(Interval.point(torch.tensor(points, dtype=torch.float64))))
    ctx.prec = BITS
    try:
        for x, least, most in zip(points, low.tolist(), high.tolist(), strict=True):
            truth = true(arb(x))
            assert truth.is_finite(), x
            assert (math.isnan(least) and math.isnan(most)) or (not truth < arb(least) and not truth > arb(most)), (
                f"{name}({x!r}) is {truth.str(20)}, not in [{least!r}, {most!r}]"
            )
    finally:
        ctx.prec = 53


def enclosable(name: str, x: float) -> bool:
    return math.isfinite(x) and (name not in ("log", "sqrt", "power 1.5", "power -2", "reciprocal") or x != 0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bounds_are_near_each_other(name: str) -> None:
    enclose, true, points = FUNCTIONS[name]
    # Far out a sine has no bounds but -1 and 1 here, and a tangent none.
    points = [x for x in points if abs(x) < 100 and (x == 0 or abs(x) > 1e-300)]
    low, high = ends(enclose(Interval.point(torch.tensor(points, dtype=torch.float64))))
    value = torch.tensor([float(true(arb(x))) for x in points], dtype=torch.float64)
    known = value.isfinite() & ~((name == "tan") & (value.abs() > 1e12))
    width = (high - low)[known]
    assert (
        width <= 1e-14 * value.abs()[known].clamp(min=1e-300) + 1e-30 + 1e-15 * (name in ("sin", "cos", "tan"))
    ).all(), name
