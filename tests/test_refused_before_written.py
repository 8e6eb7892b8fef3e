"""A command that refuses its input leaves no folder behind, and one whose folder cannot be made says so before its work."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command_runs import run, save_untrained

from analysis.commands import audit
from stabdeq.arguments import require_writable
from stabdeq.config import DataConfig
from stabdeq.errors import FileError
from stabdeq.files import clear_leftovers, replace_file, require_folder

REFUSED = {  # each needs images that are not there, or a file that is not
    "audit": ("audit", "model.safetensors"),
    "a shard of an audit": ("audit", "model.safetensors", "--shard", "1/2"),
    "a shard of an attack": ("attack", "gone.safetensors", "--shard", "1/2"),
    "a shard of a certification": ("certify", "model.safetensors", "--shard", "1/2"),
    "a shard of a check": ("check", "gone.onnx", "--dim", "2", "--shard", "1/2"),
    "merge": ("merge", "empty"),
    "reproduce": ("reproduce", "table1", "--data", "mnist", "--data-dir", "empty"),
    "robust-data": ("robust-data", "model.safetensors"),
    "train": ("train", "mnist", "--data-dir", "empty"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    save_untrained(Path("model.safetensors"), "deq", DataConfig(name="folder"))
    return tmp_path


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_no_folder(line: tuple[str, ...], folder: Path) -> None:
    before = set(folder.iterdir())
    assert run(*line, "--out", "new/folder") == 2
    assert set(folder.iterdir()) == before


def test_a_folder_that_could_not_be_made_is_told_and_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_folder(tmp_path / "a" / "b")
    require_folder(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "file/below", "link", "link/below"):
        with pytest.raises(FileError, match=rf"cannot make the folder .*{name} \(Not a directory\): choose another"):
            require_folder(tmp_path / name)
    with pytest.raises(FileError, match="File name too long"):
        require_folder(tmp_path / ("x" * 5000))
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(FileError, match="Permission denied"):
        require_folder(tmp_path / "a")


# Names.

LONGEST = 255  # bytes in a file's name, of most file systems


@pytest.mark.parametrize("name", ["x" * LONGEST, "ä" * (LONGEST // 2)])
def test_a_file_may_have_the_longest_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    require_writable("--json", path, Path("other"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", _killed)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(RuntimeError):
            replace_file(path, b"half of it")
    assert len(list(tmp_path.iterdir())) == 1
    clear_leftovers(tmp_path / name[1:])
    assert len(list(tmp_path.iterdir())) == 1
    replace_file(path, b"whole")
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"whole"]


def _killed(_: int) -> None:
    raise RuntimeError("killed")


def _of_an_audit(path: Path) -> None:
    audit._require_files(Path("model.safetensors"), path.parent, {"--sarif": path})


@pytest.mark.parametrize("folder", [".", "new"])
@pytest.mark.parametrize(
    "require", [lambda path: require_writable("--json", path, Path()), _of_an_audit, require_folder]
)
def test_a_name_that_is_too_long_is_refused_before_the_work(
    require: Callable[[Path], None], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if folder == "new" and require not in (_of_an_audit, require_folder):
        (tmp_path / folder).mkdir()
    require(Path(folder, "x" * LONGEST))
    with pytest.raises(FileError, match=r"\(File name too long\)"):
        require(Path(folder, "x" * (LONGEST + 1)))
