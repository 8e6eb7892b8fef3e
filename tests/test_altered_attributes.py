"""Plain attributes of a model's parts that were changed by hand, and sizes below 1: nothing is proved of the one or made of the other."""

from typing import Any

import pytest
import torch
from small_models import images, model
from torch import nn

from analysis.certify import certify
from analysis.proofs.cells.linf_margins import linf_margins
from analysis.proofs.structure import is_structured
from stabdeq.backbones import build_backbone
from stabdeq.bounds import worst_logits
from stabdeq.bounds.lipschitz import extractor_matrix
from stabdeq.cells import build_cell, cell_alteration, is_as_made
from stabdeq.config import LyapunovConfig
from stabdeq.errors import ConfigError
from stabdeq.heads import Head
from stabdeq.lyapunov import SeparableLyapunov, build_lyapunov
from stabdeq.registry import CELLS

PLACES = (4, 4)
N = 21 * 16


@pytest.mark.parametrize(
    ("cell", "place", "value"),
    [
        ("convolution", "inner.padding", (0, 0)),
        ("convolution", "inner.stride", (2, 2)),
        ("convolution", "outer.dilation", (2, 2)),
        ("convolution", "outer.groups", 3),
        ("convolution", "outer.padding_mode", "circular"),
        ("convolution", "inner_norm.num_groups", 1),
        ("convolution", "outer_norm.eps", 1.0),
        ("convolution", "shape", (42, 2, 4)),
        ("convolution", "state_dim", "many"),
        ("convolution", "places", (4, 8)),
        ("convolution", "places", (5, 5)),
        ("convolution", "places", 4),
        ("convolution-batchnorm", "inner.padding", "same"),
        ("multiscale", "channels", 8),
        ("multiscale", "inner.1.dilation", (2, 2)),
        ("multiscale", "fusion.0.1.1.mode", "bilinear"),
        ("multiscale", "fusion.0.2.1.scale_factor", 2.0),
        ("multiscale", "outer_norm.2.eps", float("nan")),
    ],
)
def test_a_cell_whose_attribute_was_changed_is_not_as_made(cell: str, place: str, value: Any) -> None:
    made = build_cell(cell, N, PLACES)
    assert is_as_made(made)
    owner, _, key = place.rpartition(".")
    setattr(made.get_submodule(owner), key, value)
    said = cell_alteration(made)
    assert said is not None
    assert said.startswith("the cell's ")
    assert key in said or "state_dim and places are those of no " in said


def test_what_a_changed_attribute_is_called() -> None:
    made = build_cell("multiscale", N, PLACES)
    made.get_submodule("inner.1").stride = (2, 2)
    assert cell_alteration(made) == "the cell's inner.1.stride is (2, 2), expected (1, 1)"
    del made.get_submodule("inner.1").stride
    assert cell_alteration(made) == "the cell's inner.1.stride is nothing, expected (1, 1)"


