"""Extractors with the Lipschitz constant 1: their Jacobians, and what is proved of them with rounding accounted for."""

from typing import Any

import pytest
import torch
from flint import arb, arb_mat, ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from analysis.proofs.cells.extractor import correlations, extractor_of, lipschitz_constant
from stabdeq.backbones.lipschitz import OrthonormalRows, Residual, ResidualConvolution, ResidualLinear, Widening
from stabdeq.bounds import logit_difference_bound
from stabdeq.config import ArchitectureConfig
from stabdeq.config.kinds import model_config
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

SIZE = 4


def drawn(layer: nn.Module, scale: float, seed: int) -> Any:
    torch.manual_seed(seed)
    layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return layer.requires_grad_(False)


def residual(kind: str, scale: float = 1.0, seed: int = 0) -> Residual:
    return drawn(ResidualLinear(5, 7) if kind == "linear" else ResidualConvolution(2, 3), scale, seed)


def points(kind: str, count: int, seed: int = 1) -> Tensor:
    shape = (5,) if kind == "linear" else (2, SIZE, SIZE)
    return torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def jacobian_norms(layer: nn.Module, x: Tensor) -> Tensor:
    jacobians = torch.func.vmap(torch.func.jacrev(lambda one: layer(one[None])[0].flatten()))(x)
    return torch.linalg.matrix_norm(jacobians.flatten(2), 2)


def model(backbone: str, size: int = SIZE, kind: str = "lyadeq-certified", seed: int = 0) -> StabilisedDEQ:
    architecture = ArchitectureConfig(backbone=backbone, state_dim=6)
    torch.manual_seed(seed)
    config = model_config(kind, architecture, image_shape=(1, size, size), classes=3, mean=(0.3,), std=(0.5,))
    made = StabilisedDEQ(config).double().eval()
    return made.requires_grad_(False)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["linear", "convolution"]), scale=st.floats(1e-3, 30), seed=st.integers(0, 10_000))
def test_no_residual_layer_moves_two_points_apart(kind: str, scale: float, seed: int) -> None:
    layer = residual(kind, scale, seed)
    assert jacobian_norms(layer, points(kind, 10, seed)).max() <= 1 + 1e-12
    assert lipschitz_constant(layer) <= 1 + 1e-12


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_the_bound_of_a_residual_layer_is_reached(kind: str) -> None:
    """Where all ReLUs are off the layer is the identity; where all are on, it reflects what W W' fills."""
    layer = residual(kind)
    layer.bias.fill_(-1e3)
    torch.testing.assert_close(jacobian_norms(layer, points(kind, 2)), torch.ones(2, dtype=torch.float64))
    layer = drawn(ResidualLinear(4, 1), 1.0, 0)
    layer.bias.fill_(1e3)
    jacobian = torch.func.jacrev(layer)(torch.zeros(1, 4, dtype=torch.float64))[0, :, 0]
    direction = layer.weight[0] / layer.weight[0].norm()
    expected = torch.eye(4, dtype=torch.float64) - 2 * torch.outer(direction, direction)
    torch.testing.assert_close(jacobian, expected, atol=1e-7, rtol=0)  # LEAST


