"""Stability modules: how each reads V, and where the stabilised field rests."""

import pytest
import torch
from small_models import DIM, TIGHT, generator, images, model, trained_statistics
from torch import Tensor

from stabdeq.config import LyapunovConfig
from stabdeq.lyapunov import InputConvexLyapunov, stabilise, stabilised_field


class Quadratic(InputConvexLyapunov):
    """V = eta ||z||^2."""

    def forward(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        return self.eta * offset.square().sum(1), 2 * self.eta * offset


def quadratic(alpha: float, centre: str = "origin") -> Quadratic:
    return Quadratic(DIM, LyapunovConfig(alpha=alpha, eta=0.3), centre)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 8.0])
def test_state_reading_of_a_quadratic_is_a_scaling(alpha: float) -> None:
    z = torch.randn(20, DIM, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(stabilise(z, "state", quadratic(alpha)), -alpha / 2 * z)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 8.0])
def test_residual_reading_of_a_quadratic_is_a_scaling(alpha: float) -> None:
    z = torch.randn(20, DIM, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(stabilise(z, "residual", quadratic(alpha)), (1 - alpha / 2) * z)


def test_readings_of_a_learned_function() -> None:
    """By their formulas: the projection of z at z, and z - alpha V grad V / ||grad V||^2."""
    torch.manual_seed(0)
    function = InputConvexLyapunov(DIM, LyapunovConfig(hidden=5, alpha=0.7), "origin").double()
    z = torch.randn(20, DIM, generator=generator(), dtype=torch.float64)
    value, gradient = function(z)
    unit = gradient / gradient.square().sum(1, keepdim=True)
    excess = (gradient * z).sum(1) + 0.7 * value
    assert (excess > 0).all()  # grad V . z >= V >= 0: it always acts
    torch.testing.assert_close(stabilise(z, "state", function), z - unit * excess[:, None])
    torch.testing.assert_close(stabilise(z, "residual", function), z - unit * 0.7 * value[:, None])


@pytest.mark.parametrize("stability", ["none", "anchored"])
def test_anchored_leaves_the_equilibrium_alone(stability: str) -> None:
    z = torch.randn(5, DIM, generator=generator())
    assert stabilise(z, stability, quadratic(1.0, "equilibrium")) is z
    assert stabilise(z, "none", None) is z


def test_anchored_field_rests_at_the_equilibrium_alone() -> None:
    network = trained_statistics(model("lyadeq-anchored", solver=TIGHT).double())
    with torch.no_grad():
        h = network.inject(images().double())
        centre = network.solve(h).z
        field = network.cell(centre, h) - centre
        assert torch.equal(stabilised_field(field, centre, centre, network.lyapunov), field)
        for size in (1e-6, 1e-2, 1.0, 100.0):
            z = centre + size * torch.randn(8, DIM, generator=generator(), dtype=torch.float64)
            speed = stabilised_field(network.cell(z, h) - z, z, centre, network.lyapunov).norm(dim=1)
            # grad V . F^ <= -alpha V and ||grad V|| <= 2 k |z - c|, V >= eta |z - c|^2.
            slowest = network.lyapunov.alpha * network.lyapunov.eta / (2 * network.lyapunov.growth_bound())
            assert (speed >= slowest * (z - centre).norm(dim=1) * (1 - 1e-9)).all()
