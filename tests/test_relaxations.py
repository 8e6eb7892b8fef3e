"""Functions of one number between two parallel lines over an interval: what the lines say holds, in more digits, and they are close."""

import math
from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch
from flint import arb, ctx

from analysis.proofs.balls.elementary import ELEMENTARY
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.intervals.operations import OPERATIONS, aten
from analysis.proofs.linear.relaxations import KNOWN, Relaxation, kinked, smooth

Exact = Callable[[arb], arb]
COUNT = 20
# Where a function is defined, if not on all of [-3, 3].
DOMAINS = {
    **dict.fromkeys((aten.log.default, aten.log2.default, aten.log10.default, aten.reciprocal.default), (0.2, 3.0)),
    **dict.fromkeys((aten.atanh.default, aten.asin.default, aten.acos.default), (-0.95, 0.95)),
    aten.acosh.default: (1.05, 3.0),
    aten.log1p.default: (-0.9, 3.0),
    aten.tan.default: (-1.4, 1.4),
    **dict.fromkeys(("x^1.5", "x^-0.5"), (0.2, 3.0)),
}


def power(exponent: float) -> Relaxation:
    return smooth(lambda x: OPERATIONS[aten.pow.Tensor_Scalar](x, exponent))


def kink(below: float, above: float) -> tuple[Relaxation, Exact]:
    return kinked(below, above), lambda u: u * (above if u > 0 else below)


FUNCTIONS: dict[Any, tuple[Relaxation, Exact]] = {
    **{target: (KNOWN[target], value) for target, (value, _) in ELEMENTARY.items() if target in KNOWN},
    aten.reciprocal.default: (KNOWN[aten.reciprocal.default], lambda u: 1 / u),
    aten.square.default: (KNOWN[aten.square.default], lambda u: u * u),
    "tanh^2": (KNOWN["tanh^2"], lambda u: u.tanh() ** 2),
    **{f"x^{exponent}": (power(exponent), lambda u, p=exponent: u ** arb(p)) for exponent in (1.5, -0.5)},
    "x^3": (power(3.0), lambda u: u**3),
}
KINKS = {
    f"{below} x, {above} x": kink(below, above) for below, above in ((0.0, 1.0), (-1.0, 1.0), (0.1, 1.0), (-0.3, 0.7))
}


@pytest.fixture(autouse=True)
def _bits() -> Generator[None]:
    before, ctx.prec = ctx.prec, 128
    yield
    ctx.prec = before


def intervals(name: Any, width: float) -> Interval:
    """Intervals (``COUNT``,) of about this width, around 0 too where the function is defined there."""
    least, most = DOMAINS.get(name, (-3.0, 3.0))
    middles = least + (most - least) * torch.rand(
        COUNT, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    middles[:4] = 0.0 if least < 0 else least
    ends = (middles + side * width * torch.linspace(0.1, 1, COUNT, dtype=torch.float64) for side in (-0.5, 0.5))
    low, high = (end.clamp(least, most) for end in ends)
    return Interval(low, high)


def may_lie(number: arb, low: arb, high: arb) -> bool:
    return not (number < low or number > high)


@pytest.mark.parametrize("name", [*FUNCTIONS, *KINKS], ids=str)
def test_a_function_is_between_its_lines_and_within_its_bounds(name: Any) -> None:
    relaxed, exact = (FUNCTIONS | KINKS)[name]
    for width in (0.0, 1e-13, 1e-7, 1e-2, 0.5, 4.0):
        x = intervals(name, width)
        slope, gap, value = relaxed(x)
        assert bool(slope.isfinite().all())
        for share in (0.0, 0.3, 0.5, 0.8, 1.0):
            states = torch.minimum(torch.maximum(x.low + share * (x.high - x.low), x.low), x.high)
            for state, *ends in zip(states, slope, gap.low, gap.high, value.low, value.high, strict=True):
                u, s, low, high, least, most = (arb(float(number)) for number in (state, *ends))
                found = exact(u)
                assert may_lie(found, least, most), (width, float(u))
                assert may_lie(found - s * u, low, high), (width, float(u))


@pytest.mark.parametrize("name", FUNCTIONS, ids=str)
def test_the_lines_come_together_with_the_square_of_the_width(name: Any) -> None:
    gaps = [FUNCTIONS[name][0](intervals(name, width))[1] for width in (1e-2, 1e-3)]
    assert 80 < float((gaps[0].high - gaps[0].low).median() / (gaps[1].high - gaps[1].low).median()) < 120


def test_lines_about_a_kink_are_as_close_as_can_be() -> None:
    """Through both ends of [-1, 3] above, and through the kink below."""
    x = Interval(torch.tensor([-1.0]).double(), torch.tensor([3.0]).double())
    for below, above in ((0.0, 1.0), (-1.0, 1.0), (0.1, 1.0)):
        slope, gap, value = kinked(below, above)(x)
        chord = (3 * above + below) / 4
        assert (float(slope), float(gap.low), float(gap.high)) == pytest.approx((chord, 0, chord - below), abs=1e-12)
        assert (float(value.low), float(value.high)) == pytest.approx((min(-below, 0), 3 * above), abs=1e-12)


def test_nothing_is_known_of_numbers_without_bounds() -> None:
    for relaxed, _ in FUNCTIONS.values():
        nothing = torch.tensor([math.nan]).double()
        _, gap, value = relaxed(Interval(nothing, nothing))
        assert bool(gap.low.isnan())
        assert bool(value.high.isnan())
