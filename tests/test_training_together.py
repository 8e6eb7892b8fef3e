"""Several processes train one model: as one process does, on whatever number of them it goes on, and with a clean end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from process_runs import in_processes
from training_runs import metrics_of, tiny_architecture, tiny_data, tiny_recipe

from stabdeq.checkpoint import load_checkpoint
from stabdeq.config import AndersonConfig, BroydenConfig, DataConfig
from stabdeq.data import DataSet
from train.objectives import PGDTraining, Trades
from train.recipe import JacobianConfig, Recipe
from train.trainer import CHECKPOINT_NAME, _Run, train

EXACT = AndersonConfig(tolerance=1e-5, max_evaluations=200)


def recipe_of(**changes: Any) -> Recipe:
    """Three steps an epoch, of 25, 25 and 10 images: of the former, one process has one more than the other."""
    options = {"epochs": 2, "batch_size": 25, "model": replace(tiny_architecture(), solver=EXACT)}
    return tiny_recipe(**options | changes)


RECIPES = {
    "deq": recipe_of(kind="deq"),
    "lyadeq-anchored": recipe_of(data=DataConfig(augment=True), jacobian=JacobianConfig(weight=0.1)),
    "broyden": recipe_of(
        kind="lyadeq",
        model=replace(tiny_architecture(), solver=BroydenConfig(tolerance=1e-5, max_evaluations=200)),
        objective=Trades(steps=1),
    ),
    "resnet20": recipe_of(
        kind="deq", epochs=1, model=replace(tiny_architecture(backbone="resnet20"), solver=EXACT), objective=PGDTraining(steps=1)
    ),
    "lyadeq-certified": recipe_of(kind="lyadeq-certified", epochs=1),
}


def data_of(recipe: Recipe) -> DataSet:
    is_deep = recipe.model.backbone == "resnet20"
    return tiny_data(train=25 if is_deep else 60, size=8 if is_deep else 4)


def train_all(folder: Path, names: list[str]) -> dict[str, dict[str, torch.Tensor]]:
    return {name: trained(RECIPES[name], folder / name) for name in names}


def trained(recipe: Recipe, out: Path, **options: Any) -> dict[str, torch.Tensor]:
    """The weights at the end, which the checkpoint holds where this process has written it."""
    found: list[_Run] = []
    original = _Run.__init__

    def keep(run: _Run, *arguments: Any) -> None:
        original(run, *arguments)
        found.append(run)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_Run, "__init__", keep)
        train(recipe, data_of(recipe), out, **options)
    return {name: value.clone() for name, value in found[0].model.state_dict().items()}


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    first, second = in_processes(2, train_all, tmp_path / "store", tmp_path / "two", list(RECIPES))
    alone = train_all(tmp_path / "one", list(RECIPES))
    for name in RECIPES:
        print(name)
        for ours, theirs in zip(metrics_of(tmp_path / "two" / name), metrics_of(tmp_path / "one" / name), strict=True):
            print({k: (v, ours[k], abs(ours[k] - v)) for k, v in theirs.items() if ours[k] != v})
        worst = []
        for key, value in alone[name].items():
            assert torch.equal(first[name][key], second[name][key]), (name, key)
            if value.is_floating_point():
                worst.append((float((first[name][key] - value).norm() / value.norm().clamp(min=1e-3)), key))
        print(sorted(worst)[-4:])
