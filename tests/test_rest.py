"""The equilibrium next to the centre: enclosed where there is one, as near as it is, and drawing no more than it does."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from analysis.evidence.regions import Box
from analysis.proofs.basin import falling_form
from analysis.proofs.box_search import Search
from analysis.proofs.rest import Rest, find_rest

Function = Callable[[Tensor], Tensor]
TURN = torch.tensor([[-1.0, 3.0], [-2.0, -0.5]], dtype=torch.float64)


def rest(motion: Function, *, dim: int = 1, in_steps: bool = False, side: float = 2.0) -> Rest | None:
    centre = torch.zeros(dim, dtype=torch.float64)
    base = Box(centre, centre - side, centre + side)
    return find_rest(Search(lambda z: z.square().sum(1), motion, base, None, 1000, math.inf), in_steps=in_steps)


@pytest.mark.parametrize("in_steps", [False, True])
def test_an_equilibrium_beside_the_centre_is_enclosed(in_steps: bool) -> None:
    apart = torch.tensor([1e-3, -2e-3], dtype=torch.float64)

    def motion(z: Tensor) -> Tensor:
        falls = (z - apart) @ TURN.mT - (z - apart) ** 3
        return z + 0.1 * falls if in_steps else falls

    found = rest(motion, dim=2, in_steps=in_steps)
    assert found is not None
    assert float(apart.norm()) <= found.distance < 1.1 * float(apart.norm())
    assert found.attracts > 0.1


@pytest.mark.parametrize("speed", [0.2, 5.0])
def test_what_is_drawn_stays_short_of_the_next_equilibrium(speed: float) -> None:
    """z' = -s (z - z^3), and z+ = z (1 + z^2) / 2, rest at 0, 1 and -1, and draw to 0 what lies between."""
    for motion, in_steps in ((lambda z: speed * (z**3 - z), False), (lambda z: (z + z**3) / 2, True)):
        found = rest(motion, in_steps=in_steps)
        assert found is not None
        assert found.distance == 0
        assert 0.2 < found.attracts <= 1


def test_nothing_is_drawn_to_what_is_left() -> None:
    for motion, in_steps in ((lambda z: z, False), (lambda z: 1.5 * z, True), (lambda z: -1.5 * z, True)):
        found = rest(motion, in_steps=in_steps)
        assert found is not None
        assert (found.distance, found.attracts) == (0, 0)


@pytest.mark.parametrize("motion", [torch.ones_like, lambda z: z * z, lambda z: z - 3, lambda z: z * z + 1e-9])
def test_nothing_is_enclosed_where_nothing_rests_or_none_alone(motion: Function) -> None:
    assert rest(motion) is None


def test_the_form_that_is_sought_falls_as_far_as_the_edge_reaches() -> None:
    """z' = -z within, and A z without, which turns: there W = |z|^2 rises at some states, and the form that is found at none."""
    matrix, centre = torch.tensor([[-0.1, 4.0], [-1.0, -0.1]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)

    def motion(z: Tensor) -> Tensor:
        share = (4 * z.square().sum(1, keepdim=True) - 1.5).clamp(0, 1)
        return share * (z @ matrix.mT) - (1 - share) * z

    angles = torch.arange(256, dtype=torch.float64)
    edge = torch.stack([angles.cos(), angles.sin()], 1)
    form = falling_form(motion, centre, edge, in_steps=False, generator=torch.Generator().manual_seed(0))
    assert form is not None
    assert float(torch.linalg.eigvalsh(form)[0]) > 0.99
    for share in (0.01, 0.5, 0.7, 1.0):
        assert bool((((share * edge) @ form) * motion(share * edge)).sum(1).max() < 0)
