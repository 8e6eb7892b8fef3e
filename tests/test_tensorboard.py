"""TensorBoard gets what metrics.jsonl holds: through a writer put in the place of its own, which need not be installed."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from training_runs import metrics_of, tiny_data, tiny_recipe

from stabdeq.errors import ConfigError, FileError
from train import trainer
from train.tensorboard import event_files
from train.training import train

Events = dict[tuple[str, int], float]


class Writer:
    """Stands for torch's SummaryWriter: ``shown`` is what TensorBoard would show of a folder, by (name, step)."""

    shown: dict[str, Events]

    def __init__(self, folder: str, *, purge_step: int) -> None:
        events = self.shown.get(folder, {})
        self.shown[folder] = {key: value for key, value in events.items() if key[1] < purge_step}
        self.events, self.waiting = self.shown[folder], Events()

    def add_scalar(self, name: str, value: float, step: int) -> None:
        assert type(value) is float
        self.waiting[name, step] = value

    def flush(self) -> None:
        self.events |= self.waiting

    def close(self) -> None:
        self.flush()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Events]:
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "shown", {}, raising=False)
    return Writer.shown


def of_metrics(out: Path) -> Events:
    return {(name, line["epoch"]): value for line in metrics_of(out) for name, value in line.items() if name != "epoch"}


def without_times(events: Events) -> Events:
    return {key: value for key, value in events.items() if key[0] != "seconds"}


def test_the_curves_are_the_metrics_of_a_resumed_run_too(shown: dict[str, Events], tmp_path: Path) -> None:
    folder = str(tmp_path / "tensorboard")
    trainer.train(tiny_recipe(epochs=1, kind="deq"), tiny_data(), tmp_path)
    assert shown == {}  # not asked for
    trainer.train(tiny_recipe(epochs=1, kind="deq"), tiny_data(), tmp_path, resume=True, tensorboard=True)
    assert without_times(shown[folder]) == of_metrics(tmp_path)
    assert ("test_accuracy", 1) in shown[folder]
    assert ("seconds", 1) in shown[folder]
    # Of an epoch that the checkpoint does not hold, TensorBoard shows nothing either.
    shown[folder]["loss", 7] = 1.0
    trainer.train(tiny_recipe(epochs=1, kind="deq"), tiny_data(), tmp_path, resume=True, tensorboard=True)
    assert without_times(shown[folder]) == of_metrics(tmp_path)


def test_each_line_is_there_once_it_is_written(shown: dict[str, Events], tmp_path: Path) -> None:
    with event_files(tmp_path) as write:
        write({"epoch": 3, "loss": float("nan"), "accuracy": 1})
        assert shown[str(tmp_path / "tensorboard")].keys() == {("loss", 3), ("accuracy", 3)}


def test_where_it_is_not_installed_nothing_is_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"needs stabdeq's extra of that name.*: pip install tensorboard"):
        train("digits", out=tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_told(shown: dict[str, Events], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(self: Writer) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Writer, "flush", fail)
    with (
        pytest.raises(FileError, match=r"tensorboard could not be written \(No space left on device\)"),
        event_files(tmp_path) as write,
    ):
        write({"epoch": 1, "loss": 1.0})
