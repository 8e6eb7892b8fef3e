"""Folders of images: how they are split and read, and every bad one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import load, pixels, refusal, write_folder
from PIL import Image


def test_a_folder_with_train_and_test(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"dog": 4, "cat": 3})
    write_folder(tmp_path / "test", {"dog": 1, "cat": 2})
    (tmp_path / "other").mkdir()
    data = load("folder", tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.image_shape == (3, 5, 6)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert data.test.labels.tolist() == [0, 0, 1]
    expected = np.array(Image.open(tmp_path / "test" / "cat" / "001.png")).transpose(2, 0, 1)
    assert np.array_equal(data.test.images[1].numpy(), expected)


def test_a_folder_of_classes_is_split_80_to_20(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 20, "dog": 40})
    data = load("folder", tmp_path, validation=0.25)
    assert data.test.labels.bincount().tolist() == [4, 8]
    assert data.validation.labels.bincount().tolist() == [4, 8]
    assert data.train.labels.bincount().tolist() == [12, 24]
    everything = torch.cat([data.train.images, data.validation.images, data.test.images])
    assert len(everything.flatten(1).unique(dim=0)) == 60


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_folder(tmp_path, {"bus": 5, "train": 5})
    assert load("folder", tmp_path).classes == ("bus", "train")


@pytest.mark.parametrize("names", [("train", "val"), ("test", "validation"), ("Test", "Train")])
def test_parts_by_other_names_are_no_classes(names: tuple[str, str], tmp_path: Path) -> None:
    for name in names:
        write_folder(tmp_path / name, {"cat": 5, "dog": 5})
    message = refusal("folder", tmp_path)
    assert message.startswith(f"{tmp_path} holds {names[0]}, {names[1]} where train and test were expected: give")


def test_classes_of_these_names_hold_their_images_and_others_may_hold_folders(tmp_path: Path) -> None:
    write_folder(tmp_path / "named", {"test": 5, "train": 5})
    (tmp_path / "named" / "test").rename(tmp_path / "named" / "valid")
    assert load("folder", tmp_path / "named").classes == ("train", "valid")
    for name in ("bus", "train"):
        write_folder(tmp_path / "nested" / name, {"red": 3, "blue": 3})
    assert load("folder", tmp_path / "nested").classes == ("bus", "train")


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 5, "dog": 5})
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"settings of a file manager")
    (tmp_path / ".cache").mkdir()
    data = load("folder", tmp_path)
    assert data.classes == ("cat", "dog")
    assert len(data.train) + len(data.test) == 10


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_greyscale_images_have_one_channel(mode: str, tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 5, "dog": 5}, mode=mode)
    data = load("folder", tmp_path)
    assert data.image_shape == (1, 5, 6)
    grey = np.array(Image.open(tmp_path / "cat" / "000.png").convert("L"))
    assert (data.train.images[:, 0] == torch.from_numpy(grey)).all(dim=(1, 2)).any() or (
        data.test.images[:, 0] == torch.from_numpy(grey)
    ).all(dim=(1, 2)).any()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_one_image_in_colour_gives_all_three_channels(mode: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 5, "dog": 5}, mode=mode)
    write_folder(tmp_path / "test", {"cat": 2, "dog": 2})
    data = load("folder", tmp_path)
    assert data.image_shape == (3, 5, 6)
    expected = np.array(Image.open(tmp_path / "train" / "cat" / "000.png").convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(data.train.images[0].numpy(), expected)


def test_a_missing_folder(tmp_path: Path) -> None:
    assert str(tmp_path / "nothing") in refusal("folder", tmp_path / "nothing")


@pytest.mark.parametrize("counts", [{}, {"cat": 5}])
def test_too_few_classes(counts: dict[str, int], tmp_path: Path) -> None:
    write_folder(tmp_path, counts)
    message = refusal("folder", tmp_path)
    assert f"{tmp_path} holds {len(counts)} class folders" in message
    assert "<class>/<image files>" in message


def test_an_empty_class(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 5, "dog": 0})
    message = refusal("folder", tmp_path)
    assert message == f"{tmp_path}: the class folder 'dog' is empty: put images into it, or remove it"


def test_train_and_test_with_other_classes(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 2, "dog": 2})
    write_folder(tmp_path / "test", {"cat": 2, "fox": 2})
    assert "only one of them has dog, fox" in refusal("folder", tmp_path)


@pytest.mark.parametrize("counts", [{"cat": 20, "dog": 1}, {"cat": 1, "dog": 1}, {"cat": 500, "dog": 2}])
def test_a_class_too_small_to_split(counts: dict[str, int], tmp_path: Path) -> None:
    write_folder(tmp_path, counts, size=(2, 2))
    message = refusal("folder", tmp_path)
    assert "too few to set 0.2 of every class apart" in message
    assert "dog" in message or "cat" in message


def test_a_class_too_small_for_validation(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 10, "dog": 10})
    message = refusal("folder", tmp_path, validation=0.05)
    assert "for validation: add images, or set validation_fraction to 0" in message
    assert len(load("folder", tmp_path).train) == 16


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_first_image_of_another_size_is_named(part: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 3, "dog": 3}, size=(6, 5))
    write_folder(tmp_path / "test", {"cat": 3, "dog": 3}, size=(6, 5))
    for file in ("001.png", "002.png"):
        Image.new("RGB", (7, 5)).save(tmp_path / part / "dog" / file)
    message = refusal("folder", tmp_path)
    assert message.startswith(f"{tmp_path}/{part}/dog/001.png has 7x5 pixels where ")
    assert "train/cat/000.png has 6x5: resize all images to one size" in message


@pytest.mark.parametrize("name", ["notes.txt", "picture.png"])
@pytest.mark.parametrize("content", [b"", b"plain text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 5\n"])
def test_a_file_that_is_no_image(name: str, content: bytes, tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 5, "dog": 5})
    (tmp_path / "dog" / name).write_bytes(content)
    message = refusal("folder", tmp_path)
    assert message.startswith(f"{tmp_path}/dog/{name} cannot be read as an image")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tiff", "webp"])
def test_a_truncated_image(suffix: str, tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 5, "dog": 5}, size=(40, 40))
    path = tmp_path / "dog" / f"003.{suffix}"
    Image.fromarray(pixels(40, 40, 3)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refusal("folder", tmp_path).startswith(f"{path} cannot be read as an image")


def test_an_image_of_16_bits(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 5, "dog": 5}, mode="L")
    Image.fromarray(np.full((5, 6), 40000, dtype=np.uint16)).save(tmp_path / "dog" / "001.png")
    message = refusal("folder", tmp_path)
    assert str(tmp_path / "dog" / "001.png") in message
    assert "'I;16' where 8 bits a channel were expected" in message


def test_a_constant_channel(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            image = pixels(5, 6, 3, seed=i)
            image[..., 2] = 9
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    assert "every training pixel of channel 2 has the value 9" in refusal("folder", tmp_path)
