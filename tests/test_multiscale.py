"""The cell of three resolutions: the map that it is, its states as vectors, what is refused, and that it trains and is audited."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import generator
from torch import Tensor
from torch.nn import functional

from analysis.audit import audit
from analysis.checks import uniqueness
from analysis.proofs.cells.network import forms_of
from analysis.proofs.structure import is_structured
from stabdeq.cells import MultiscaleCell, build_cell, is_as_made
from stabdeq.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stabdeq.config import AndersonConfig, DataConfig, LyapunovConfig, ModelConfig
from stabdeq.errors import CheckpointError, ConfigError
from stabdeq.model import StabilisedDEQ
from train.loss import training_loss
from train.recipe import Recipe, load_recipe

PLACES = (4, 8)
C = 16
N = 21 * 4 * 8


def drawn(seed: int = 0, spread: float = 0.3) -> MultiscaleCell:
    cell = MultiscaleCell(N, PLACES).double().requires_grad_(False)
    for parameter in cell.parameters():
        parameter.copy_(spread * torch.randn(parameter.shape, generator=generator(seed)))
    return cell


def states(count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, N, generator=generator(seed), dtype=torch.float64)


# --- the map ---


def test_a_state_is_its_three_resolutions_each_number_once_where_it_lies_in_the_picture() -> None:
    cell, z = drawn(), torch.arange(N, dtype=torch.float64)[None]
    parts = cell.parts(z)
    assert [part.shape for part in parts] == [(1, C, 4, 8), (1, C, 2, 4), (1, C, 1, 2)]
    assert torch.equal(torch.cat([part.flatten() for part in parts]).sort().values, z[0])
    assert torch.equal(cell.joined(parts), z)
    laid_out = z.view(cell.shape)
    # The 4 channels of the second resolution at its place (1, 2), and the 16 of the third at (0, 1), lie at the pixels there.
    assert torch.equal(parts[1][0, 4:8, 1, 2], laid_out[C + 1, 2:4, 4:6].flatten())
    assert torch.equal(parts[2][0, :, 0, 1], laid_out[C + 4, :, 4:].flatten())


def test_the_map_against_its_definition() -> None:
    cell, z, h = drawn(), states(), states(seed=2)
    hidden = [
        norm(functional.conv2d(part, layer.weight, layer.bias, padding=1).relu())
        for part, layer, norm in zip(cell.parts(z), cell.inner, cell.inner_norm, strict=True)
    ]

    def carried(source: int, target: int) -> Tensor:
        one, carry = hidden[source], cell.fusion[target][source]
        if source == target:
            return functional.conv2d(one, carry.weight, carry.bias, padding=1)
        size = 2 ** abs(source - target)
        if source < target:  # a matrix for each patch
            patches = one.unfold(2, size, size).unfold(3, size, size)
            return torch.einsum("bchwij,kcij->bkhw", patches, carry.weight) + carry.bias[:, None, None]
        mixed = torch.einsum("bchw,kc->bkhw", one, carry[0].weight[:, :, 0, 0]) + carry[0].bias[:, None, None]
        return mixed.repeat_interleave(size, 2).repeat_interleave(size, 3)

    expected = [
        norm((features + carried(0, r) + carried(1, r) + carried(2, r)).relu())
        for r, (features, norm) in enumerate(zip(cell.parts(h), cell.outer_norm, strict=True))
    ]
    torch.testing.assert_close(cell(z, h), cell.joined(expected))
    torch.testing.assert_close(cell(z, h)[:1], cell(z[:1], h[:1]))


def test_every_resolution_reads_every_other() -> None:
    cell, h = drawn(), states(1, seed=2)
    jacobian = torch.func.jacrev(lambda z: cell(z[None], h)[0])(states(1)[0])
    which = cell.joined([torch.full_like(part, r) for r, part in enumerate(cell.parts(h))])[0]
    for target in range(3):
        for source in range(3):
            assert float(jacobian[which == target][:, which == source].abs().max()) > 0, (target, source)


def test_it_is_as_made_until_it_is_altered_and_certify_does_not_read_it() -> None:
    cell = build_cell("multiscale", N, PLACES)
    assert isinstance(cell, MultiscaleCell)
    assert is_as_made(cell)
    with pytest.raises(ConfigError, match="certify does not read convolutional cells"):
        forms_of(cell)
    cell.fusion[1][0] = torch.nn.Conv2d(C, C, 4, stride=2, padding=1)
    assert not is_as_made(cell)


# --- the model ---


def settings(**changes: Any) -> ModelConfig:
    chosen: dict[str, Any] = {
        "image_shape": (1, 4, 8),
        "classes": 3,
        "mean": (0.5,),
        "std": (0.3,),
        "backbone": "conv",
        "cell": "multiscale",
        "state_dim": N,
        "stability": "anchored",
        "head": "orthogonal",
        "solver": AndersonConfig(tolerance=1e-4, max_evaluations=100),
        "lyapunov": LyapunovConfig(hidden=3, network="convolutional", alpha=0.1),
    }
    return ModelConfig(**chosen | changes)


def model(**changes: Any) -> StabilisedDEQ:
    torch.manual_seed(0)
    return StabilisedDEQ(settings(**changes))


def images(count: int) -> Tensor:
    return torch.rand(count, 1, 4, 8, generator=generator())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"backbone": "fcn"},
            "cell multiscale needs features that keep their places: set model.backbone to one of conv",
        ),
        ({"image_shape": (1, 4, 6)}, "halves its places twice, and 4 x 6 do not halve so: expected multiples of 4"),
        ({"image_shape": (1, 6, 8), "state_dim": 21 * 48}, "6 x 8 do not halve so"),
        ({"state_dim": 512}, f"model.state_dim = 512 in cell multiscale on 4 x 8 places: expected a multiple of {N}"),
        ({"backbone": "conv-half"}, "2 x 4 do not halve so"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model(**changes)


@pytest.mark.parametrize("network", ["convolutional", "separable", "dense"])
def test_a_training_step_with_each_v_moves_every_weight(network: str) -> None:
    made = model(lyapunov=LyapunovConfig(hidden=3, network=network, alpha=30.0)).train()  # pyrefly: ignore
    prediction = made.predict(images(3))
    recipe = Recipe(jacobian={"weight": 1.0})  # pyrefly: ignore
    training_loss(made, prediction, torch.tensor([0, 1, 2]), recipe, generator()).total.backward()
    assert bool(prediction.solution.converged.all())
    for name, one in made.named_parameters():
        assert one.grad is not None, name
        assert bool(one.grad.isfinite().all()), name
        assert bool(one.grad.any()), name


def test_a_checkpoint_gives_the_model_back_and_may_ask_for_no_larger_state(tmp_path: Path) -> None:
    def saved(made: StabilisedDEQ) -> Path:
        path = tmp_path / "model.safetensors"
        save_checkpoint(path, Checkpoint(model=made, data=DataConfig(), class_names=("a", "b", "c"), seed=0, epoch=0))
        return path

    made = model().eval()
    again = load_checkpoint(saved(made)).model
    assert torch.equal(again(images(4)), made(images(4)))
    assert is_as_made(again.cell)
    assert again.lyapunov is not None
    assert is_structured(again.lyapunov.double())
    large = saved(model(image_shape=(1, 64, 64), state_dim=21 * 64**2, stability="none", head="linear").eval())
    with pytest.raises(CheckpointError, match=f"asks for model.state_dim = {21 * 64**2}, and a file may ask for 65536"):
        load_checkpoint(large)
    assert load_checkpoint(large, trusted=True).model.config.state_dim == 21 * 64**2


def test_an_audit_finds_its_equilibrium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uniqueness, "RESTARTS", 1)
    report = audit(model().eval(), images(1), torch.tensor([0]), checks=["equilibrium"])
    assert report.named["equilibrium.exists"].verdict in ("PROVED", "SUPPORTED")
    assert report.named["equilibrium.unique"].verdict == "PROVED"  # of the stabilised field, by V's make


def test_the_recipe_takes_it() -> None:
    recipe = load_recipe("digits-convolution", settings=["model.cell=multiscale", "model.state_dim=1344"])
    assert (recipe.model.cell, recipe.model.state_dim) == ("multiscale", 21 * 64)


def test_of_no_samples_there_are_no_states() -> None:
    assert drawn()(states(0), states(0)).shape == (0, N)
