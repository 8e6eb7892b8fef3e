"""A command that refuses its input leaves no folder behind, and one whose folder cannot be made says so before its work."""

import os
from pathlib import Path

import pytest
from command_runs import run, save_untrained

from stabdeq.config import DataConfig
from stabdeq.errors import FileError
from stabdeq.files import require_folder

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
