"""V(z) = |g(z) - g(c)|^2 + ..., which is 0 at c in real arithmetic, or to rounding alone, as g(c) is written."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import stabdeq
from analysis.evidence.regions import Ball
from analysis.findings import Verdict
from analysis.proofs.box_search import Proof, Unproved
from analysis.proofs.boxes import EXACTLY, prove_claim
from analysis.proofs.steps import prove_of_steps

Function = Callable[[Tensor], Tensor]
torch.manual_seed(0)
NETWORK = (
    torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 3)).double().requires_grad_(False)
)
CENTRE = torch.tensor([0.3, -0.2], dtype=torch.float64)
ONCE = NETWORK(CENTRE[None])
BALL = Ball(CENTRE, 0.2)


def anew(z: Tensor) -> Tensor:
    offset = NETWORK(z) - NETWORK(CENTRE * torch.ones_like(z))
    return offset.square().sum(1) + (z - CENTRE).square().sum(1)


def once(z: Tensor) -> Tensor:
    return (NETWORK(z) - ONCE).square().sum(1) + (z - CENTRE).square().sum(1)


def towards(z: Tensor) -> Tensor:
    return CENTRE - z


@pytest.mark.parametrize("name", ["positive", "decrease"])
def test_what_is_computed_anew_is_seen_to_vanish(name: str) -> None:
    assert isinstance(prove_claim(name, anew, towards, BALL, None), Proof)


@pytest.mark.parametrize("name", ["positive", "decrease"])
def test_what_was_computed_once_is_not_and_the_reason_says_how_to_write_it(name: str) -> None:
    found = prove_claim(name, once, towards, BALL, None)
    assert isinstance(found, Unproved)
    assert found.reason.endswith(EXACTLY)


def test_along_steps_the_same() -> None:
    def half(z: Tensor) -> Tensor:
        return (z + CENTRE) / 2

    found = prove_of_steps("decrease", once, half, BALL, 0.0, max_boxes=1000)
    assert isinstance(found, Unproved)
    assert EXACTLY in found.reason


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (lambda z: 1e16 * z.square().sum(1) + 0.3, Verdict.INCONCLUSIVE),
        (lambda z: torch.exp(800 * z.square().sum(1)), Verdict.INCONCLUSIVE),
        (
            lambda z: torch.where(z.norm(dim=1).sub(0.01).abs() < 0.01, torch.nan, z.square().sum(1)) + 1e-17,
            Verdict.INCONCLUSIVE,
        ),
        (lambda z: torch.exp(60 * z.square().sum(1)) - 0.5, Verdict.REFUTED),
        (lambda z: 1e16 * z.square().sum(1), Verdict.PROVED),
        (lambda z: (torch.nn.functional.softplus(z).sum(1) - 2 * math.log(2)).square(), Verdict.SUPPORTED),
    ],
)
def test_a_steep_v_does_not_vanish_for_being_large_elsewhere(value: Function, expected: Verdict) -> None:
    found = stabdeq.check(value, dim=2, claims=["zero"], samples=200, starts=4).named["zero.zero"]
    assert found.verdict is expected
