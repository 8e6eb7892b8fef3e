"""Runs that cannot begin make no folder; a loss that stops being finite stops the run and keeps the last good checkpoint."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from training_runs import (
    PowerCutError,
    Run,
    assert_same_run,
    at_call,
    contents,
    fail_when,
    metrics_of,
    tiny_architecture,
    tiny_data,
    tiny_recipe,
)

from stabdeq.checkpoint import load_checkpoint
from stabdeq.config import AndersonConfig, ArchitectureConfig
from stabdeq.errors import ConfigError, FileError, TrainingDivergedError
from train import trainer
from train.loss import Loss, training_loss
from train.progress import Progress
from train.recipe import DecayConfig
from train.trainer import BEST_NAME, CHECKPOINT_NAME, METRICS_NAME, train


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


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(FileError, match="choose another --out"):
            train(tiny_recipe(), tiny_data(), out)
    assert contents(tmp_path) == {"file": b"precious"}


def test_a_kind_that_contradicts_the_recipe_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose another kind"):
        train(tiny_recipe(model=ArchitectureConfig(stability="state")), tiny_data(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tolerance_that_float32_cannot_meet_makes_no_folder(tmp_path: Path) -> None:
    recipe = tiny_recipe(model=ArchitectureConfig(solver=AndersonConfig(tolerance=1e-12)))
    with pytest.raises(ConfigError, match="tolerance 1e-12 is below what"):
        train(recipe, tiny_data(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def poisoned_loss(number: float, after: int) -> Callable[..., Loss]:
    calls = iter(range(10**6))

    def poisoned(*arguments: Any) -> Loss:
        loss = training_loss(*arguments)
        factor = number if next(calls) >= after else 1.0
        return replace(loss, total=loss.total * factor)

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
        {"decay": DecayConfig(radii=(1e-9,))},
        *(
            {"model": tiny_architecture(**{name: value})}
            for name in ("alpha", "eta", "smoothing")
            for value in (1e9, 1e-9)
        ),
        *(
            {"model": ArchitectureConfig(state_dim=8, solver=AndersonConfig(**{name: value}))}
            for name, value in (("tolerance", 1e9), ("mixing", 1e9), ("mixing", 1e-9))
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
