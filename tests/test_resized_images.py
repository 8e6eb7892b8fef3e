"""Pictures of mixed sizes: scaled where that is asked for, in training, in audits and attacks, and never else."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command_runs import REPOSITORY, run
from PIL import Image

from stabdeq.checkpoint import load_checkpoint
from stabdeq.config import DataConfig
from stabdeq.data import load_data
from stabdeq.data.folder import read_images
from stabdeq.data.own_images import read_own
from stabdeq.errors import ConfigError, DataError

SIZES = [(32, 32), (40, 20), (9, 50), (64, 48)]
PAGE = REPOSITORY / "docs" / "how-to" / "own-images.md"


def write_mixed(folder: Path, mode: str = "RGB", count: int = 8) -> Path:
    """Two classes of pictures of ``SIZES``, dark ones and light ones."""
    for name, level in (("dark", 40), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for place in range(count):
            width, height = SIZES[place % len(SIZES)]
            noise = np.random.default_rng(place).integers(0, 50, (height, width, 3), dtype=np.uint8)
            Image.fromarray(noise + np.uint8(level)).convert(mode).save(folder / name / f"{place}.png")
    return folder


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("P", 3)])
def test_every_picture_gets_the_size(mode: str, channels: int, tmp_path: Path) -> None:
    data = load_data(
        DataConfig(name="folder", resize=12, validation_fraction=0), data_dir=write_mixed(tmp_path / mode, mode)
    )
    assert data.image_shape == (channels, 12, 12)
    dark, light = (data.train.images[data.train.labels == label].float() for label in (0, 1))
    assert dark.max() < light.min()


def test_a_picture_is_scaled_by_means_and_one_of_the_size_is_left(tmp_path: Path) -> None:
    halves = np.zeros((8, 4), np.uint8)
    halves[:4] = 200
    halves[::2, ::2] += 20
    Image.fromarray(halves).save(tmp_path / "a.png")
    (scaled,) = read_images([tmp_path / "a.png"], 2)
    assert scaled.shape == (1, 2, 2)
    assert scaled[0].float() == pytest.approx(torch.tensor([[180.0, 180.0], [30.0, 30.0]]), abs=32)
    Image.fromarray(halves[:4]).save(tmp_path / "b.png")
    assert torch.equal(read_images([tmp_path / "b.png"], 4), torch.from_numpy(halves[:4])[None, None])


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_as_its_camera_was_held(suffix: str, orientation: int, tmp_path: Path) -> None:
    """Orientations as in EXIF 2.3, tag 0x0112: what is stored, from what is seen."""
    seen = np.kron(np.array([[0, 80], [160, 240], [40, 120]], np.uint8), np.ones((16, 16), np.uint8))
    turned = seen if orientation <= 4 else seen.T
    rows, columns = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}[
        orientation
    ]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(turned[::rows, ::columns]).save(path, exif=exif, **({"quality": 95} if suffix != "tif" else {}))
    (found,) = read_images([path])
    assert found.shape[1:] == seen.shape
    assert (found[0].int() - torch.from_numpy(seen).int()).abs().max() < 10


def test_an_unreadable_orientation_is_no_reason_to_refuse_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("L", (8, 4), 100).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        assert read_images([path]).shape == (1, 1, 4, 8)


def test_a_picture_as_large_as_a_camera_s_is_scaled_and_not_kept(tmp_path: Path) -> None:
    Image.new("1", (8000, 6000), 1).save(tmp_path / "a.png")
    assert read_images([tmp_path / "a.png"], 4).unique().tolist() == [255]
    with pytest.raises(DataError, match="48000000 pixels, more than 16777216"):
        read_images([tmp_path / "a.png"])
    Image.new("1", (16384, 8193), 1).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="134234112 pixels, more than 134217728"):
        read_images([tmp_path / "b.png"], 4)


def test_without_being_asked_for_nothing_is_scaled(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--set data\.resize=32 in training, --resize 32 beside --images"):
        load_data(DataConfig(name="folder"), data_dir=write_mixed(tmp_path))
    with pytest.raises(DataError, match="4097 x 4097 pixels: expected 1 to 4096"):
        load_data(DataConfig(name="folder", resize=4097), data_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"data\.resize scales the images of a folder, and the data set is 'digits'"):
        load_data(DataConfig(resize=8))
    np.savez(tmp_path / "own.npz", images=np.zeros((2, 1, 4, 4), np.uint8), labels=np.arange(2))
    with pytest.raises(DataError, match="and no arrays: scale these yourself"):
        read_own(tmp_path / "own.npz", resize=8)


def test_the_recipe_on_its_page_trains_on_mixed_sizes_and_its_checkpoint_is_audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[0]
    Path("photos.toml").write_text(recipe)
    write_mixed(Path("photos"), count=16)
    small = ("--epochs", "1", "--set", "model.state_dim=8", "--set", "model.lyapunov.hidden=8", "--quiet")
    assert run("train", "photos.toml", "--data-dir", "photos", "--out", "run", *small) == 0
    assert load_checkpoint(Path("run/checkpoint.safetensors")).data.resize == 32
    audit = ("audit", "run/checkpoint.safetensors", "--checks", "equilibrium", "--quiet")
    assert run(*audit, "--data-dir", "photos") in (0, 3)
    write_mixed(Path("holiday"), count=4)
    capsys.readouterr()
    assert run(*audit, "--images", "holiday") == 2
    assert "have them scaled" in capsys.readouterr().err
    assert run(*audit, "--images", "holiday", "--resize", "32") in (0, 3)
    attack = ("attack", "run/checkpoint.safetensors", "--steps", "1", "--eps", "1/255", "--quiet")
    assert run(*attack, "--images", "holiday", "--resize", "32") == 0
    for command in (audit, attack):
        assert run(*command, "--resize", "32") == 2
        assert "--resize is of images of your own" in capsys.readouterr().err
