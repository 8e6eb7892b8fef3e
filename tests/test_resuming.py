"""A run that was stopped anywhere goes on to the last bit as if it had not been, and writes over nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_runs import (
    PowerCutError,
    assert_same_run,
    at_call,
    contents,
    fail_when,
    metrics_of,
    tiny_architecture,
    tiny_data,
    tiny_recipe,
)

from stabdeq.checkpoint import load_checkpoint, save_checkpoint
from stabdeq.config import DataConfig
from stabdeq.data import DataSet
from stabdeq.errors import CheckpointError, ConfigError, StabdeqError
from train.objectives import IntervalTraining, PGDTraining, Trades
from train.recipe import DecayConfig, Recipe
from train.trainer import BEST_NAME, CHECKPOINT_NAME, METRICS_NAME, train

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
        {"objective": Trades(steps=2)},
        {"objective": PGDTraining(steps=2)},
        {"objective": PGDTraining(steps=2, norm="l2", eps=0.5, step_size=0.2)},
        {"objective": IntervalTraining(), "kind": "ibp-mondeq"},
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