def test_the_sizes_of_a_convolution_are_those_of_its_matrix() -> None:
    """On an image large enough, a row in the middle of |W W'|, summed channel by channel, is what the kernels say."""
    layer, size = residual("convolution"), 7
    shape = (2, size, size)
    columns = torch.eye(2 * size * size, dtype=torch.float64).view(-1, *shape)
    matrix = torch.nn.functional.conv2d(columns, layer.weight, padding=1).flatten(1).T  # (hidden 7 7, 2 7 7)
    products = (matrix @ matrix.T).abs().view(3, size, size, 3, size, size)[:, 3, 3].sum((2, 3))
    torch.testing.assert_close(products, layer.sizes())
    assert (products <= correlations(layer)).all()
    assert (correlations(layer) <= products * (1 + 1e-12)).all()


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_a_scale_that_is_too_large_is_seen(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof reads the scale that is used: were it 1.5 times as large, distances could grow."""
    layer = residual(kind, 1.0, 3)
    right = type(layer).scale
    monkeypatch.setattr(type(layer), "scale", lambda self: 1.5 * right(self))
    assert lipschitz_constant(layer) > 1.2


def test_the_constant_of_a_scale_that_is_too_large_bounds_the_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = drawn(ResidualLinear(4, 1), 1.0, 0)
    layer.bias.fill_(1e3)
    right = ResidualLinear.scale
    monkeypatch.setattr(ResidualLinear, "scale", lambda self: 1.5 * right(self))
    found = float(jacobian_norms(layer, torch.zeros(1, 4, dtype=torch.float64)).max())
    assert 1.9 < found <= lipschitz_constant(layer)


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0, 30), seed=st.integers(0, 10_000), rest=st.integers(0, 5))
def test_rows_are_orthonormal_whatever_the_weights_are(scale: float, seed: int, rest: int) -> None:
    layer = drawn(OrthonormalRows(4 + rest, 4), scale, seed)
    torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(4, dtype=torch.float64), atol=1e-9, rtol=0)
    assert lipschitz_constant(layer) <= 1 + 1e-8


def test_more_rows_than_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="9 orthonormal rows do not fit into 8 numbers: lower"):
        OrthonormalRows(8, 9)


def test_widening_adds_zeros() -> None:
    x = points("convolution", 2)
    wide = Widening(5)(x)
    assert wide.shape == (2, 5, SIZE, SIZE)
    assert torch.equal(wide[:, :2], x)
    assert not wide[:, 2:].any()


@pytest.mark.parametrize("backbone", ["lipschitz-fcn", "lipschitz-fcn-8", "lipschitz-cnn"])
def test_features_move_no_further_than_pixels_over_std(backbone: str) -> None:
    made = model(backbone)
    x = torch.rand(6, 1, SIZE, SIZE, dtype=torch.float64)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda one: made.inject(one[None])[0]))(x).flatten(2)
    norms = torch.linalg.matrix_norm(jacobians, 2)
    assert norms.max() <= extractor_of(made).lipschitz <= 2 * (1 + 1e-6)
    assert norms.max() > 0.1  # it says something


@pytest.mark.parametrize("backbone", ["fcn", "lipschitz-fcn", "lipschitz-fcn-8", "lipschitz-cnn"])
def test_features_are_within_their_error_of_the_exact_ones(backbone: str) -> None:
    made, x = model(backbone), torch.rand(2, 1, SIZE, SIZE, dtype=torch.float64)
    found = extractor_of(made).features(x)
    torch.testing.assert_close(found.centre, made.inject(x), atol=1e-12, rtol=0)
    assert 0 < found.radius.max() < 1e-9
    if backbone == "lipschitz-cnn":
        return
    ctx.prec = 200
    try:
        for image, centre, radius in zip(x, found.centre, found.radius, strict=True):
            exact = exactly(made, image)
            for one, middle, width in zip(exact, centre.tolist(), radius.tolist(), strict=True):
                assert abs(one - arb(middle)) < arb(width)
    finally:
        ctx.prec = 53


def exactly(made: StabilisedDEQ, image: Tensor) -> list[arb]:
    """The features in balls of 200 bits, layer by layer."""

    def matrix(values: Tensor) -> arb_mat:
        return arb_mat(values.tolist())

    x = matrix(image.flatten()[:, None])
    shift, std = arb(float(made.mean)), arb(float(made.std))
    x = arb_mat([[(entry - shift) / std] for entry in x.entries()])
    for layer in made.backbone:
        if isinstance(layer, ResidualLinear):
            inner = matrix(layer.weight) * x + matrix(layer.bias[:, None])
            scaled = [
                [arb.max(entry, arb(0)) * arb(s)]
                for entry, s in zip(inner.entries(), layer.scale().tolist(), strict=True)
            ]
            x = x - matrix(layer.weight).transpose() * arb_mat(scaled)
        elif not isinstance(layer, nn.Flatten):
            x = matrix(layer.weight) * x + matrix(layer.bias[:, None])
    return x.entries()


@pytest.mark.parametrize("backbone", ["lipschitz-fcn", "lipschitz-fcn-8", "lipschitz-cnn"])
def test_an_altered_layer_has_no_bound(backbone: str) -> None:
    made = model(backbone)
    made.backbone[-1].register_forward_hook(lambda *_: None)
    with pytest.raises(ConfigError, match="forward hook"):
        extractor_of(made)
    with pytest.raises(ConfigError, match="forward hook"):
        logit_difference_bound(made, torch.zeros(1, dtype=torch.int64))


def test_an_image_that_cannot_be_halved_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiples of 4, not 6 x 6; use backbone lipschitz-fcn"):
        model("lipschitz-cnn", size=6)