def test_a_value_that_says_it_is_equal_is_none_of_a_class_of_its_own() -> None:
    class Equal(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    made = build_cell("convolution", N, PLACES)
    made.get_submodule("inner_norm").num_groups = Equal(1)
    assert "inner_norm.num_groups" in str(cell_alteration(made))


def test_an_attribute_that_nothing_reads_is_no_alteration() -> None:
    made = build_cell("convolution", N, PLACES).eval()
    made.note = "of March"
    made.get_submodule("inner").note = "too"
    assert is_as_made(made)


@pytest.mark.parametrize("cell", ["convolutional", "separable", "dense"])
def test_an_energy_has_its_structure_with_any_settings_and_no_other_attribute(cell: Any) -> None:
    config = LyapunovConfig(network=cell, hidden=3, alpha=7.0, eta=0.3, smoothing=0.2)
    energy = build_lyapunov(config, "equilibrium", N, (21, 4, 4)).double()
    energy.alpha = 0.01
    assert is_structured(energy)
    skip: Any = energy.network.skip
    skip.bias.requires_grad_(False)
    assert is_structured(energy)
    if cell == "convolutional":
        skip.padding_mode = "circular"
    else:
        skip.in_features = 5
    assert not is_structured(energy)


# Where a proof reads an extractor or a head.


def test_no_radius_is_certified_past_a_changed_attribute() -> None:
    network: Any = model(cell="certified", head="orthogonal").double().eval()
    network.head.rotation.parametrizations.weight[0].orthogonal_map = "cayley"
    found = {one.name: one for one in certify(network, images(), torch.zeros(8, dtype=torch.int64)).findings}
    assert found["radius"].verdict == "INCONCLUSIVE"
    assert "orthogonal_map is 'cayley'" in found["radius"].evidence


def test_an_extractor_that_flattens_otherwise_has_no_matrix() -> None:
    network: Any = model(cell="certified")
    network.backbone[0].start_dim = 2
    with pytest.raises(ConfigError, match=r"the backbone's 0\.start_dim is 2, expected 1"):
        extractor_matrix(network)


def test_the_bounds_of_a_convolution_read_the_kernel_and_not_what_the_layer_says_of_its_size() -> None:
    torch.manual_seed(0)
    network = model(cell="interval").double().eval()
    layer = nn.Conv2d(1, 2, (2, 3), padding=(0, 1))
    network.backbone = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 6)).double()
    labels = torch.zeros(8, dtype=torch.int64)
    margins = linf_margins(network, images(), labels, 1e-9)
    layer.kernel_size = (3, 2)  # which a convolution does not read: its weight has a shape
    torch.testing.assert_close(linf_margins(network, images(), labels, 1e-9), margins, rtol=0, atol=0)
    others = -worst_logits(network, images().double(), labels, 1e-9)[:, 1:].amax(1)
    torch.testing.assert_close(margins, others.detach(), atol=1e-2, rtol=0)


# Sizes.


@pytest.mark.parametrize("size", [0, -1, -64])
@pytest.mark.parametrize("cell", CELLS.own_names())
def test_a_cell_of_no_numbers_is_refused(cell: str, size: int) -> None:
    with pytest.raises(ConfigError, match=rf"state_dim = {size * N}: expected a whole number from 1 on"):
        build_cell(cell, size * N, PLACES)


@pytest.mark.parametrize("cell", ["convolution", "convolution-batchnorm", "multiscale"])
@pytest.mark.parametrize("places", [(0, 4), (4, 0), (-4, -4)])
def test_a_cell_of_no_places_is_refused(cell: str, places: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"(height|width) = (0|-4): expected a whole number from 1 on"):
        build_cell(cell, N, places)


@pytest.mark.parametrize("network", ["convolutional", "separable"])
@pytest.mark.parametrize("shape", [(0, 4, 4), (4, 0, 4), (4, 4, -1)])
def test_an_energy_of_states_without_numbers_is_refused(network: Any, shape: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=r"(channels|height|width) = (0|-1): expected"):
        build_lyapunov(LyapunovConfig(network=network), "origin", 16, shape)


def test_a_dense_energy_a_head_and_an_extractor_of_no_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="dim = 0: expected"):
        build_lyapunov(LyapunovConfig(), "origin", 0, None)
    with pytest.raises(ConfigError, match="features = -1: expected"):
        Head("linear", -1, 3)
    with pytest.raises(ConfigError, match="classes = 0: expected"):
        Head("linear", 3, 0)
    with pytest.raises(ConfigError, match="channels = 0: expected"):
        Head("linear", 3, 3, (0, 4, 4))
    with pytest.raises(ConfigError, match="features = 0: expected"):
        build_backbone("fcn", (1, 4, 4), 0)
    with pytest.raises(ConfigError, match="channels = 0: expected"):
        build_backbone("cnn", (0, 16, 16), 3)
    energy = SeparableLyapunov((2, 4, 4), LyapunovConfig(hidden=3), "origin")
    energy.network.inner.weight = nn.Parameter(torch.zeros(3, 0))
    assert not is_structured(energy)
