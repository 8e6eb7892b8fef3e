"""Files are written whole or not at all, and a full disk is one line and exit code 2 in every command that writes."""

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stabdeq import __main__
from stabdeq.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stabdeq.config import ArchitectureConfig, DataConfig, LyapunovConfig
from stabdeq.config.kinds import model_config
from stabdeq.errors import FileError
from stabdeq.files import append_line, make_folder, replace_file, replace_or_remove
from stabdeq.model import StabilisedDEQ

FULL = "No space left on device"
Run = Callable[..., tuple[int, str]]


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, FULL)


def fail_from(call: int) -> Callable[[int], None]:
    """Return what stands for os.fsync: it succeeds before the ``call``-th file, from 0, and then finds the disk full."""
    calls = iter(range(10**6))

    def fsync(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode) and next(calls) >= call:
            full_disk()

    return fsync


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# The functions.


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in (b"first", memoryview(b"second")):
        replace_file(path, content)
        assert path.read_bytes() == bytes(content)
    assert names(tmp_path) == {"a.json"}


def test_without_content_the_file_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    replace_or_remove(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", full_disk)
        with pytest.raises(FileError, match="could not be written"):
            replace_or_remove(path, None)
    for _ in range(2):
        replace_or_remove(path, None)
        assert names(tmp_path) == set()


def test_the_content_is_on_the_disk_before_it_gets_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(path.read_text()))
    replace_file(path, b"new")
    assert seen == ["old", "new"]  # the file, then the name in its folder
    assert path.read_text() == "new"


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_where_writing_fails_the_old_file_stands(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    monkeypatch.setattr(os, function, full_disk)
    with pytest.raises(FileError) as caught:
        replace_file(path, b"new")
    assert str(caught.value) == f"{path} could not be written ({FULL}): make room or name another place"
    assert caught.value.exit_code == 2
    assert path.read_text() == "old"
    assert names(tmp_path) == {"a.json"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a fault of ours")])
def test_what_is_no_failed_write_goes_through_and_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        replace_file(tmp_path / "a", b"half of it")
    assert not names(tmp_path)


def test_a_folder_in_the_place_of_the_file_stands(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FileError, match="could not be written"):
        replace_file(tmp_path / "a", b"new")
    with pytest.raises(FileError, match="could not be written"):
        replace_file(tmp_path / "missing" / "a", b"new")
    assert not names(tmp_path)


def test_lines_are_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    for line in ("first", "zweite für Übung"):
        append_line(path, line)
    assert path.read_text(encoding="utf-8") == "first\nzweite für Übung\n"
    monkeypatch.setattr(Path, "open", full_disk)
    with pytest.raises(FileError, match=rf"metrics\.jsonl could not be written \({FULL}\)"):
        append_line(path, "third")


def test_folders_are_made_or_the_reason_is_told(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"cannot make the folder .*file/a \(Not a directory\)"):
        make_folder(tmp_path / "file" / "a")


# The commands.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an untrained checkpoint, a function to check, and an old file wherever a command writes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    architecture = ArchitectureConfig(state_dim=8, lyapunov=LyapunovConfig(hidden=8))
    config = model_config("lyadeq", architecture, image_shape=(1, 8, 8), classes=10, mean=(0.4,), std=(0.3,))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StabilisedDEQ(config).eval()
    checkpoint = Checkpoint(
        model=model, data=DataConfig(), class_names=tuple("0123456789"), seed=0, epoch=0, recipe={"kind": "lyadeq"}
    )
    save_checkpoint(tmp_path / "model.safetensors", checkpoint)
    (tmp_path / "full_disk_functions.py").write_text(
        "def V(z): return (z * z).sum(1)\ndef f(z): return -z\n", encoding="utf-8"
    )
    finding = {
        "check": "decay",
        "name": "flow",
        "claim": "V falls.",
        "verdict": "SUPPORTED",
        "evidence": "It was seen.",
    }
    finding |= {"margin": 0.1, "seconds": 1.0, "samples": 3, "seed": 0, "witness": None}
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps({"schema": 1, "findings": [finding], "measurements": []}))
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = 0
        try:
            __main__.main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        return code, capsys.readouterr().err

    return run


SOLVERS = ("solvers", "model.safetensors", "--images", "2", "--evaluations", "4")
AUDIT = ("audit", "model.safetensors", "--images", "2", "--checks", "positivity", "--out", ".")


@pytest.mark.parametrize(
    ("arguments", "written", "before"),
    [
        (("attack", "model.safetensors", "--images", "2", "--steps", "1", "--json", "out"), "out", 0),
        ((*AUDIT,), "report.json", 0),
        ((*AUDIT,), "report.html", 1),
        ((*AUDIT, "--junit", "out"), "out", 2),
        ((*AUDIT, "--markdown", "out"), "out", 2),
        (("certify", "full_disk_functions:f", "--dim", "2", "--json", "out"), "out", 0),
        (("check", "full_disk_functions:V", "--dim", "2", "--claims", "zero", "--json", "out"), "out", 0),
        (("compare", "a.json", "b.json", "--out", "out"), "out", 0),
        (("report", "a.json"), "a.html", 0),
        ((*SOLVERS, "--json", "out"), "out", 0),
        ((*SOLVERS, "--plot", "out.svg"), "out.svg", 0),
        (("robust-data", "model.safetensors", "--images", "2", "--steps", "1", "--out", "."), "CIFAR_ims", 1),
    ],
)
def test_a_full_disk_is_one_line(
    arguments: tuple[str, ...],
    written: str,
    before: int,
    folder: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``before`` files are written before the one that fails."""
    is_set = arguments[0] == "robust-data"  # which refuses to write over another set
    if not is_set:
        (folder / written).write_text("old")
    monkeypatch.setattr(os, "fsync", fail_from(before))
    code, told = run(*arguments)
    lines = [line for line in told.splitlines() if line.startswith("stabdeq: ")]
    assert code == 2
    assert len(lines) == 1
    assert f"{written} could not be written ({FULL}): make room or name another place" in lines[0]
    assert "Traceback" not in told
    assert is_set or (folder / written).read_text() == "old"
    assert not [name for name in names(folder) if name.endswith(".tmp")]


def test_a_full_disk_ends_a_table_too(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "table1.md").write_text("old")
    monkeypatch.setattr("analysis.reproduce.run.run_jobs", lambda *_, **__: {})
    monkeypatch.setattr(os, "fsync", full_disk)
    code, told = run("reproduce", "table1", "--data", "digits", "--kinds", "deq", "--seeds", "0", "--out", ".")
    assert code == 2
    assert told.splitlines()[-1].startswith(f"stabdeq: table1.md could not be written ({FULL})")
    assert (folder / "table1.md").read_text() == "old"
    assert not [name for name in names(folder) if name.endswith(".tmp")]


@pytest.mark.parametrize("fails", ["checkpoint", "best", "metrics"])
def test_a_full_disk_ends_training_and_the_last_checkpoint_stands(
    fails: str, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fails == "metrics":
        monkeypatch.setattr("train.trainer.append_line", lambda path, line: append_line(folder / "nowhere" / "m", line))
    else:  # before them come the checkpoint of epoch 0, and the metrics
        monkeypatch.setattr(os, "fsync", fail_from({"best": 2, "checkpoint": 3}[fails]))
    small = ("--set", "model.state_dim=4", "--set", "decay.weight=0")
    code, told = run("train", "digits", "--kind", "deq", "--epochs", "1", "--out", "run", *small)
    assert code == 2
    assert told.startswith("stabdeq: ")
    assert told.count("\n") == 1
    assert "could not be written" in told
    assert load_checkpoint(folder / "run" / "checkpoint.safetensors").epoch == 0
    assert not [name for name in names(folder) if name.endswith(".tmp")]
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert run("train", "digits", "--kind", "deq", "--epochs", "1", "--out", "run", "--resume", *small)[0] == 0
    assert load_checkpoint(folder / "run" / "checkpoint.safetensors").epoch == 1
