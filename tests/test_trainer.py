"""Training: it learns, the same seed gives the same bits, and its numbers are exact."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training_runs import (
    PowerCutError,
    Run,
    assert_same_run,
    at_call,
    contents,
    fail_when,
    metrics_of,
    pattern_split,
    tiny_data,
    tiny_recipe,
)

from stabdeq.attacks import PGD, evaluate
from stabdeq.checkpoint import load_checkpoint
from stabdeq.config import AndersonConfig, ArchitectureConfig, DataConfig
from stabdeq.config.kinds import KINDS
from stabdeq.data import Split
from stabdeq.errors import ConfigError, TrainingDivergedError
from train import trainer
from train.objectives import OBJECTIVES, IntervalTraining
from train.run_folder import RunFolder
from train.trainer import BEST_NAME, CHECKPOINT_NAME, METRICS_NAME, train

# It learns.


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.backbone is None])
def test_the_loss_goes_down_and_the_patterns_are_learnt(kind: str, tmp_path: Path) -> None:
    scores = train(tiny_recipe(kind=kind, epochs=6), tiny_data(), tmp_path)
    *epochs, final = metrics_of(tmp_path)
    assert epochs[-1]["loss"] < 0.7 * epochs[0]["loss"]
    assert scores.accuracy > 0.7
    assert final == {"epoch": 6, "test_accuracy": scores.accuracy, "test_unconverged": scores.unconverged}


def test_what_a_run_writes(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "folder"
    recipe = tiny_recipe(epochs=2, seed=5)
    train(recipe, tiny_data(), out)
    assert contents(out).keys() == {CHECKPOINT_NAME, BEST_NAME, METRICS_NAME}
    checkpoint = load_checkpoint(out / CHECKPOINT_NAME)
    assert (checkpoint.epoch, checkpoint.seed, checkpoint.kind) == (2, 5, "lyadeq-anchored")
    assert checkpoint.class_names == ("a", "b", "c")
    assert checkpoint.data == recipe.data
    assert checkpoint.recipe["learning_rate"] == 1e-2
    assert checkpoint.model.config.mean == (0.4,)
    assert not load_checkpoint(out / BEST_NAME).optimiser
    states = {name.rpartition("/")[0] for name in checkpoint.optimiser}
    assert states == {name for name, _ in checkpoint.model.named_parameters()}
    lines = metrics_of(out)
    assert [line["epoch"] for line in lines] == [1, 2, 2]
    for line in lines[:2]:
        assert line.keys() >= {
            "loss",
            "cross_entropy",
            "decay_loss",
            "decay_violations",
            "accuracy",
            "unconverged",
            "adjoint_unconverged",
            "evaluations",
            "validation_accuracy",
            "validation_unconverged",
        }
        assert all(np.isfinite(value) for value in line.values())
        assert line["loss"] == pytest.approx(line["cross_entropy"] + line["decay_loss"], rel=1e-5)
        assert 1 <= line["evaluations"] <= 50


CRAFTED = {"adversarial_accuracy", "crafting_blind"}


@pytest.mark.parametrize(
    ("name", "kind", "metrics"),
    [
        ("trades", "lyadeq-anchored", CRAFTED | {"robust_loss", "adversarial_unconverged"}),
        ("trades", "lyadeq", CRAFTED | {"robust_loss", "adversarial_unconverged"}),
        ("pgd-at", "lyadeq-anchored", CRAFTED),
        ("ibp", "ibp-mondeq", {"worst_cross_entropy", "bounded_accuracy", "eps"}),
    ],
)
def test_objectives_learn_and_say_what_the_attack_left(name: Any, kind: str, metrics: set[str], tmp_path: Path) -> None:
    steps = {} if name == "ibp" else {"steps": 2}
    recipe = tiny_recipe(kind=kind, objective=OBJECTIVES[name](**steps))
    assert train(recipe, tiny_data(), tmp_path).accuracy > 0.5
    *epochs, _ = metrics_of(tmp_path)
    plain = {"loss", "cross_entropy", "accuracy", "adjoint_unconverged", "validation_accuracy"}
    for line in epochs:
        assert line.keys() >= plain | metrics
        assert all(np.isfinite(value) for value in line.values())
    last = epochs[-1]
    if name == "trades":
        assert last["loss"] == pytest.approx(last["cross_entropy"] + last["decay_loss"] + last["robust_loss"], rel=1e-5)
    elif name == "pgd-at":
        assert last["adversarial_accuracy"] == last["accuracy"]
        assert last["loss"] == pytest.approx(last["cross_entropy"] + last["decay_loss"], rel=1e-5)
    else:
        assert epochs[0]["eps"] < last["eps"] == pytest.approx(0.031)
        assert last["loss"] == pytest.approx((last["cross_entropy"] + last["worst_cross_entropy"]) / 2, rel=1e-5)
        assert last["cross_entropy"] < last["worst_cross_entropy"]
        assert last["bounded_accuracy"] <= last["accuracy"]


def test_objectives_are_trained_for_the_accuracy_under_attack(tmp_path: Path) -> None:
    found = {}
    for name in ("cross-entropy", "trades", "pgd-at"):
        settings = {} if name == "cross-entropy" else {"eps": 0.1, "step_size": 0.05, "steps": 3}
        recipe = tiny_recipe(kind="deq", epochs=8, objective=OBJECTIVES[name](**settings))
        train(recipe, tiny_data(), tmp_path / name)
        model = load_checkpoint(tmp_path / name / CHECKPOINT_NAME).model
        outcome = evaluate(PGD(eps=0.1, steps=5, step_size=0.05), model, tiny_data(train=200).train, seed=0)
        found[name] = float(outcome.robust_correct.float().mean())
    assert min(found["trades"], found["pgd-at"]) > found["cross-entropy"] + 0.1, found


def test_truncated_gradients_have_no_adjoint_to_fail(tmp_path: Path) -> None:
    solver = AndersonConfig(tolerance=1e-2, gradient="unrolled")
    model = ArchitectureConfig(state_dim=8, solver=solver)
    for name in ("cross-entropy", "trades"):
        train(tiny_recipe(model=model, epochs=1, objective=OBJECTIVES[name]()), tiny_data(), tmp_path / name)
        assert "adjoint_unconverged" not in metrics_of(tmp_path / name)[0]


@pytest.mark.parametrize("changes", [{"kind": "lyadeq"}, {"kind": "deq"}, {"kind": "mondeq"}, {"kind": "resnet20"}])
def test_interval_training_of_a_model_without_bounds_makes_no_folder(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="interval bounds need the cell interval"):
        train(tiny_recipe(objective=IntervalTraining(), **changes), tiny_data(size=8), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["trades", "pgd-at"])
def test_nan_under_an_objective_stops_the_run(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, moment = Run.step, at_call(6)

    def poison(run: Any, *arguments: Any) -> dict[str, Tensor]:
        if moment():
            run.model.head.classifier.weight.data[0] = float("nan")
        return original(run, *arguments)

    monkeypatch.setattr(Run, "step", poison)
    with pytest.raises(TrainingDivergedError, match="the loss became NaN or infinite in epoch 2"):
        train(tiny_recipe(kind="deq", objective=OBJECTIVES[name]()), tiny_data(), tmp_path)
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).epoch == 1


def test_a_last_batch_of_one_joins_the_batch_before_it(tmp_path: Path) -> None:
    train(tiny_recipe(epochs=1), tiny_data(train=33), tmp_path)
    checkpoint = load_checkpoint(tmp_path / CHECKPOINT_NAME)
    assert all(value == 2 for name, value in checkpoint.optimiser.items() if name.endswith("/step"))
    assert trainer._steps_per_epoch(tiny_data(train=33).train, 16) == 2


def test_a_set_smaller_than_a_batch(tmp_path: Path) -> None:
    train(tiny_recipe(epochs=1, batch_size=500), tiny_data(), tmp_path)
    assert metrics_of(tmp_path)[0]["epoch"] == 1


# The same seed, the same bits.


def test_a_run_depends_on_its_seed_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    train(tiny_recipe(epochs=2), tiny_data(), tmp_path / "a")
    torch.manual_seed(2)
    np.random.seed(2)
    random.seed(2)
    train(tiny_recipe(epochs=2), tiny_data(), tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")
    train(tiny_recipe(epochs=2, seed=1), tiny_data(), tmp_path / "c")
    first, other = (load_checkpoint(tmp_path / name / CHECKPOINT_NAME) for name in "ac")
    for name in ("backbone.1.weight", "cell.inner.weight", "head.classifier.weight"):
        assert not torch.equal(first.model.get_parameter(name), other.model.get_parameter(name))
    assert metrics_of(tmp_path / "a") != metrics_of(tmp_path / "c")


def test_another_seed_is_another_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    original = Run.step

    def record(run: Any, images: Tensor, labels: Tensor, *arguments: Any) -> dict[str, Tensor]:
        seen.append(labels.tolist())
        return original(run, images, labels, *arguments)

    monkeypatch.setattr(Run, "step", record)
    for seed in (0, 1):
        train(tiny_recipe(epochs=2, seed=seed, kind="deq"), tiny_data(), tmp_path / str(seed))
    epochs = [[label for batch in seen[start : start + 4] for label in batch] for start in range(0, 16, 4)]
    assert len({tuple(labels) for labels in epochs}) == 4  # no two epochs, of either seed, in the same order
    assert all(sorted(labels) == sorted(tiny_data().train.labels.tolist()) for labels in epochs)


@pytest.mark.parametrize("augment", [False, True])
def test_training_leaves_the_global_random_states_alone(augment: bool, tmp_path: Path) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    recipe = tiny_recipe(epochs=1, data=DataConfig(augment=augment))
    train(recipe, tiny_data(), tmp_path)
    train(recipe, tiny_data(), tmp_path, resume=True)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert all(np.array_equal(a, b) for a, b in zip(before[2], np.random.get_state(), strict=True))


def test_training_switches_no_global_setting(tmp_path: Path) -> None:
    train(tiny_recipe(epochs=1), tiny_data(), tmp_path)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


# Numbers.


def test_scores_over_uneven_batches_are_exact(whole_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = load_checkpoint(whole_run / CHECKPOINT_NAME)
    split = pattern_split(20, 4, 77)
    generator = torch.Generator().manual_seed(0)
    # Half the labels are wrong, in no pattern, so that no batch is like another.
    split = Split(split.images, torch.where(torch.rand(20, generator=generator) < 0.5, split.labels, 0))
    run = Run(tiny_recipe(), tiny_data(), whole_run, checkpoint.model)
    with torch.no_grad():
        prediction = checkpoint.model.predict(split.images / 255)
    expected = sum(
        int(row.argmax()) == label for row, label in zip(prediction.logits, split.labels.tolist(), strict=True)
    )
    assert 0 < expected < 20
    for size in (1, 7, 19, 20, 1000):
        monkeypatch.setattr(trainer, "EVALUATION_BATCH", size)
        scores = run.score(split)
        assert scores is not None
        assert scores.accuracy == expected / 20
        assert scores.unconverged == 0
        assert scores.evaluations == float(prediction.solution.evaluations.double().mean())
    assert run.score(tiny_data(validation=0).validation) is None


def test_means_of_an_epoch_weigh_samples_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Run.step
    measured: list[tuple[int, dict[str, Tensor]]] = []

    def record(run: Any, images: Tensor, labels: Tensor, *arguments: Any) -> dict[str, Tensor]:
        metrics = original(run, images, labels, *arguments)
        measured.append((len(labels), metrics))
        return metrics

    monkeypatch.setattr(Run, "step", record)
    train(tiny_recipe(epochs=1), tiny_data(), tmp_path)
    assert [count for count, _ in measured] == [16, 16, 16, 12]
    line = metrics_of(tmp_path)[0]
    for name in measured[0][1]:
        mean = sum(count * float(metrics[name]) for count, metrics in measured) / 60
        assert line[name] == pytest.approx(mean, rel=1e-6), name
    right = sum(round(count * float(metrics["accuracy"])) for count, metrics in measured)
    assert line["accuracy"] == pytest.approx(right / 60, rel=1e-6)


def test_the_best_checkpoint_is_that_of_the_best_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, accuracies, best in (("a", [0.5, 0.7, 0.6, 0.2], 2), ("b", [0.5, 0.7, 0.7, 0.2], 3), ("c", [0.0] * 4, 4)):
        script = iter([*accuracies, 0.9])
        with monkeypatch.context() as patched:
            patched.setattr(Run, "score", lambda run, split, s=script: trainer.Scores(next(s), 0.0, 1.0))
            scores = train(tiny_recipe(kind="deq"), tiny_data(), tmp_path / name)
        assert scores.accuracy == 0.9
        found = load_checkpoint(tmp_path / name / BEST_NAME)
        assert (found.epoch, found.best_validation) == (best, max(accuracies))
        last = load_checkpoint(tmp_path / name / CHECKPOINT_NAME)
        assert (last.epoch, last.best_validation) == (4, max(accuracies))


def test_a_resumed_run_remembers_the_best_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = iter([0.5, 0.7, 0.6, 0.2, 0.9])
    monkeypatch.setattr(Run, "score", lambda run, split: trainer.Scores(next(script), 0.0, 1.0))
    with monkeypatch.context() as patched:
        fail_when(patched, "step", at_call(10))
        with pytest.raises(PowerCutError):
            train(tiny_recipe(kind="deq"), tiny_data(), tmp_path)
    train(tiny_recipe(kind="deq"), tiny_data(), tmp_path, resume=True)
    assert load_checkpoint(tmp_path / BEST_NAME).epoch == 2


def test_the_learning_rate_follows_pytorchs_cosine_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    original = Run.step

    def record(run: Any, *arguments: Any) -> dict[str, Tensor]:
        rates.append(run.optimiser.param_groups[0]["lr"])
        return original(run, *arguments)

    monkeypatch.setattr(Run, "step", record)
    train(tiny_recipe(kind="deq"), tiny_data(), tmp_path)

    def schedule(steps: int) -> list[float]:
        optimiser = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        found = []
        for _ in range(steps):
            found.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            cosine.step()
        return found

    assert rates[::4] == pytest.approx(schedule(4), rel=1e-12)  # at the beginnings of the epochs
    assert rates == pytest.approx(schedule(16), rel=1e-12)  # and at every step between them
    assert rates[0] == 1e-2


def test_adam_has_the_papers_betas(whole_run: Path) -> None:
    run = Run.resume(tiny_recipe(), tiny_data(), RunFolder(whole_run))
    assert isinstance(run.optimiser, torch.optim.Adam)
    assert run.optimiser.defaults["betas"] == (0.9, 0.999)
    assert run.optimiser.defaults["weight_decay"] == 0


def test_the_running_statistics_move_once_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stabdeq.cells import Cell

    updates = []
    original = Cell.update_running_statistics
    monkeypatch.setattr(
        Cell, "update_running_statistics", lambda cell, statistics: (updates.append(1), original(cell, statistics))
    )
    train(tiny_recipe(epochs=2), tiny_data(), tmp_path)
    assert len(updates) == 8
