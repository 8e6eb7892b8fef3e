"""V(z) = |g(z) - g(c)|^2 + ..., which is 0 at c in real arithmetic, or to rounding alone, as g(c) is written."""

import pytest
import torch
from torch import Tensor

from analysis.evidence.regions import Ball
from analysis.proofs.box_search import Proof, Unproved
from analysis.proofs.boxes import EXACTLY, prove_claim
from analysis.proofs.steps import prove_of_steps

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
