"""The bounds of the convolutional V: reached where they can be, and the curvature's term by term."""

import pytest
import torch
from small_models import generator

from stabdeq.config import LyapunovConfig
from stabdeq.lyapunov import ConvolutionalNetwork, InputConvexLyapunov, centre_of

SHAPE = (1, 2, 8)


def test_positive_weights_start_at_a_sum_of_1() -> None:
    network = ConvolutionalNetwork((3, 4, 4), 5, 1.0)
    assert network.middle.flatten().tolist() == pytest.approx([1 / 45] * 225, rel=1e-6)
    assert network.outer.tolist() == pytest.approx([1 / 5] * 5, rel=1e-6)


def test_the_lipschitz_bound_is_attained() -> None:
    """One path, wide open, through the middles of the kernels alone: the gradient is u (U W0 + W1) at each of 16 places."""
    network = ConvolutionalNetwork(SHAPE, 1, 1.0).double().requires_grad_(False)
    for layer, bias in ((network.inner, 30.0), (network.skip, 50.0)):
        assert layer.bias is not None
        layer.bias.fill_(bias)
        layer.weight.zero_()
        layer.weight[:, :, 1, 1] = 2.0
    network.raw_middle.fill_(-200.0)
    network.raw_middle[:, :, 1, 1] = 3.0
    z = torch.randn(2, 16, generator=generator(), dtype=torch.float64)
    slope = float(network.outer) * (2 * float(network.middle[0, 0, 1, 1]) + 2)
    assert network(z)[1].flatten().tolist() == pytest.approx([slope] * 32, rel=1e-9)
    assert 1 + 1e-10 < network.lipschitz_bound() / (4 * slope) < 1 + 1e-8  # above it, with room for rounding
    assert float(network.slope_bounds()[0]) == pytest.approx(4 * slope, rel=1e-8)


def test_the_curvature_bound_term_by_term() -> None:
    """(max u L^2 + max (U'u) ||W0||^2) / width, with kernels that have their middles alone, so that norms are of matrices."""
    network = ConvolutionalNetwork((2, 3, 3), 2, 0.25).double().requires_grad_(False)
    for layer, diagonal in ((network.inner, [3.0, 2.0]), (network.skip, [5.0, 1.0])):
        layer.weight.zero_()
        layer.weight[:, :, 1, 1] = torch.tensor(diagonal).diag().double()
    network.raw_middle.fill_(-200.0)
    network.raw_middle[:, :, 1, 1] = torch.tensor([[1.0, 0.5], [-1.0, 2.0]]).double()
    network.raw_mix.copy_(torch.tensor([0.3, -0.8]).double())
    matrix, outer = network.middle[:, :, 1, 1], network.outer
    path = torch.linalg.matrix_norm(matrix, 2) * 3 + 5
    expected = (outer.max() * path**2 + (outer @ matrix).max() * 9) / 0.25
    assert float(network.slope_bounds()[1]) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("centre", ["equilibrium", "origin"])
def test_the_centre_is_the_equilibrium_or_the_origin(centre: str) -> None:
    equilibrium = torch.ones(2, 3)
    function = InputConvexLyapunov(3, LyapunovConfig(hidden=2), centre)  # pyrefly: ignore
    expected = equilibrium if centre == "equilibrium" else torch.zeros(2, 3)
    assert torch.equal(centre_of(function, equilibrium), expected)
