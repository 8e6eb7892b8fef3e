"""Images of one's own: arrays in files, folders of pictures, and what is no such thing."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from stabdeq.data.own_images import draw, read_own
from stabdeq.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 5), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0])


def as_npz(folder: Path) -> tuple[Path, None]:
    np.savez(folder / "own.npz", images=PIXELS, labels=LABELS)
    return folder / "own.npz", None


def as_two_arrays(folder: Path) -> tuple[Path, Path]:
    np.save(folder / "images.npy", PIXELS)
    np.save(folder / "labels.npy", LABELS)
    return folder / "images.npy", folder / "labels.npy"


def as_safetensors(folder: Path) -> tuple[Path, None]:
    save_file({"images": torch.from_numpy(PIXELS), "labels": torch.from_numpy(LABELS)}, folder / "own.safetensors")
    return folder / "own.safetensors", None


@pytest.mark.parametrize("write", [as_npz, as_two_arrays, as_safetensors])
def test_arrays_come_back_as_they_are(write: Any, tmp_path: Path) -> None:
    split = read_own(*write(tmp_path))
    assert torch.equal(split.images, torch.from_numpy(PIXELS))
    assert split.labels.tolist() == LABELS.tolist()
    assert split.labels.dtype == torch.int64


def test_the_classes_of_a_folder_are_numbered_by_name(tmp_path: Path) -> None:
    for name, level in (("b", 200), ("a", 10)):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((4, 5), level, np.uint8)).save(tmp_path / name / "one.png")
    split = read_own(tmp_path)
    assert [int(image[0, 0, 0]) for image in split.images] == [10, 200]
    assert split.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="whose classes are its labels"):
        read_own(tmp_path, tmp_path / "labels.npy")


def test_a_draw_names_the_places_it_took(tmp_path: Path) -> None:
    split = read_own(*as_npz(tmp_path))
    images, labels, places = draw(split, 4, 7)
    assert torch.equal(images, split.images[places])
    assert torch.equal(labels, split.labels[places])
    assert len(set(places.tolist())) == 4
    assert torch.equal(draw(split, 4, 7)[2], places)
    assert len(draw(split, None, 0)[2]) == len(draw(split, 99, 0)[2]) == 6


WRONG = {
    "another shape": ({"images": PIXELS[:, 0], "labels": LABELS}, r"\(6, 4, 5\): expected \(N, C, H, W\)"),
    "whole numbers that are no pixels": ({"images": PIXELS.astype(np.int32), "labels": LABELS}, "expected uint8"),
    "pixels above 1": ({"images": PIXELS.astype(np.float32), "labels": LABELS}, "expected 0 to 1"),
    "NaN": ({"images": np.full((6, 1, 2, 2), np.nan), "labels": LABELS}, "pixels from nan"),
    "too few labels": ({"images": PIXELS, "labels": LABELS[:5]}, r"shape \(5,\) .* for 6 images"),
    "labels that are no whole numbers": ({"images": PIXELS, "labels": LABELS / 2}, "expected whole numbers.*'inputs'"),
    "no labels": ({"images": PIXELS}, "holds images, and no 'labels'"),
    "other names": ({"x": PIXELS, "y": LABELS}, "holds x, y, and no 'images'"),
    "a pickle": ({"images": PIXELS.astype(object), "labels": LABELS}, "cannot be read as arrays"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case: str, tmp_path: Path) -> None:
    arrays, message = WRONG[case]
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_own(tmp_path / "own.npz")


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    for name, content in (
        ("a.npz", b"PK no zip"),
        ("a.npy", b"nothing"),
        ("a.safetensors", b"x" * 20),
        ("a.csv", b"1,2"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=r"with the arrays 'images' and 'labels'"):
            read_own(tmp_path / name)
    for name in ("missing.npz", "missing"):
        with pytest.raises(DataError, match=f"{name}: no such file or folder: give a folder CLASS"):
            read_own(tmp_path / name)


def test_a_zip_file_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stabdeq.data.own_images.MOST_BYTES", 100_000)
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((1000, 1, 20, 20), np.uint8), labels=np.zeros(1000, int))
    assert (tmp_path / "bomb.npz").stat().st_size < 10_000
    with pytest.raises(DataError, match="it unpacks to"):
        read_own(tmp_path / "bomb.npz")


@pytest.mark.parametrize(("place", "flag"), [(8, 1), (10, 99)])
def test_an_entry_that_cannot_be_unpacked(place: int, flag: int, tmp_path: Path) -> None:
    """Encrypted, or packed by a method that there is not."""
    content = bytearray(as_npz(tmp_path)[0].read_bytes())
    entry = content.find(b"PK\x01\x02")
    content[entry + place] = content[place - 2] = flag
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as arrays"):
        read_own(tmp_path / "own.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["images.npy", "images"])
def test_a_zip_file_with_two_arrays_of_one_name(second: str, tmp_path: Path) -> None:
    path, _ = as_npz(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(second, archive.read("labels.npy"))
    with pytest.raises(DataError, match=r"the key 'images' stands twice"):
        read_own(path)


def test_a_safetensors_file_with_two_arrays_of_one_name(tmp_path: Path) -> None:
    path, _ = as_safetensors(tmp_path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    again = content[8 : 8 + size].strip()[:-1] + b"," + content[8 : 8 + size].strip()[1:]
    path.write_bytes(len(again).to_bytes(8, "little") + again + content[8 + size :])
    with pytest.raises(DataError, match=r"the key '(images|labels)' stands twice"):
        read_own(path)


def test_numbers_of_8_bits_are_no_pixels(tmp_path: Path) -> None:
    pixels = torch.zeros(6, 1, 4, 5).to(torch.float8_e4m3fn)
    save_file({"images": pixels, "labels": torch.from_numpy(LABELS)}, tmp_path / "own.safetensors")
    with pytest.raises(DataError, match="float8_e4m3fn: expected uint8, or floating"):
        read_own(tmp_path / "own.safetensors")


def test_a_file_that_promises_more_than_it_holds(tmp_path: Path) -> None:
    """A header of 128 bytes that asks for 64 TiB, alone and in a zip file."""
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (2**40, 1, 8, 8)}
    np.lib.format.write_array_header_1_0(header, shape)
    (tmp_path / "huge.npy").write_bytes(header.getvalue())
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    for name in ("huge.npy", "huge.npz"):
        with pytest.raises(DataError, match="cannot be read as arrays"):
            read_own(tmp_path / name)


def test_folders_are_the_classes_of_a_checkpoint(tmp_path: Path) -> None:
    for name in ("3", "7"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((4, 5), 10 * int(name), np.uint8)).save(tmp_path / name / "one.png")
    split = read_own(tmp_path, classes=tuple("0123456789"))
    assert split.labels.tolist() == [3, 7]
    assert [int(image[0, 0, 0]) for image in split.images] == [30, 70]
    with pytest.raises(DataError, match="'7' is no class of the checkpoint"):
        read_own(tmp_path, classes=("3", "4"))
