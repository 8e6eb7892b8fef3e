"""Training with the extractor in bfloat16: it alone is, in training steps alone."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor
from training_runs import PowerCutError, at_call, fail_when, metrics_of, tiny_architecture, tiny_data, tiny_recipe

from stabdeq.backbones import build_backbone
from stabdeq.checkpoint import load_checkpoint
from stabdeq.data import to_unit
from stabdeq.errors import ConfigError
from train.precision import PrecisionName, backbone_in, precision_of
from train.progress import Progress
from train.recipe import load_recipe
from train.trainer import CHECKPOINT_NAME, train

CPU = torch.device("cpu")
RESNET = tiny_recipe(epochs=1, model=tiny_architecture(backbone="resnet20"))
NAMES: tuple[PrecisionName, ...] = ("auto", "float32", "bfloat16")


class Spy(torch.nn.Module):
    """Notes whether autocast is on when it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        self.seen: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(torch.is_autocast_enabled("cpu"))
        return self.linear(x)


def test_autocast_is_on_within_the_network_alone() -> None:
    spy, x = Spy(), torch.ones(2, 3)
    with backbone_in("bfloat16", spy, CPU):
        assert spy(x).dtype == torch.bfloat16
        assert not torch.is_autocast_enabled("cpu")
    assert spy(x).dtype == torch.float32
    with backbone_in("float32", spy, CPU):
        spy(x)
    assert spy.seen == [True, False, False]


def test_the_network_is_as_before_where_the_step_fails() -> None:
    spy = Spy()
    with pytest.raises(RuntimeError, match="a step"), backbone_in("bfloat16", spy, CPU):
        raise RuntimeError("a step")
    assert spy(torch.ones(1, 3)).dtype == torch.float32


@pytest.mark.parametrize("objective", ["cross-entropy", "trades", "pgd-at"])
def test_it_learns_and_scores_the_model_in_float32(objective: str, tmp_path: Path) -> None:
    recipe = load_recipe("digits", {"epochs": 2}, [f"objective.name={objective}", "precision=bfloat16"])
    plain = tiny_recipe(epochs=2, objective=recipe.objective)
    data = tiny_data()
    train(plain, data, tmp_path / "plain")
    scores = train(tiny_recipe(epochs=2, objective=recipe.objective, precision="bfloat16"), data, tmp_path / "out")
    lower, full = (metrics_of(tmp_path / name)[1]["loss"] for name in ("out", "plain"))
    assert lower != full
    assert lower == pytest.approx(full, rel=0.1)
    model = load_checkpoint(tmp_path / "out" / CHECKPOINT_NAME).model.eval()
    with torch.no_grad():
        predicted = model.predict(to_unit(data.test.images)).logits.argmax(1)
    assert scores.accuracy == (predicted == data.test.labels).double().mean().item()


@pytest.mark.parametrize(
    ("precision", "network", "device", "multiplies", "expected"),
    [
        ("auto", "resnet20", "cpu", True, "bfloat16"),
        ("auto", "resnet20", "cpu", False, "float32"),
        ("auto", "resnet20", "cuda", True, "float32"),
        ("auto", "fcn", "cpu", True, "float32"),
        ("float32", "resnet20", "cpu", True, "float32"),
        ("bfloat16", "fcn", "cuda", False, "bfloat16"),
    ],
)
def test_auto_is_bfloat16_for_a_resnet_on_a_cpu_that_multiplies_it(
    precision: PrecisionName,
    network: str,
    device: str,
    multiplies: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("train.precision.multiplies_bfloat16", lambda: multiplies)
    backbone = build_backbone(network, (3, 32, 32), 64)
    assert precision_of(precision, backbone, torch.device(device)) == expected


def test_a_training_in_auto_is_the_one_in_the_precision_that_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.StringIO()
    monkeypatch.setattr("train.progress.Console", lambda **options: Console(file=file, **options))
    monkeypatch.setattr("train.precision.multiplies_bfloat16", lambda: True)
    losses = {}
    for name in NAMES:
        train(replace(RESNET, precision=name), tiny_data(train=16, size=8), tmp_path / name, progress=Progress())
        losses[name] = metrics_of(tmp_path / name)[0]["loss"]
    assert losses["auto"] == losses["bfloat16"] != losses["float32"]
    said = [line.split()[-1] for line in file.getvalue().splitlines() if "training on" in line]
    assert said == ["bfloat16", "float32", "bfloat16"]


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_a_training_in_auto_goes_on_as_it_began(
    precision: PrecisionName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a machine where "auto" is another precision, and where it was begun in a precision that was asked for."""
    data, recipe = tiny_data(train=16, size=8), replace(RESNET, epochs=2, precision=precision)
    monkeypatch.setattr("train.precision.multiplies_bfloat16", lambda: True)
    train(recipe, data, tmp_path / "whole")
    with monkeypatch.context() as patched:
        fail_when(patched, "step", at_call(2))
        with pytest.raises(PowerCutError):
            train(recipe, data, tmp_path / "cut")
    monkeypatch.setattr("train.precision.multiplies_bfloat16", lambda: precision != "auto")
    train(replace(recipe, precision="auto"), data, tmp_path / "cut", resume=True)
    first, second = (metrics_of(tmp_path / name)[1]["loss"] for name in ("whole", "cut"))
    assert first == second
    stored = load_checkpoint(tmp_path / "cut" / CHECKPOINT_NAME).recipe["precision"]
    assert stored == ("bfloat16" if precision == "auto" else "float32")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="bfloat16"):
        load_recipe("digits", settings=["precision=float16"])


def test_bounds_are_of_an_extractor_in_float32() -> None:
    with pytest.raises(ConfigError, match="set precision=float32"):
        load_recipe("digits", {"kind": "ibp-mondeq"}, ["objective.name=ibp", "precision=bfloat16"])
    # "auto" is bfloat16 for a ResNet alone, which has no bounds.
    assert load_recipe("digits", {"kind": "ibp-mondeq"}, ["objective.name=ibp", "precision=auto"]).precision == "auto"
