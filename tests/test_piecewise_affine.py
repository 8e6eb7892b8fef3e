"""Continuous piecewise affine dynamics are read into ReLUs as they are, and judged as known."""

from collections.abc import Callable

import pytest
import torch
from exact_forms import holds_exactly
from proof_cells import states
from test_quadratic_functions import value_of
from torch import Tensor
from torch.nn import functional

from analysis.certify import certify
from analysis.findings import Verdict
from analysis.proofs.cells.decay import Shortfall
from analysis.proofs.cells.quadratic import NotPiecewiseAffineError, Quadratic, find_quadratic, read_network
from analysis.proofs.tracing import TraceError

P = torch.tensor([2.0, 0.5, -1.5], dtype=torch.float64)
PRELU = torch.nn.PReLU(3, init=0.3).double().requires_grad_(False)


def median_of_three(z: Tensor) -> Tensor:
    a, b, c = z, z.roll(1, 1), z.roll(2, 1) / 2
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))


PIECEWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp": lambda z: z.clamp(-1, 2),
    "clamp from below": lambda z: z.clamp(min=1),
    "clamp from above": lambda z: z.clamp(max=0.3),
    "clamp by tensors": lambda z: z.clamp(-P.abs(), P.abs()),
    "hardtanh": lambda z: functional.hardtanh(z, -0.5, 0.2),
    "hardsigmoid, relu6": lambda z: functional.hardsigmoid(z) + functional.relu6(z),
    "abs": torch.abs,
    "maximum": lambda z: torch.maximum(z, z.flip(1)) + torch.maximum(P, z),
    "minimum": lambda z: torch.minimum(z, 2 * z.flip(1)) - torch.minimum(z, P),
    "leaky": lambda z: functional.leaky_relu(z, 0.1) - functional.leaky_relu(z, 1.7),
    "prelu": PRELU,
    "softshrink": functional.softshrink,
    "median": lambda z: z - z.median(1, keepdim=True)[0].expand(-1, 3),
    "median of three": median_of_three,
    "sort": lambda z: z.sort(1)[0],
    "max, min": lambda z: z - z.amax(1, keepdim=True) + z.min(1, keepdim=True)[0],
    "sum, mean": lambda z: z - z.sum(1, keepdim=True) + z.relu().mean(1, keepdim=True),
    "norms": lambda z: z - torch.linalg.vector_norm(z, 1, dim=1, keepdim=True),
    "scalars": lambda z: 1 - z / 3 + 2 * (z - 0.5),
}


@pytest.mark.parametrize("name", PIECEWISE)
def test_what_is_read_is_the_function(name: str) -> None:
    z = 3 * states(50, 3, 0)
    found = value_of(read_network(PIECEWISE[name], 3), z)
    torch.testing.assert_close(found, PIECEWISE[name](z), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "velocity",
    [
        lambda z: z - z.amax(0),
        lambda z: z - z.sum(),
        lambda z: z.flip(0),
        lambda z: z * z.abs(),
        lambda z: torch.where(z > 0, z, 0.1 * z),
        lambda z: z.clamp(min=z.mean(0)),
        lambda z: torch.maximum(z, torch.arange(len(z)).double()[:, None]),
        lambda z: z[:1].expand(len(z), -1),
    ],
)
def test_what_mixes_states_or_may_jump_is_refused(velocity: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises((NotPiecewiseAffineError, TraceError)):
        read_network(velocity, 3)


SHEAR = torch.tensor([[0.0, 1.0], [-1.0, -2.0]], dtype=torch.float64)


def saturated(z: Tensor) -> Tensor:
    """A feedback within bounds."""
    return z @ SHEAR.mT - torch.stack([torch.zeros_like(z[:, 0]), (z[:, 0] + 0.5 * z[:, 1]).clamp(-1, 1)], 1)


CONTRACTING: dict[str, Callable[[Tensor], Tensor]] = {
    "saturated feedback": saturated,
    "clamp": lambda z: -2 * z + 1.5 * z.clamp(-1, 1),
    "clamp against": lambda z: -z - 2 * z.clamp(-1, 1),
    "abs": lambda z: -2 * z + z.abs().flip(1),
    "maximum": lambda z: -3 * z + torch.maximum(z, z.flip(1)),
    "leaky": lambda z: -functional.leaky_relu(z, 0.2),
    "median": lambda z: -2 * z + z.median(1, keepdim=True)[0],
}
NOT_CONTRACTING: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp": lambda z: -2 * z + 2.5 * z.clamp(-1, 1),
    "dead zone": lambda z: z.clamp(-1, 1) - z,
    "abs": lambda z: -2 * z + 2.5 * z.abs(),
    "maximum": lambda z: -z + 1.1 * torch.maximum(z, z.flip(1)),
    "leaky": lambda z: -functional.leaky_relu(z, -0.2),
}


@pytest.mark.parametrize("name", CONTRACTING)
def test_a_contraction_is_proved(name: str) -> None:
    velocity = CONTRACTING[name]
    found = find_quadratic(velocity, 2)
    assert isinstance(found, Quadratic)
    assert holds_exactly(read_network(velocity, 2), found.decay, "flow")
    (finding,) = certify(velocity, dim=2).findings
    assert finding.verdict is Verdict.PROVED


@pytest.mark.parametrize("name", CONTRACTING)
def test_the_rate_holds_between_states(name: str) -> None:
    """(a - b)' P (f(a) - f(b)) <= -rate (a - b)' P (a - b), in floating point."""
    found = find_quadratic(CONTRACTING[name], 2)
    assert isinstance(found, Quadratic)
    a, b = 2 * states(2000, 2, 1), 2 * states(2000, 2, 2)
    rise = CONTRACTING[name](a) - CONTRACTING[name](b)
    gap = (a - b) @ found.decay.norm
    assert bool(((gap * rise).sum(1) <= -found.decay.rate * (gap * (a - b)).sum(1) + 1e-9).all())


@pytest.mark.parametrize("name", NOT_CONTRACTING)
def test_what_does_not_contract_is_not_proved(name: str) -> None:
    assert isinstance(find_quadratic(NOT_CONTRACTING[name], 2), Shortfall)
    assert all(finding.verdict is not Verdict.PROVED for finding in certify(NOT_CONTRACTING[name], dim=2).findings)
