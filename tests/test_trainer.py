"""Training: it learns, it resumes to the last bit from wherever it was stopped, and it writes over nothing."""

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stabdeq.attacks import PGD, evaluate
from stabdeq.checkpoint import load_checkpoint, save_checkpoint
from stabdeq.config import ArchitectureConfig, DataConfig, LyapunovConfig, SolverConfig
from stabdeq.data import DataSet, Split
from stabdeq.errors import CheckpointError, ConfigError, StabdeqError, TrainingDivergedError
from stabdeq.kinds import KINDS
from train import trainer
from train.loss import Loss, training_loss
from train.progress import Progress
from train.recipe import DecayConfig, ObjectiveConfig, Recipe
from train.trainer import BEST_NAME, CHECKPOINT_NAME, METRICS_NAME, train

Run = trainer._Run


def pattern_split(count: int, size: int, seed: int) -> Split:
    """Noise over three patterns that are easy to tell apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    patterns = torch.randint(0, 128, (3, 1, size, size), generator=torch.Generator().manual_seed(99))
    noise = torch.randint(0, 100, (count, 1, size, size), generator=generator)
    return Split((patterns[labels] + noise).to(torch.uint8), labels)


def tiny_data(*, train: int = 60, validation: int = 12, size: int = 4) -> DataSet:
    return DataSet(
        name="digits",
        classes=("a", "b", "c"),
        train=pattern_split(train, size, 1),
        validation=pattern_split(validation, size, 2),
        test=pattern_split(20, size, 3),
        mean=(0.4,),
        std=(0.2,),
    )


def tiny_architecture(*, backbone: str = "fcn", **lyapunov: float) -> ArchitectureConfig:
    return ArchitectureConfig(
        backbone=backbone,
        state_dim=8,
        solver=SolverConfig(tolerance=1e-2),
        lyapunov=LyapunovConfig(hidden=8, **lyapunov),
    )


def tiny_recipe(**changes: Any) -> Recipe:
    """Four steps an epoch on ``tiny_data``, the last of 12 samples."""
    options: dict[str, Any] = {
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "model": tiny_architecture(),
        "decay": DecayConfig(radii=(0.1, 1.0)),
    }
    return Recipe(**options | changes)


def metrics_of(out: Path) -> list[dict[str, Any]]:
    """The lines of the metrics, without the times."""
    lines = [json.loads(line) for line in (out / METRICS_NAME).read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None)
    return lines


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_same_run(first: Path, second: Path) -> None:
    """Same metrics, weights and optimiser state, to the last bit; the checkpoints are equal as files."""
    assert metrics_of(first) == metrics_of(second)
    assert contents(first).keys() == contents(second).keys() == {CHECKPOINT_NAME, BEST_NAME, METRICS_NAME}
    for name in (CHECKPOINT_NAME, BEST_NAME):
        assert (first / name).read_bytes() == (second / name).read_bytes()


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
    recipe = tiny_recipe(kind=kind, objective=ObjectiveConfig(name=name, **steps))
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
        recipe = tiny_recipe(kind="deq", epochs=8, objective=ObjectiveConfig(name=name, **settings))
        train(recipe, tiny_data(), tmp_path / name)
        model = load_checkpoint(tmp_path / name / CHECKPOINT_NAME).model
        outcome = evaluate(PGD(eps=0.1, steps=5, step_size=0.05), model, tiny_data(train=200).train, seed=0)
        found[name] = float(outcome.robust_correct.float().mean())
    assert min(found["trades"], found["pgd-at"]) > found["cross-entropy"] + 0.1, found


def test_truncated_gradients_have_no_adjoint_to_fail(tmp_path: Path) -> None:
    solver = SolverConfig(tolerance=1e-2, gradient="unrolled")
    model = ArchitectureConfig(state_dim=8, solver=solver)
    for name in ("cross-entropy", "trades"):
        train(tiny_recipe(model=model, epochs=1, objective=ObjectiveConfig(name=name)), tiny_data(), tmp_path / name)
        assert "adjoint_unconverged" not in metrics_of(tmp_path / name)[0]


@pytest.mark.parametrize("changes", [{"kind": "lyadeq"}, {"kind": "deq"}, {"kind": "mondeq"}, {"kind": "resnet20"}])
def test_interval_training_of_a_model_without_bounds_makes_no_folder(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="interval bounds need the cell interval"):
        train(tiny_recipe(objective=ObjectiveConfig(name="ibp"), **changes), tiny_data(size=8), tmp_path / "run")
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
        train(tiny_recipe(kind="deq", objective=ObjectiveConfig(name=name)), tiny_data(), tmp_path)
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


# Stopped anywhere, it goes on as if it had not been.


class PowerCutError(Exception):
    pass


def fail_when(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    moment: Callable[..., bool],
    error: type[BaseException] = PowerCutError,
) -> None:
    """Make ``Run.method`` raise, before it does anything, the first time that ``moment`` of its arguments holds."""
    original = getattr(Run, method)

    def fail(run: Any, *arguments: Any, **options: Any) -> Any:
        if moment(run, *arguments):
            raise error
        return original(run, *arguments, **options)

    monkeypatch.setattr(Run, method, fail)


def at_call(number: int) -> Callable[..., bool]:
    calls = iter(range(1, 10**6))
    return lambda *_: next(calls) == number


# Four epochs of four steps: step 10 is the second of epoch 3.
MOMENTS: dict[str, tuple[str, Callable[[], Callable[..., bool]]]] = {
    "before the first step": ("step", lambda: at_call(1)),
    "in the first epoch": ("step", lambda: at_call(3)),
    "in the third epoch": ("step", lambda: at_call(10)),
    "in the last step": ("step", lambda: at_call(16)),
    "in validation": ("score", lambda: at_call(3)),
    "before the metrics": ("write_metrics", lambda: lambda run, metrics: metrics["epoch"] == 3),
    "before the best checkpoint": ("save", lambda: lambda run, name: run.epoch == 3 and name == BEST_NAME),
    "before the last checkpoint": ("save", lambda: lambda run, name: run.epoch == 3 and name == CHECKPOINT_NAME),
    "in the final test": ("score", lambda: at_call(5)),
}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    train(tiny_recipe(), tiny_data(), out)
    return out


@pytest.mark.parametrize("moment", MOMENTS)
def test_resuming_is_exact(moment: str, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, make = MOMENTS[moment]
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        fail_when(patched, method, make())
        with pytest.raises(PowerCutError):
            train(tiny_recipe(), tiny_data(), out)
    assert load_checkpoint(out / CHECKPOINT_NAME).epoch < 4 or moment == "in the final test"
    train(tiny_recipe(), tiny_data(), out, resume=True)
    assert_same_run(out, whole_run)


def test_resuming_after_several_cuts_and_a_half_written_line(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (2, 6, 7):
        with monkeypatch.context() as patched:
            fail_when(patched, "step", at_call(number))
            with pytest.raises(PowerCutError):
                train(tiny_recipe(), tiny_data(), tmp_path, resume=True)
        with (tmp_path / METRICS_NAME).open("a") as file:
            file.write('{"epoch": 4, "lo')
    train(tiny_recipe(), tiny_data(), tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "deq"},
        {"kind": "lyadeq"},
        {"decay": DecayConfig(weight=0)},
        {"data": DataConfig(augment=True)},
        {"model": tiny_architecture(backbone="resnet20")},
        {"objective": ObjectiveConfig(name="trades", steps=2)},
        {"objective": ObjectiveConfig(name="pgd-at", steps=2)},
        {"objective": ObjectiveConfig(name="pgd-at", steps=2, norm="l2", eps=0.5, step_size=0.2)},
        {"objective": ObjectiveConfig(name="ibp"), "kind": "ibp-mondeq"},
    ],
    ids=["deq", "lyadeq", "no-decay", "augment", "resnet20", "trades", "pgd-at", "pgd-at-l2", "ibp"],
)
def test_resuming_is_exact_for_other_recipes(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(epochs=3, batch_size=30, **changes)
    data = tiny_data(size=8)
    train(recipe, data, tmp_path / "whole")
    with monkeypatch.context() as patched:
        fail_when(patched, "step", at_call(4))
        with pytest.raises(PowerCutError):
            train(recipe, data, tmp_path / "cut")
    train(recipe, data, tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_resuming_without_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_data(validation=0)
    train(tiny_recipe(epochs=2), data, tmp_path / "whole")
    with monkeypatch.context() as patched:
        fail_when(patched, "step", at_call(6))
        with pytest.raises(PowerCutError):
            train(tiny_recipe(epochs=2), data, tmp_path / "cut")
    train(tiny_recipe(epochs=2), data, tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert "validation_accuracy" not in metrics_of(tmp_path / "cut")[0]
    assert load_checkpoint(tmp_path / "cut" / BEST_NAME).epoch == 2


def test_resuming_a_finished_run_changes_nothing(whole_run: Path) -> None:
    before = contents(whole_run)
    train(tiny_recipe(), tiny_data(), whole_run, resume=True)
    assert contents(whole_run) == before


def test_resuming_where_there_is_no_run_begins_one(whole_run: Path, tmp_path: Path) -> None:
    train(tiny_recipe(), tiny_data(), tmp_path / "new", resume=True)
    assert_same_run(tmp_path / "new", whole_run)


def test_control_c_leaves_the_last_whole_epoch(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        fail_when(patched, "step", at_call(10), KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_recipe(), tiny_data(), tmp_path)
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).epoch == 2
    assert metrics_of(tmp_path) == metrics_of(whole_run)[:2]
    train(tiny_recipe(), tiny_data(), tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run)


class RecordedProgress(Progress):
    """Counts what is shown, and shows nothing."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.calls: list[str] = []

    def begin(self, *arguments: Any) -> None:
        self.calls.append("begin")
        super().begin(*arguments)

    def update(self, epoch: float, means: dict[str, float]) -> None:
        assert 0 <= means["accuracy"] <= 1
        assert 0 <= means["unconverged"] <= 1
        assert 0 <= epoch <= 2
        super().update(epoch, means)

    def end_epoch(self, *arguments: Any) -> None:
        self.calls.append("end_epoch")
        super().end_epoch(*arguments)

    def finish(self) -> None:
        self.calls.append("finish")
        super().finish()


