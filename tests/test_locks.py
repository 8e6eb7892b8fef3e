"""Two runs never write into one folder, and a run that was killed leaves nothing in the way of the next."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_runs import contents, tiny_data, tiny_recipe

from stabdeq import locks
from stabdeq.data import Split
from stabdeq.errors import ConfigError, FileError
from stabdeq.files import append_line, replace_file, replace_files
from stabdeq.locks import LOCK_NAME, alone_in
from train.robust_data import Settings, build_robust_data
from train.trainer import CHECKPOINT_NAME, train

pytestmark = pytest.mark.skipif(locks.fcntl is None, reason="needs locks on files")
HOLDER = rf"in use by process {os.getpid()} on .+ since \d{{4}}-\d\d-\d\dT"


def test_a_folder_has_one_holder_and_the_second_is_told_who(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        with pytest.raises(ConfigError, match=HOLDER), alone_in(tmp_path):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]
    assert not list(tmp_path.iterdir())
    with alone_in(tmp_path):
        pass


def test_a_kill_frees_the_folder(tmp_path: Path, repository_on_path: None) -> None:
    code = (
        "import sys; from pathlib import Path; from stabdeq.locks import alone_in\n"
        "with alone_in(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"in\n"
        with pytest.raises(ConfigError, match=f"in use by process {holder.pid} on "), alone_in(tmp_path):
            pass
        holder.kill()
        assert holder.wait() == -signal.SIGKILL
    assert (tmp_path / LOCK_NAME).exists()
    with alone_in(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_was_removed_while_it_was_taken_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, removed = locks.lock, []

    def removed_by_its_holder(descriptor: int) -> bool | None:
        if not removed:
            removed.append((tmp_path / LOCK_NAME).unlink())
        return original(descriptor)

    monkeypatch.setattr(locks, "lock", removed_by_its_holder)
    with alone_in(tmp_path), pytest.raises(ConfigError, match="in use by"), alone_in(tmp_path):
        pass


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", unknown)
    with pytest.warns(UserWarning, match="has no locks"), alone_in(tmp_path):
        replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_folder_that_takes_no_lock(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).mkdir()
    with pytest.raises(FileError, match="cannot be written"), alone_in(tmp_path):
        pass
    (tmp_path / LOCK_NAME).rmdir()
    (tmp_path / "precious").write_text("precious")
    (tmp_path / LOCK_NAME).symlink_to("precious")
    with pytest.raises(FileError, match="cannot be written"), alone_in(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "precious"
    (tmp_path / LOCK_NAME).unlink()
    os.mkfifo(tmp_path / LOCK_NAME)
    with pytest.raises(FileError, match=r"its \.lock is a pipe or a device"), alone_in(tmp_path):
        pass


@pytest.mark.parametrize("resume", [True, False])
def test_two_trainings_do_not_share_a_folder(resume: bool, whole_run: Path) -> None:
    before = contents(whole_run)
    with alone_in(whole_run):
        with pytest.raises(ConfigError, match=HOLDER):
            train(tiny_recipe(), tiny_data(), whole_run, resume=resume)
        assert {**contents(whole_run), LOCK_NAME: b""} == {**before, LOCK_NAME: b""}


def test_a_training_keeps_its_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins when the first has its folder and no checkpoint yet."""

    def try_a_second(*_: object, **__: object) -> None:
        monkeypatch.undo()
        with pytest.raises(ConfigError, match=HOLDER):
            train(tiny_recipe(), tiny_data(), tmp_path / "run")
        raise KeyboardInterrupt

    monkeypatch.setattr("train.trainer.save_checkpoint", try_a_second)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe(), tiny_data(), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_two_robust_data_sets_do_not_share_a_folder(tmp_path: Path) -> None:
    split = Split(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    with alone_in(tmp_path), pytest.raises(ConfigError, match=HOLDER):
        build_robust_data(None, split, tmp_path, Settings(model="", count=2))  # pyrefly: ignore


# What a kill leaves half-written.


def test_the_next_run_removes_what_was_half_written(whole_run: Path) -> None:
    kept = ".notes.1.tmp", ".checkpoint.safetensors.tmp"
    for name in (".checkpoint.safetensors.123.tmp", ".best.safetensors.0a1b2c3d.tmp", ".metrics.jsonl.1.tmp", *kept):
        (whole_run / name).touch()
    before = (whole_run / CHECKPOINT_NAME).read_bytes()
    train(tiny_recipe(), tiny_data(), whole_run, resume=True)
    assert {path.name for path in whole_run.iterdir() if path.name.endswith(".tmp")} == set(kept)
    assert (whole_run / CHECKPOINT_NAME).read_bytes() == before
    for name in kept:
        (whole_run / name).unlink()


def test_the_next_write_removes_what_was_half_written(tmp_path: Path) -> None:
    for name in (".a.123.tmp", ".a.json.123.tmp"):  # the second is of another file
        (tmp_path / name).touch()
    replace_file(tmp_path / "a", b"new")
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".a.json.123.tmp"}


def test_a_file_that_is_being_written_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fsync = tmp_path / "a", os.fsync

    def second(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        replace_file(path, b"second")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", second)
    replace_file(path, b"first")
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


# Permissions, and the disk.


@pytest.fixture
def umask(monkeypatch: pytest.MonkeyPatch) -> int:
    before = os.umask(0o027)
    yield 0o027  # type: ignore[misc]
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_have_the_permissions_that_the_umask_leaves(umask: int, tmp_path: Path) -> None:
    train(tiny_recipe(epochs=1), tiny_data(), tmp_path / "run")
    assert {mode(path) for path in (tmp_path / "run").iterdir()} == {0o666 & ~umask}
    assert mode(tmp_path / "run") == 0o777 & ~umask


def test_a_file_keeps_the_permissions_that_it_was_given(umask: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    replace_file(path, b"first")
    for wanted in (0o600, 0o664):
        path.chmod(wanted)
        replace_file(path, b"next")
        assert mode(path) == wanted


def test_the_name_is_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace, fsync = os.replace, os.fsync

    def synced(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("rename"), replace(*paths)))
    replace_file(tmp_path / "a", b"new")
    assert order == ["file", "rename", "folder"]
    order.clear()
    replace_files({tmp_path / "a": b"newer", tmp_path / "b": b"new"})
    assert order == ["file", "file", "folder", "rename", "folder", "rename", "folder"]
    order.clear()
    append_line(tmp_path / "c", "line")
    assert order == ["file"]


def test_a_file_system_that_syncs_no_folders_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
