"""Sums of squares prove what is known of V with logarithms, up to the edge of it, and nothing where V is not defined."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from flint import arb, fmpq
from torch import Tensor

import stabdeq
from analysis.evidence.regions import Ball, Box
from analysis.proofs.box_search import Proof
from analysis.proofs.polynomials import prove_polynomial
from analysis.proofs.polynomials.logarithms import WithLogarithms, at_most
from analysis.proofs.polynomials.polynomial import Ring
from analysis.proofs.tracing import read

Function = Callable[[Tensor], Tensor]


def ball(dim: int, radius: float) -> Ball:
    return Ball(torch.zeros(dim, dtype=torch.float64), radius)


def is_proved(name: str, value: Function, motion: Function | None, base: Ball | Box, **rest: Any) -> bool:
    near = base.centre + 0.1 * torch.arange(2, dtype=torch.float64)[:, None]
    graphs = [None if function is None else read(function, near) for function in (value, motion)]
    assert graphs[0] is not None
    return isinstance(prove_polynomial(name, *graphs, base=base, **rest), Proof)


def form(z: Tensor) -> Tensor:
    return 1.5 * z[:, 0] ** 2 - z[:, 0] * z[:, 1] + z[:, 1] ** 2


def van_der_pol(z: Tensor) -> Tensor:
    x, y = z.unbind(1)
    return torch.stack([-y, x + (x**2 - 1) * y], 1)


def test_the_bounds_hold_and_touch_at_one() -> None:
    ring = Ring(1)
    argument = ring.constant(fmpq(1)) + ring.coordinates[0]
    logarithm = WithLogarithms.of(argument)
    upper, lower = at_most(logarithm), -at_most(-logarithm)
    for u in [fmpq(one, 1000) for one in (1, 10, 500, 900, 999, 1001, 1100, 3000, 10**5, 10**8)]:
        true = arb(u).log()
        low, high = (arb(_at(bound, u - 1)) for bound in (lower, upper))
        assert low < true < high, u
        if abs(u - 1) <= fmpq(1, 10):
            assert high - low < arb((u - 1) ** 2) / 2, u
    assert upper.at_centre == lower.at_centre == 0


def _at(quotient: Any, offset: fmpq) -> fmpq:
    found = quotient.numerator(offset)
    for place, power in quotient.powers.items():
        found /= quotient.ring.divisors[place](offset) ** power
    return found


@pytest.mark.parametrize("name", ["decrease", "invariant", "closed", "positive", "decay"])
def test_the_logarithm_of_a_polynomial_is_judged_on_its_levels(name: str) -> None:
    """V-dot < 0 for 1.5 x^2 - x y + y^2 <= 2.3042, and not at 2.3047."""

    def value(z: Tensor) -> Tensor:
        return 2 * torch.log1p(form(z)) + 0.0

    rest = {"rate": 0.0} if name == "decay" else {}
    assert is_proved(name, value, van_der_pol, ball(2, 3.0), level=2 * math.log(3.3042), **rest)
    if name in ("decrease", "invariant"):
        assert not is_proved(name, value, van_der_pol, ball(2, 3.0), level=2 * math.log(3.3047))
    between = {"lower": 2 * math.log(1.1), "level": 2 * math.log(3.3)}
    assert name != "decrease" or is_proved(name, value, van_der_pol, ball(2, 3.0), **between)


def test_a_system_that_no_polynomial_is_known_to_decide() -> None:
    """x' = -x + x y, y' = -y has no polynomial V on the whole plane (Ahmadi, Krstic, Parrilo, CDC 2011)."""

    def value(z: Tensor) -> Tensor:
        return torch.log(1 + z[:, 0] ** 2) + z[:, 1] ** 2

    def motion(z: Tensor) -> Tensor:
        x, y = z.unbind(1)
        return torch.stack([-x + x * y, -y], 1)

    for name in ("zero", "positive", "decrease"):
        assert is_proved(name, value, motion, ball(2, 8.0))
    assert is_proved("closed", value, motion, ball(2, 3.0), level=0.5)
    assert not is_proved("closed", value, motion, ball(2, 3.0), level=2.4)  # log 10 is 2.303
    assert not is_proved("decrease", value, lambda z: -motion(z), ball(2, 8.0))


def test_predator_and_prey() -> None:
    """V = sum_i c_i (x_i - e_i - e_i log(x_i / e_i)) of an equilibrium e: V-dot is a quadratic form."""
    centre = torch.tensor([1.0, 0.5], dtype=torch.float64)
    base = Box(centre, centre - 0.45, centre + 3)

    def value(z: Tensor) -> Tensor:
        x, y = z.unbind(1)
        return x - 1 - torch.log(x) + y - 0.5 - 0.5 * torch.log(y / 0.5)

    def motion(z: Tensor) -> Tensor:
        x, y = z.unbind(1)
        return torch.stack([x * (1 - 0.5 * x - y), y * (x - 0.75 - 0.5 * y)], 1)

    for name in ("zero", "positive", "convex", "decrease", "equilibrium"):
        assert is_proved(name, value, motion, base), name
    far = Box(centre, centre - 2, centre + 3)  # where x or y is below 0
    assert not is_proved("positive", value, motion, far)
    assert not is_proved("decrease", value, motion, far)


@pytest.mark.parametrize(("radius", "expected"), [(0.9, True), (1.3, False)])
def test_no_logarithm_is_taken_of_what_is_not_positive(radius: float, expected: bool) -> None:
    def value(z: Tensor) -> Tensor:
        return -torch.log(1 - z.square().sum(1))

    assert is_proved("positive", value, None, ball(2, radius)) == expected
    assert is_proved("decrease", value, lambda z: -z, ball(2, radius)) == expected


def test_along_steps() -> None:
    def value(z: Tensor) -> Tensor:
        return torch.log1p(z.square().sum(1))

    assert is_proved("decrease", value, lambda z: z / 4, ball(2, 1.0), in_steps=True)
    assert is_proved("invariant", value, lambda z: z / 4, ball(2, 2.0), level=1.0, in_steps=True)
    assert not is_proved("invariant", value, lambda z: 1.01 * z, ball(2, 2.0), level=1.0, in_steps=True)
    assert not is_proved("decrease", value, lambda z: z.clone(), ball(2, 1.0), in_steps=True)


@pytest.mark.parametrize(
    "value",
    [
        lambda z: torch.log(2 + form(z)) - math.log(2),
        lambda z: torch.log1p(form(z)) ** 2,
        lambda z: torch.log1p(form(z)) * form(z),
        lambda z: form(z) / (1 + torch.log1p(form(z))),
        lambda z: torch.log1p(torch.log1p(form(z))),
    ],
)
def test_other_uses_of_logarithms_are_left_to_boxes(value: Function) -> None:
    assert not is_proved("positive", value, None, ball(2, 1.0))


def test_an_attitude_by_rodrigues_parameters() -> None:
    """A rigid body, p' = B(p) w and J w' = -w x J w - p - 2 w; V = w' J w / 2 + 2 log(1 + |p|^2), V-dot = -2 |w|^2 (Tsiotras, 1996)."""
    inertia = torch.tensor([1.25, 1.0, 0.75], dtype=torch.float64)

    def motion(z: Tensor) -> Tensor:
        w, p = z[:, :3], z[:, 3:]
        turned = -torch.linalg.cross(w, inertia * w) - p - 2 * w
        square, along = (p * p).sum(1, keepdim=True), (p * w).sum(1, keepdim=True)
        return torch.cat([turned / inertia, ((1 - square) * w + 2 * torch.linalg.cross(p, w) + 2 * along * p) / 4], 1)

    def value(z: Tensor) -> Tensor:
        return ((z[:, :3] ** 2) * inertia).sum(1) / 2 + 2 * torch.log1p((z[:, 3:] ** 2).sum(1))

    report = stabdeq.check(
        value, motion, dim=6, radius=5.0, alpha=0.0, claims=["positive", "decay"], samples=500, starts=4, boxes=64
    )
    assert [finding.verdict.name for finding in report.findings] == ["PROVED", "PROVED"], report