@pytest.mark.parametrize("error", [None, PowerCutError, KeyboardInterrupt])
def test_the_bar_is_always_taken_down(
    error: type[BaseException] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = RecordedProgress()
    if error is None:
        train(tiny_recipe(epochs=2), tiny_data(), tmp_path, progress=progress)
    else:
        fail_when(monkeypatch, "step", at_call(6), error)
        with pytest.raises(error):
            train(tiny_recipe(epochs=2), tiny_data(), tmp_path, progress=progress)
    assert progress.calls == ["begin", *["end_epoch"] * (1 if error else 2), "finish"]


# Nothing is written over.


def refuse(error: type[StabdeqError], recipe: Recipe, data: DataSet, out: Path, *, resume: bool) -> str:
    """The message, in one line, of the error that training must raise, having changed no byte and no time stamp."""
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}
    with pytest.raises(error) as caught:
        train(recipe, data, out, resume=resume)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()} == before
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_run_is_not_written_over(whole_run: Path) -> None:
    for recipe in (tiny_recipe(), tiny_recipe(seed=1), tiny_recipe(kind="deq")):
        message = refuse(ConfigError, recipe, tiny_data(), whole_run, resume=False)
        assert "--resume" in message
        assert "another --out" in message


@pytest.mark.parametrize("name", [CHECKPOINT_NAME, BEST_NAME, METRICS_NAME])
def test_not_even_a_part_of_a_run_is_written_over(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("precious")
    assert name in refuse(ConfigError, tiny_recipe(), tiny_data(), tmp_path, resume=False)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"epochs": 5}, "epochs = 4, not 5"),
        ({"seed": 1}, "seed = 0, not 1"),
        ({"kind": "deq"}, "kind = lyadeq-anchored, not deq"),
        ({"learning_rate": 1e-3}, "learning_rate = 0.01, not 0.001"),
        ({"data": DataConfig(augment=True)}, "data.augment = False, not True"),
        ({"decay": DecayConfig(radii=(0.1,))}, "decay.radii = [0.1, 1.0], not [0.1]"),
        (
            {"model": tiny_architecture(alpha=0.5)},
            "model.lyapunov.alpha = 1.0, not 0.5",
        ),
    ],
)
def test_resuming_with_other_settings_is_refused(changes: dict[str, Any], expected: str, whole_run: Path) -> None:
    message = refuse(ConfigError, tiny_recipe(**changes), tiny_data(), whole_run, resume=True)
    assert expected in message
    assert "resume with the same settings" in message


