"""An instability where the solver stops is one of an equilibrium only if Newton's steps end there, and it is one there as well."""

import pytest
import torch
from torch import Tensor

from analysis.audit import audit
from analysis.findings import Finding
from stabdeq.adapters import from_functions

JUMP = 5e-12  # below the audit's tolerance
SIZES = (2, 1200)  # states whose Jacobian is formed, and states of which products with it are taken


class Quadratic:
    """V = ||z - c||^2 around the equilibrium."""

    alpha = 0.1
    centre = "equilibrium"

    def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        return offset.square().sum(1), 2 * offset


def judged(first: Tensor, then: Tensor, kink: float, constant: Tensor, size: int) -> Finding:
    """Judge F(z) = first (z1, z2) + constant, plus ``then`` wherever z1 > kink, and -z/2 in all other components."""

    def cell(z: Tensor, h: Tensor) -> Tensor:
        pair = z[:, :2]
        beyond = (pair[:, :1] - kink).clamp(min=0) * then
        return torch.cat([pair + pair @ first.T + constant + beyond, z[:, 2:] / 2], 1)

    model = from_functions(lambda x: x.flatten(1).expand(-1, size), cell, lambda z: z[:, :2], lyapunov=Quadratic())  # pyrefly: ignore
    pixels = torch.zeros(2, 1, 1, 1, dtype=torch.float64)
    return audit(model, pixels, torch.tensor([0, 1]), checks=["spectrum"]).named["spectrum.stable"]


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
def test_a_kink_before_the_equilibrium_hides_that_it_is_stable(size: int) -> None:
    """The solver stops at 0, which spirals outwards, next to (3e-12, 0), which spirals inwards."""
    spiral = torch.stack([vector(0.01, -1), vector(1, 0.01)])
    constant = vector(0.12e-12, -3e-12)
    finding = judged(spiral, vector(-0.06, 0), 0.5e-12, constant, size)
    assert finding.verdict == "INCONCLUSIVE"
    assert "a step of Newton's on" in finding.evidence
    assert judged(spiral, vector(0, 0), 0.5e-12, constant, size).verdict == "REFUTED"


@pytest.mark.parametrize("size", SIZES)
def test_a_field_that_jumps_over_zero_has_no_unstable_equilibrium(size: int) -> None:
    def cell(z: Tensor, h: Tensor) -> Tensor:
        return torch.cat([3 * z[:, :1] + torch.where(z[:, :1] >= 0, JUMP, -JUMP), z[:, 1:] / 2], 1)

    model = from_functions(lambda x: x.flatten(1).expand(-1, size), cell, lambda z: z[:, :2], lyapunov=Quadratic())  # pyrefly: ignore
    pixels = torch.zeros(2, 1, 1, 1, dtype=torch.float64)
    finding = audit(model, pixels, torch.tensor([0, 1]), checks=["spectrum"]).named["spectrum.stable"]
    assert finding.verdict == "INCONCLUSIVE"
    assert "Newton's second step" in finding.evidence
