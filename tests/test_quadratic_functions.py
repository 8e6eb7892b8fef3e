"""Quadratic Lyapunov functions of linear and piecewise affine dynamics."""

import pytest
import torch
from exact_forms import holds_exactly
from proof_cells import states
from torch import Tensor, nn

from analysis.proofs.cells.affine_ball import activations
from analysis.proofs.cells.decay import Shortfall
from analysis.proofs.cells.network import ReluNetwork
from analysis.proofs.cells.quadratic import NotPiecewiseAffineError, Quadratic, find_quadratic, read_network
from analysis.proofs.matrices.enclosure import Enclosure
from analysis.proofs.tracing import TraceError

ROTATION = torch.tensor([[-1.0, -3.0, 0.0], [3.0, -1.0, 0.0], [0.5, 0.0, -2.0]], dtype=torch.float64)


def assembled(z: Tensor) -> Tensor:
    x, y, u = z.unbind(1)
    damped = torch.stack([-x - 3 * y, 3 * x - y, 0.5 * x - 2 * u], 1)
    return damped + 0.1 * torch.relu(z - 1) - torch.cat([z[:, 1:], z[:, :1]], 1).clamp(min=0) / 10


def layered() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    return network.requires_grad_(False)


def value_of(network: ReluNetwork, z: Tensor) -> Tensor:
    none = Enclosure.exact(torch.zeros(len(z), network.injection.centre.shape[1], dtype=torch.float64))
    leaving = activations(network, Enclosure.exact(z), none)[1].centre
    return z @ network.skip.centre.mT + leaving @ network.output.centre.mT + network.shift.centre


@pytest.mark.parametrize(
    "velocity", [lambda z: z @ ROTATION.T, assembled, layered(), lambda z: z - torch.zeros_like(z) + 1]
)
def test_what_is_read_is_the_function(velocity) -> None:
    z = 3 * states(50, 3, 0)
    torch.testing.assert_close(value_of(read_network(velocity, 3), z), velocity(z), rtol=0, atol=1e-13)


def test_a_linear_system_decays_at_its_abscissa() -> None:
    found = find_quadratic(lambda z: z @ ROTATION.T, 3)
    assert isinstance(found, Quadratic)
    assert 0.98 <= found.decay.rate <= 1
    assert found.reach < 1e-12
    assert holds_exactly(read_network(lambda z: z @ ROTATION.T, 3), found.decay, "flow")
    unstable = find_quadratic(lambda z: z @ -ROTATION.T, 3)
    assert isinstance(unstable, Shortfall)
    assert unstable.is_hopeless


def test_piecewise_affine_dynamics_decay_to_an_equilibrium_in_reach() -> None:
    found = find_quadratic(assembled, 3)
    assert isinstance(found, Quadratic)
    assert found.decay.rate > 0.5
    z = torch.zeros(1, 3, dtype=torch.float64)
    for _ in range(4000):
        z = z + 0.01 * assembled(z)
    assert float(z.norm()) <= found.reach
    moved = find_quadratic(lambda z: -(z - 2), 3)
    assert isinstance(moved, Quadratic)
    assert 12**0.5 <= moved.reach < 20


@pytest.mark.parametrize(
    "velocity",
    [
        lambda z: -(z**3),
        lambda z: -z / (1 + z.abs()),
        lambda z: -z + z.mean(0),
        lambda z: -z * z,
        lambda z: z.flip(0),
        lambda z: -z + torch.arange(len(z)).double()[:, None],
        lambda z: -z + z[:1],
        lambda z: torch.zeros_like(z),
    ],
)
def test_what_is_not_piecewise_affine_is_refused(velocity) -> None:
    with pytest.raises((NotPiecewiseAffineError, TraceError)):
        read_network(velocity, 3)


def test_a_velocity_that_leaves_pytorch_is_not_read_as_a_constant() -> None:
    def by_numpy(z: Tensor) -> Tensor:
        return -z + torch.from_numpy(0.1 * z.detach().numpy().sum(0) ** 2)

    def by_python(z: Tensor) -> Tensor:
        return -z * (1 + float(z[0, 0]))

    for velocity in (by_numpy, by_python):
        with pytest.raises(TraceError, match="otherwise than by operations on tensors"):
            read_network(velocity, 2)
