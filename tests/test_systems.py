"""A smoke row of every system: each kind, objective and data set trains, is saved, loaded, predicts and is attacked."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from data_files import WRITERS
from torch.nn.functional import cross_entropy

from analysis.certify import certify
from analysis.measure.subject import prepare
from analysis.solver_comparison import compare_on
from stabdeq.attacks import PGD
from stabdeq.checkpoint import load_checkpoint
from stabdeq.config import ArchitectureConfig, DataConfig, LyapunovConfig
from stabdeq.config.kinds import KINDS, model_config
from stabdeq.data import DataSet, Split, load_data, to_unit
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ
from train.objectives import OBJECTIVES
from train.recipe import Recipe, load_recipe
from train.trainer import CHECKPOINT_NAME, train

IMAGES = 12
SMALL = ArchitectureConfig(state_dim=8, lyapunov=LyapunovConfig(hidden=8))


def noise(count: int, size: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, size, size), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(count) % 3)


def noisy_data(count: int = IMAGES, size: int = 8) -> DataSet:
    parts = {part: noise(count, size, seed) for seed, part in enumerate(("train", "validation", "test"))}
    return DataSet(name="digits", classes=("a", "b", "c"), mean=(0.5,), std=(0.3,), **parts)


def built(kind: str) -> StabilisedDEQ:
    torch.manual_seed(0)
    return StabilisedDEQ(model_config(kind, SMALL, image_shape=(1, 8, 8), classes=3, mean=(0.5,), std=(0.3,)))


def run_through(recipe: Recipe, data: DataSet, out: Path) -> None:
    """One epoch, then what stands in the checkpoint predicts the test images and is attacked on them."""
    scores = train(recipe, data, out)
    checkpoint = load_checkpoint(out / CHECKPOINT_NAME)
    model = checkpoint.model
    assert (checkpoint.kind, checkpoint.epoch) == (recipe.kind, 1)
    trained = {name.rpartition("/")[0] for name in checkpoint.optimiser}
    assert trained == {name for name, _ in model.named_parameters()}
    with torch.no_grad():
        logits = model(to_unit(data.test.images))
    assert logits.isfinite().all()
    assert float((logits.argmax(1) == data.test.labels).float().mean()) == pytest.approx(scores.accuracy)
    attack_once(model, data.test)


def attack_once(model: StabilisedDEQ, split: Split) -> None:
    images, labels = to_unit(split.images), split.labels
    attack = PGD(eps=8 / 255, steps=1)
    attacked = attack(model, images, labels, generator=torch.Generator().manual_seed(0))
    assert not attacked.nonfinite.any()
    assert not attacked.zero.any()
    assert 0 < (attacked.images - images).abs().max() <= 8 / 255 + 1e-6


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wrn-28-10"])
def test_every_kind(kind: str, tmp_path: Path) -> None:
    count, size = (3, 32) if kind == "vgg16" else (IMAGES, 8)
    run_through(Recipe(kind=kind, epochs=1, batch_size=6, model=SMALL), noisy_data(count, size), tmp_path)
    for file in tmp_path.iterdir():  # pytest keeps three runs' folders, and VGG16's files are of 240 MB
        file.unlink()


def test_the_widest_network() -> None:
    """Without files, which are of half a gigabyte each."""
    data = noisy_data(2)
    model = built("wrn-28-10").train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    images, labels = to_unit(data.train.images), data.train.labels
    losses = []
    for _ in range(3):
        loss = cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    attack_once(model.eval(), data.test)


def test_what_is_proved_from_a_cell_is_refused_without_one() -> None:
    data = noisy_data()
    with pytest.raises(ConfigError, match="certify proves what a cell does"):
        certify(built("resnet20"), to_unit(data.test.images), data.test.labels)


def test_solvers_are_compared_without_an_equilibrium_too() -> None:
    data = noisy_data()
    comparison = compare_on(prepare(built("resnet20"), to_unit(data.test.images), data.test.labels))
    assert comparison.radii.tolist() == [0] * IMAGES
    for record in comparison.records.values():
        assert record.trace.evaluations.tolist() == [2] * IMAGES


@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("kind", ["ibp-mondeq", "resnet20"])
def test_every_objective(objective: str, kind: str, tmp_path: Path) -> None:
    recipe = Recipe(kind=kind, epochs=1, batch_size=6, model=SMALL, objective=OBJECTIVES[objective]())
    if (objective, kind) == ("ibp", "resnet20"):
        with pytest.raises(ConfigError, match="interval"):
            train(recipe, noisy_data(), tmp_path)
    else:
        run_through(recipe, noisy_data(), tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_every_data_set(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the recipe that ships, from files in the set's own format."""
    WRITERS[name](tmp_path, monkeypatch)
    recipe = load_recipe(name, {"epochs": 1}, ["batch_size=6", "kind=deq", "data.validation_fraction=0"])
    data = load_data(recipe.data, data_dir=tmp_path)
    parts = {part: _first(getattr(data, part)) for part in ("train", "validation", "test")}
    run_through(recipe, replace(data, **parts), tmp_path / "run")


def _first(split: Split) -> Split:
    return Split(split.images[:IMAGES], split.labels[:IMAGES])


def test_the_digits_that_ship(tmp_path: Path) -> None:
    data = load_data(DataConfig(name="digits"), data_dir=None)
    parts = {part: _first(getattr(data, part)) for part in ("train", "validation", "test")}
    run_through(load_recipe("digits", {"epochs": 1}), replace(data, **parts), tmp_path)
