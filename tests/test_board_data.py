"""Which images an entry of the board is about: by the name of its data, and of a folder by the hash of what lies in it."""

import json
from pathlib import Path

import pytest
import torch
from test_board import certification, entry_of, report, written

from benchmarks.board import differences, main, read_entry, with_entries
from stabdeq.checkpoint import Checkpoint, save_checkpoint
from stabdeq.config import DataConfig, ModelConfig
from stabdeq.model import StabilisedDEQ

HASH, OTHER = "cd" * 32, "ef" * 32


def test_a_folder_is_known_by_its_images_alone(tmp_path: Path) -> None:
    nameless = read_entry(written(tmp_path, certification()))
    (said,) = differences(nameless, report(data="folder", images=HASH), 100)
    assert said == (
        "images: the checkpoint reads a folder, and which images that holds is known by their SHA-256 alone: "
        f"certification.images_sha256 of these is {HASH}"
    )
    named = read_entry(written(tmp_path, certification(images_sha256=HASH)))
    assert differences(named, report(data="folder", images=HASH), 100) == []
    assert differences(named, report(data="folder", images=OTHER), 100) == [
        f"images: the entry says SHA-256 {HASH}, the images certified anew have {OTHER}"
    ]


def test_named_data_have_to_be_the_entrys_too(tmp_path: Path) -> None:
    named = read_entry(written(tmp_path, certification(images_sha256=HASH)))
    assert differences(named, report(data="digits", images=HASH), 100) == []
    assert len(differences(named, report(data="digits", images=OTHER), 100)) == 1
    assert differences(named, report(data="mnist", images=HASH), 100) == [
        "data: the entry says digits, the checkpoint mnist"
    ]


def test_the_page_says_which_images(tmp_path: Path) -> None:
    entry = read_entry(written(tmp_path, certification(images_sha256=HASH)))
    page = with_entries("<!-- board: sources -->\n<!-- end -->", {"entry": entry})
    assert f"certified on 40, seed 3, SHA-256 of the images `{HASH}`; " in page


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 12 test images in two classes, beside as many to train on."""
    from PIL import Image

    noise = torch.Generator().manual_seed(0)
    for number in range(24):
        place = tmp_path / "images" / ("train", "test")[number % 2] / ("a", "b")[number // 2 % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (8, 8), generator=noise, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(place / f"{number:02}.png")
    return tmp_path / "images"


def test_a_model_of_a_folder_is_certified_anew(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    config = ModelConfig(image_shape=(1, 8, 8), classes=2, mean=(0.5,), std=(0.3,), state_dim=4, cell="certified")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StabilisedDEQ(config)
    save_checkpoint(
        path,
        Checkpoint(
            model=model, data=DataConfig(name="folder", validation_fraction=0), class_names=("a", "b"), seed=0, epoch=0
        ),
    )
    plain = entry_of(path, samples=12, data_dir=images) | {"data": "noise"}
    arguments = [str(path), str(written(tmp_path, plain)), "--data-dir", str(images)]
    assert main(arguments) == 0, capsys.readouterr().out
    next((images / "test" / "a").iterdir()).unlink()
    assert main(arguments) == 1
    assert "images: the entry says SHA-256" in capsys.readouterr().out
    assert json.loads((tmp_path / "entry.json").read_text())["certification"]["images_sha256"]
