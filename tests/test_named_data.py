"""A checkpoint is not judged on a data set whose classes have other names, whatever command reads it."""

from pathlib import Path

import pytest
from command_runs import run, save_untrained
from data_files import write_folder

import stabdeq
from analysis.measure.sample import draw_images
from stabdeq.checkpoint import load_checkpoint
from stabdeq.config import DataConfig
from stabdeq.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.safetensors of the classes a and b, images of these in right, and of the classes a and c in other."""
    monkeypatch.chdir(tmp_path)
    save_untrained(Path("model.safetensors"), "deq", DataConfig(name="folder", validation_fraction=0.0))
    for name, classes in (("right", ("a", "b")), ("other", ("a", "c"))):
        for part in ("train", "test"):
            write_folder(tmp_path / name / part, dict.fromkeys(classes, 2))
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "line",
    [
        ("audit", "model.safetensors", "--checks", "equilibrium"),
        ("attack", "model.safetensors", "--steps", "1"),
        ("certify", "model.safetensors"),
        ("robust-data", "model.safetensors", "--out", "made"),
    ],
)
def test_classes_of_other_names_are_refused(line: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*line, "--data-dir", "other") == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(
        "stabdeq: class 1 is 'b' to the model, and 'c' in folder: give the data set it was trained on"
    )


def test_classes_of_the_same_names_are_read(folder: Path) -> None:
    loaded = load_checkpoint(folder / "model.safetensors")
    assert len(draw_images(loaded, folder / "right", 9, 0)[0]) == 4
    assert stabdeq.attack(folder / "model.safetensors", steps=1, samples=1, data_dir=folder / "right").accuracies
    (folder / "right" / "test" / "c").mkdir()
    (folder / "right" / "train" / "c").mkdir()
    for part in ("train", "test"):
        write_folder(folder / "right" / part, {"c": 2})
    with pytest.raises(DataError, match=r"images of 2 classes, and folder has .* of 3"):
        draw_images(loaded, folder / "right", 9, 0)
