"""``stabdeq.attacks.run.attack``: the command's work, on checkpoints and on anybody's classifier."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from analysis.commands.attack import attack as attack_command
from stabdeq.attacks import evaluate
from stabdeq.attacks.run import attack
from stabdeq.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stabdeq.config import ArchitectureConfig, DataConfig
from stabdeq.config.kinds import model_config
from stabdeq.data import Split, load_data
from stabdeq.errors import CheckpointError, ConfigError, DataError
from stabdeq.model import StabilisedDEQ


def classifier(seed: int = 0) -> nn.Module:
    """A linear classifier of images (1, 4, 4) into 3 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()


def sample(count: int = 30) -> tuple[Tensor, Tensor]:
    """uint8 images, with the labels that the classifier gives them, so that all are right at first."""
    pixels = torch.randint(0, 256, (count, 1, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return pixels, classifier()(pixels / 255).argmax(1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "checkpoint.safetensors"
    architecture = ArchitectureConfig(state_dim=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = model_config("deq", architecture, image_shape=(1, 8, 8), classes=10, mean=(0.4,), std=(0.3,))
        model = StabilisedDEQ(config).eval()
    save_checkpoint(path, Checkpoint(model=model, data=DataConfig(), class_names=tuple("0123456789"), seed=0, epoch=0))
    return path


def test_a_classifier_of_ones_own() -> None:
    images, labels = sample()
    found = attack(classifier(), images, labels, eps=16 / 255)
    assert found.accuracies["clean"] == found.accuracies["eps_0"] == 1
    assert found.accuracies["robust"] == found.accuracies["worst"] < 1
    assert found.indices.tolist() == list(range(30))
    assert not found.warnings
    assert found.settings["attack"] == "pgd"
    assert found.settings["eps"] == 16 / 255
    assert found.subject == {"checkpoint": None, "sha256": None, "kind": "Sequential", "data": None}
    printed = str(found)
    for text in ("Sequential, pgd (linf), 30 images", "attacked, eps = 0 ", "attacked, eps = 0.06275", "100.00%"):
        assert text in printed


def test_floats_and_levels_are_the_same_images() -> None:
    pixels, labels = sample()
    found = [attack(classifier(), images, labels, eps="16/255").plain() for images in (pixels, pixels / 255)]
    assert found[0] == found[1]


def test_a_function_of_images_will_do() -> None:
    images, labels = sample()
    model = classifier()
    found = [attack(one, images, labels, eps="16/255").accuracies for one in (model, lambda pixels: model(pixels))]
    assert found[0] == found[1]


def test_the_images_are_drawn_by_the_seed() -> None:
    images, labels = sample()
    drawn = [attack(classifier(), images, labels, samples=7, seed=seed).indices.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 7


def test_the_command_prints_and_writes_what_the_function_returns(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = attack(checkpoint, name="honest", eps="16/255", steps=2, samples=6, seed=3)
    attack_command(
        str(checkpoint), attack="honest", eps="16/255", steps=2, limit=(6,), seed=3, json_file=tmp_path / "a.json"
    )
    assert capsys.readouterr().out.split() == str(found).split()
    assert (tmp_path / "a.json").read_text() == found.to_json()
    assert json.loads(found.to_json())["accuracy"] == found.accuracies
    assert list(found.standing) == ["pgd", "apgd-ce", "apgd-t", "square", "intermediate"]


def test_a_checkpoint_on_images_of_ones_own(checkpoint: Path) -> None:
    test = load_data(DataConfig()).test
    own = attack(checkpoint, test.images, test.labels, samples=5)
    drawn = attack(checkpoint, samples=5)
    assert own.plain() | {"data": "digits"} == drawn.plain()
    assert own.subject["data"] is None
    assert "deq, pgd (linf), 5 images" in str(own)
    assert "deq on digits, pgd (linf), 5 test images" in str(drawn)


def test_the_fault_on_purpose_needs_a_models_normalisation(checkpoint: Path) -> None:
    images, labels = sample()
    with pytest.raises(ConfigError, match=r"Sequential has none.*ClampNormalised"):
        attack(classifier(), images, labels, clamp_normalised=True)
    model = load_checkpoint(checkpoint).model
    test = load_data(DataConfig()).test
    found = attack(model, test.images, test.labels, samples=20, clamp_normalised=True)
    assert "NOT A ROBUST ACCURACY" in found.warnings[0]
    assert "FAULTY ON PURPOSE" in str(found)
    assert repr(found) == str(found)


def test_progress_is_told_of_the_control_and_of_the_attack() -> None:
    images, labels = sample()
    told: list[tuple[str, int, int, int]] = []
    found = attack(classifier(), images, labels, batch_size=20, eps="16/255", progress=lambda *step: told.append(step))
    assert [step[0] for step in told] == ["eps = 0"] * 3 + ["attack"] * 3
    assert [step[1] for step in told] == [0, 20, 30] * 2
    assert {step[3] for step in told} == {30}
    assert told[-1][2] == int(found.outcome.robust_correct.sum())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "pdg"}, ConfigError, "did you mean 'pgd'"),
        ({"eps": "eight"}, ConfigError, "not a number"),
        ({"eps": 8.0}, ConfigError, "8/255"),
        ({"samples": 0}, ConfigError, "samples = 0"),
        ({"seed": -1}, ConfigError, "seed = -1"),
        ({"labels": None}, DataError, "images and labels belong together"),
        ({"images": None, "labels": None}, DataError, "give images and labels"),
        ({"model": "no/such.safetensors"}, CheckpointError, "no/such.safetensors"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    images, labels = sample()
    with pytest.raises(error, match=message):
        attack(**({"model": classifier(), "images": images, "labels": labels} | arguments))


def test_outcomes_are_those_of_evaluate() -> None:
    from stabdeq.attacks import build_attack

    images, labels = sample()
    found = attack(classifier(), images, labels, name="pgd", eps="16/255", restarts=2, seed=4)
    direct = evaluate(build_attack("pgd", eps=16 / 255, restarts=2), classifier(), Split(images, labels), seed=4)
    assert torch.equal(found.outcome.robust_correct, direct.robust_correct)