def test_resuming_on_other_images_is_refused(whole_run: Path) -> None:
    data = tiny_data()
    others = [
        tiny_data(size=5),
        DataSet(**vars(data) | {"mean": (0.3,)}),
        DataSet(**vars(data) | {"classes": ("a", "b", "d")}),
        DataSet(**vars(data) | {"classes": ("a", "b", "c", "d")}),
    ]
    for other in others:
        assert "other images or classes" in refuse(ConfigError, tiny_recipe(), other, whole_run, resume=True)


def test_resuming_from_a_broken_checkpoint_is_refused(whole_run: Path, tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT_NAME
    whole = (whole_run / CHECKPOINT_NAME).read_bytes()
    (tmp_path / METRICS_NAME).write_bytes((whole_run / METRICS_NAME).read_bytes())
    for content in (b"", whole[:100], whole[:-1], b"\x80\x04."):
        path.write_bytes(content)
        refuse(CheckpointError, tiny_recipe(), tiny_data(), tmp_path, resume=True)


def test_a_run_from_before_a_setting_existed_is_resumed(whole_run: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(whole_run / CHECKPOINT_NAME)
    del checkpoint.recipe["margin"]
    save_checkpoint(tmp_path / CHECKPOINT_NAME, checkpoint)
    (tmp_path / METRICS_NAME).write_bytes((whole_run / METRICS_NAME).read_bytes())
    train(tiny_recipe(), tiny_data(), tmp_path, resume=True)
    message = refuse(ConfigError, tiny_recipe(batch_size=7), tiny_data(), tmp_path, resume=True)
    assert "batch_size" in message


def test_resuming_without_the_whole_optimiser_is_refused(whole_run: Path, tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT_NAME
    path.write_bytes((whole_run / BEST_NAME).read_bytes())
    assert "a model alone" in refuse(CheckpointError, tiny_recipe(), tiny_data(), tmp_path, resume=True)
    for lost in ("cell.inner.weight/step", "cell.inner.weight/exp_avg_sq"):
        checkpoint = load_checkpoint(whole_run / CHECKPOINT_NAME)
        checkpoint.optimiser.pop(lost)
        save_checkpoint(path, checkpoint)
        message = refuse(CheckpointError, tiny_recipe(), tiny_data(), tmp_path, resume=True)
        assert "lacks some of Adam's state of cell.inner.weight" in message


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match="choose another --out"):
            train(tiny_recipe(), tiny_data(), out)
    assert contents(tmp_path) == {"file": b"precious"}


def test_a_kind_that_contradicts_the_recipe_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose another kind"):
        train(tiny_recipe(model=ArchitectureConfig(stability="state")), tiny_data(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tolerance_that_float32_cannot_meet_makes_no_folder(tmp_path: Path) -> None:
    recipe = tiny_recipe(model=ArchitectureConfig(solver=SolverConfig(tolerance=1e-12)))
    with pytest.raises(ConfigError, match="tolerance 1e-12 is below what"):
        train(recipe, tiny_data(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# A loss that stops being finite.


def poisoned_loss(number: float, after: int) -> Callable[..., Loss]:
    calls = iter(range(10**6))

    def poisoned(*arguments: Any) -> Loss:
        loss = training_loss(*arguments)
        factor = number if next(calls) >= after else 1.0
        return Loss(loss.total * factor, loss.cross_entropy, loss.decay, loss.violations)

    return poisoned


@pytest.mark.parametrize(("number", "step"), [(float("nan"), 0), (float("nan"), 9), (float("inf"), 11)])
def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(
    number: float, step: int, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "training_loss", poisoned_loss(number, step))
        with pytest.raises(TrainingDivergedError) as caught:
            train(tiny_recipe(), tiny_data(), tmp_path)
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert "\n" not in message
    assert f"in epoch {step // 4 + 1}" in message
    assert f"keeps epoch {step // 4}" in message
    assert "lower learning_rate (now 0.01)" in message
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).epoch == step // 4
    assert not (tmp_path / METRICS_NAME).exists() or metrics_of(tmp_path) == metrics_of(whole_run)[: step // 4]
    # The cause gone, it goes on.
    train(tiny_recipe(), tiny_data(), tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("cell.inner.weight", float("nan")),
        ("cell.outer_norm.running_variance", float("inf")),
        ("cell.inner.weight/exp_avg_sq", float("inf")),
    ],
)
def test_broken_tensors_under_a_finite_loss_stop_the_run(
    name: str, number: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of an epoch can break them after the last loss was taken, and the checkpoint could not be read."""
    original, moment = Run.step, at_call(8)

    def break_one(run: Any, *arguments: Any) -> dict[str, Tensor]:
        measured = original(run, *arguments)
        if moment():
            (run.model.state_dict() | run.optimiser_tensors())[name].view(-1)[0] = number
        return measured

    monkeypatch.setattr(Run, "step", break_one)
    with pytest.raises(TrainingDivergedError, match=f"{name} became NaN or infinite in epoch 2"):
        train(tiny_recipe(), tiny_data(), tmp_path)
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).epoch == 1
    assert load_checkpoint(tmp_path / BEST_NAME).epoch == 1


@pytest.mark.parametrize(
    "setting",
    [
        {"learning_rate": 1e9},
        {"decay": DecayConfig(weight=1e9)},
        {"decay": DecayConfig(radii=(1e9,))},
        {"decay": DecayConfig(radii=(1e-30,))},
        *(
            {"model": tiny_architecture(**{name: value})}
            for name in ("alpha", "eta", "smoothing")
            for value in (1e9, 1e-30)
        ),
        *(
            {"model": ArchitectureConfig(state_dim=8, solver=SolverConfig(**{name: value}))}
            for name, value in (("tolerance", 1e9), ("mixing", 1e9), ("mixing", 1e-30))
        ),
    ],
    ids=str,
)
def test_settings_at_the_ends_of_their_ranges_train_or_stop_in_one_line(
    setting: dict[str, Any], tmp_path: Path
) -> None:
    try:
        train(tiny_recipe(epochs=1, **setting), tiny_data(), tmp_path)
    except TrainingDivergedError:
        assert load_checkpoint(tmp_path / CHECKPOINT_NAME).epoch == 0
    else:
        assert load_checkpoint(tmp_path / CHECKPOINT_NAME).epoch == 1


@pytest.mark.parametrize("rate", [1e4, 1e9])
@pytest.mark.parametrize("kind", ["deq", "lyadeq-anchored"])
def test_a_rate_far_too_high_never_leaves_an_unreadable_checkpoint(rate: float, kind: str, tmp_path: Path) -> None:
    with contextlib.suppress(TrainingDivergedError):
        train(tiny_recipe(kind=kind, learning_rate=rate, epochs=2), tiny_data(), tmp_path)
    for name in (CHECKPOINT_NAME, BEST_NAME):
        if (tmp_path / name).exists():
            load_checkpoint(tmp_path / name)


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
    run = Run.resume(tiny_recipe(), tiny_data(), whole_run)
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
