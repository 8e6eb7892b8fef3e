"""Data sets: their splits, statistics and batches, and every bad input."""

import gzip
import hashlib
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from stabdeq.config import DataConfig
from stabdeq.data import DataSet, Split, batches, load_data, resident, to_unit
from stabdeq.errors import ConfigError, DataError

SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"
NAMED_SETS = ["mnist", "svhn", "cifar10", "cifar100"]


def load(name: str, data_dir: Path | None = None, *, validation: float = 0.0, **options: Any) -> DataSet:
    return load_data(DataConfig(name=name, validation_fraction=validation), data_dir=data_dir, **options)


def refusal(*arguments: Any, **options: Any) -> str:
    """The message, in one line, of the DataError that loading must raise."""
    with pytest.raises(DataError) as caught:
        load(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def labels_of(count: int, classes: int) -> np.ndarray:
    return np.arange(count) % classes


# Tiny files in the formats of the downloads.


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def write_mnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part, count in (("train", 60), ("t10k", 20)):
        write_idx(root / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", pixels(count, 28, 28, seed=count))
        write_idx(root / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", labels_of(count, 10).astype(np.uint8))


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    sources = {}
    for part, count in (("train", 60), ("test", 20)):
        path = root / f"{part}_32x32.mat"
        labels = labels_of(count, 10)
        labels[labels == 0] = 10  # SVHN's label of the digit 0
        images = pixels(count, 3, 32, 32, seed=count).transpose(2, 3, 1, 0)
        savemat(path, {"X": images, "y": labels.astype(np.uint8)[:, None]})
        sources[part] = ["http://localhost.invalid/", path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", sources)


def write_cifar(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    folder = root / kind.base_folder
    folder.mkdir()
    classes = int(name.removeprefix("cifar"))
    key, names = ("labels", "label_names") if classes == 10 else ("fine_labels", "fine_label_names")

    def write(file: str, content: object) -> list[str]:
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
        return [file, md5(folder / file)]

    def write_batch(file: str, count: int, seed: int) -> list[str]:
        return write(file, {"data": pixels(count, 3072, seed=seed), key: labels_of(count, classes).tolist()})

    train = [write_batch(file, 4 * classes, seed) for seed, (file, _) in enumerate(kind.train_list)]
    test = [write_batch(kind.test_list[0][0], 2 * classes, 9)]
    meta = write(kind.meta["filename"], {names: [f"kind {i}" for i in range(classes)]})
    monkeypatch.setattr(kind, "train_list", train)
    monkeypatch.setattr(kind, "test_list", test)
    monkeypatch.setattr(kind, "meta", {"filename": meta[0], "key": names, "md5": meta[1]})


WRITERS: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "mnist": write_mnist,
    "svhn": write_svhn,
    "cifar10": lambda root, monkeypatch: write_cifar("cifar10", root, monkeypatch),
    "cifar100": lambda root, monkeypatch: write_cifar("cifar100", root, monkeypatch),
}
FIRST_FILES = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
    "svhn": "train_32x32.mat",
    "cifar10": "cifar-10-batches-py/data_batch_1",
    "cifar100": "cifar-100-python/train",
}


def write_folder(root: Path, counts: dict[str, int], *, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    """Write random PNG images of ``size`` (width, height): as many of each class as ``counts`` says."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
            image.convert(mode).save(root / name / f"{i:03}.png")


# Embedded digits.


def test_digits_are_split_80_to_20_and_stratified() -> None:
    data = load("digits", validation=0.1)
    assert data.image_shape == (1, 8, 8)
    assert (len(data.train), len(data.validation), len(data.test)) == (1293, 144, 360)
    for split in (data.train, data.validation, data.test):
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        shares = split.labels.bincount(minlength=10) / len(split)
        assert (shares - 0.1).abs().max() < 0.01
    assert int(data.train.images.max()) == 255
    assert data.classes == tuple("0123456789")


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data = load("digits", validation=0.05)
    parts = (data.train, data.validation, data.test)
    ours = torch.cat([torch.cat([part.images.flatten(1), part.labels[:, None]], dim=1) for part in parts])
    levels, labels = load_digits(return_X_y=True)
    rows = np.column_stack([np.rint(levels * 255 / 16), labels]).astype(np.int64)
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, rows.tolist()))


def test_splits_do_not_depend_on_any_seed() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first = load("digits", validation=0.05)
    torch.manual_seed(2)
    np.random.seed(2)
    second = load("digits", validation=0.05)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(first, part).images, getattr(second, part).images)
        assert torch.equal(getattr(first, part).labels, getattr(second, part).labels)


def test_the_split_of_the_digits_stays_the_same_between_releases() -> None:
    data = load("digits", validation=0.05)
    assert data.test.labels[:12].tolist() == [1, 4, 8, 6, 5, 9, 9, 1, 3, 2, 2, 2]
    assert data.validation.labels[:12].tolist() == [7, 1, 1, 3, 4, 6, 0, 7, 8, 1, 7, 0]


def test_the_test_split_does_not_depend_on_the_validation_fraction() -> None:
    assert torch.equal(load("digits").test.images, load("digits", validation=0.3).test.images)


def test_no_validation_leaves_an_empty_split() -> None:
    data = load("digits")
    assert len(data.validation) == 0
    assert data.validation.images.shape == (0, 1, 8, 8)
    assert len(data.train) == 1437
    assert list(batches(data.validation, 8)) == []


def test_statistics_are_those_of_the_training_images() -> None:
    data = load("digits", validation=0.05)
    scaled = to_unit(data.train.images, torch.float64)
    assert data.mean == pytest.approx([scaled.mean().item()], rel=1e-13)
    assert data.std == pytest.approx([scaled.std(correction=0).item()], rel=1e-13)


def test_statistics_of_each_channel(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 10, "b": 10})
    data = load("folder", tmp_path)
    scaled = to_unit(data.train.images, torch.float64)
    assert data.mean == pytest.approx(scaled.mean(dim=(0, 2, 3)).tolist(), rel=1e-13)
    assert data.std == pytest.approx(scaled.std(dim=(0, 2, 3), correction=0).tolist(), rel=1e-13)


# Named sets.


def test_real_mnist() -> None:
    if not (SHARED_DATA / "MNIST").is_dir():
        pytest.skip(f"no MNIST at {SHARED_DATA}")
    data = load("mnist", SHARED_DATA, validation=0.05)
    assert (len(data.train), len(data.validation), len(data.test)) == (57000, 3000, 10000)
    assert data.image_shape == (1, 28, 28)
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.mean == pytest.approx([0.1307], abs=2e-4)
    assert data.std == pytest.approx([0.3081], abs=2e-4)


def test_mnist_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    data = load("mnist", tmp_path)
    assert np.array_equal(data.train.images.numpy()[:, 0], pixels(60, 28, 28, seed=60))
    assert np.array_equal(data.test.images.numpy()[:, 0], pixels(20, 28, 28, seed=20))
    assert data.test.labels.tolist() == [*range(10), *range(10)]


def test_svhn_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(tmp_path, monkeypatch)
    data = load("svhn", tmp_path)
    assert np.array_equal(data.train.images.numpy(), pixels(60, 3, 32, 32, seed=60))
    assert np.array_equal(data.test.images.numpy(), pixels(20, 3, 32, 32, seed=20))
    assert data.test.labels.tolist() == [*range(10), *range(10)]
    assert data.train.labels.dtype == torch.int64


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(name, tmp_path, monkeypatch)
    classes = int(name.removeprefix("cifar"))
    data = load(name, tmp_path)
    assert data.image_shape == (3, 32, 32)
    assert data.classes == tuple(f"kind {i}" for i in range(classes))
    assert len(data.train) == 4 * classes * (5 if classes == 10 else 1)
    expected = pixels(4 * classes, 3072, seed=0).reshape(-1, 3, 32, 32)
    assert np.array_equal(data.train.images[: 4 * classes].numpy(), expected)
    assert data.test.labels.tolist() == [*range(classes)] * 2
    assert data.train.images.is_contiguous()


@pytest.mark.parametrize("name", NAMED_SETS)
def test_validation_of_a_named_set_is_stratified(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](tmp_path, monkeypatch)
    data = load(name, tmp_path, validation=0.5)
    counts = data.validation.labels.bincount(minlength=len(data.classes))
    assert (counts == counts[0]).all()
    assert torch.equal(counts, data.train.labels.bincount(minlength=len(data.classes)))
    assert len(data.test) == len(load(name, tmp_path).test)


def test_compressed_mnist_files_are_unpacked_by_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    write_mnist(tmp_path, monkeypatch)
    resources = []
    for path in sorted((tmp_path / "MNIST" / "raw").iterdir()):
        compressed = path.with_name(path.name + ".gz")
        compressed.write_bytes(gzip.compress(path.read_bytes()))
        resources.append((compressed.name, md5(compressed)))
        path.unlink()
    monkeypatch.setattr(MNIST, "resources", resources)
    assert "looked for" in refusal("mnist", tmp_path)
    assert len(load("mnist", tmp_path, download=True).train) == 60


@pytest.mark.parametrize("name", [*NAMED_SETS, "folder"])
def test_a_set_that_is_not_embedded_needs_a_folder(name: str) -> None:
    assert "--data-dir DIR" in refusal(name)


@pytest.mark.parametrize("name", NAMED_SETS)
def test_missing_data_name_the_path_and_the_command(name: str, tmp_path: Path) -> None:
    message = refusal(name, tmp_path / "my data")
    assert str(tmp_path / "my data" / FIRST_FILES[name]) in message
    assert f"`stabdeq train {name} --data-dir '{tmp_path}/my data' --download`" in message
    assert not (tmp_path / "my data").exists()


@pytest.mark.parametrize("name", NAMED_SETS)
def test_truncated_data_name_the_set_and_the_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](tmp_path, monkeypatch)
    path = tmp_path / FIRST_FILES[name]
    path.write_bytes(path.read_bytes()[:-10])
    message = refusal(name, tmp_path)
    assert message.startswith(f"{name} in {tmp_path} is truncated or corrupt: ")
    assert "--download" in message


@pytest.mark.parametrize("content", [b"", b"\0", b"\0\0\x08\x03", b"not an image file", b"\0\0\x0d\x01\0\0\0\0"])
def test_foreign_mnist_files_are_refused(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    (tmp_path / FIRST_FILES["mnist"]).write_bytes(content)
    assert "truncated or corrupt" in refusal("mnist", tmp_path)


@pytest.mark.parametrize("name", NAMED_SETS)
def test_a_failed_download_says_so(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*arguments: Any, **options: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    message = refusal(name, tmp_path, download=True)
    assert message.startswith(f"{name} could not be downloaded into {tmp_path}: ")
    assert "no route to host" in message
    assert FIRST_FILES[name] in message


class Trap:
    """Its pickle writes a file when it is loaded."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.witness, "code ran")


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_an_unverified_pickle_is_never_loaded(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar("cifar10", tmp_path, monkeypatch)
    witness = tmp_path / "witness"
    content = pickle.dumps(Trap(witness))
    (tmp_path / "cifar-10-batches-py" / file).write_bytes(content)
    assert "truncated or corrupt" in refusal("cifar10", tmp_path)
    assert not witness.exists()
    pickle.loads(content)
    assert witness.exists()  # the trap works


def test_old_pickled_mnist_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    processed = tmp_path / "MNIST" / "processed"
    processed.mkdir()
    for file in ("training.pt", "test.pt"):
        torch.save((torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(3).long()), processed / file)
    assert len(load("mnist", tmp_path).train) == 60


def test_mnist_files_that_do_not_belong_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    write_idx(tmp_path / "MNIST/raw/train-labels-idx1-ubyte", labels_of(59, 10).astype(np.uint8))
    assert "60 training images and 59 labels" in refusal("mnist", tmp_path)


def test_labels_out_of_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    write_idx(tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte", np.full(20, 10, dtype=np.uint8))
    assert "test labels from 10 to 10 where 0 to 9 were expected" in refusal("mnist", tmp_path)


def test_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    write_idx(tmp_path / "MNIST/raw/train-labels-idx1-ubyte", np.full(60, 3, dtype=np.uint8))
    assert "only 1 of the 10 classes" in refusal("mnist", tmp_path)


def test_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    for kind, array in (("images-idx3", pixels(0, 28, 28)), ("labels-idx1", pixels(0))):
        write_idx(tmp_path / "MNIST" / "raw" / f"t10k-{kind}-ubyte", array)
    assert "truncated or corrupt" in refusal("mnist", tmp_path)


def test_no_test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    write_svhn(tmp_path, monkeypatch)
    path = tmp_path / "test_32x32.mat"
    savemat(path, {"X": np.zeros((32, 32, 3, 0), np.uint8), "y": np.zeros((0, 1), np.uint8)})
    monkeypatch.setitem(SVHN.split_list, "test", ["http://localhost.invalid/", path.name, md5(path)])
    assert refusal("svhn", tmp_path) == "svhn: there are no test images"


def test_training_and_test_images_of_two_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    write_idx(tmp_path / "MNIST/raw/t10k-images-idx3-ubyte", pixels(20, 20, 28))
    message = refusal("mnist", tmp_path)
    assert "(1, 28, 28)" in message
    assert "(1, 20, 28)" in message


# Folders of images.


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
    assert str(tmp_path) in message
    assert "dog" in message


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


# Tensors.


def test_to_unit_maps_bytes_to_the_unit_interval() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert to_unit(levels).dtype == torch.float32
    assert torch.equal(to_unit(levels, torch.float64), torch.arange(256, dtype=torch.float64) / 255)
    assert to_unit(levels)[[0, 255]].tolist() == [0, 1]


def test_to_unit_refuses_floats() -> None:
    with pytest.raises(DataError, match=re.escape("uint8 images expected, got torch.float32")):
        to_unit(torch.rand(2))


def numbered(count: int) -> Split:
    """A split whose every image says its number, as its label does."""
    numbers = torch.arange(count)
    return Split(numbers.to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous(), numbers)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 15, 16, 17, 33])
@pytest.mark.parametrize("batch_size", [1, 2, 8, 100])
@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_hold_every_sample_once(count: int, batch_size: int, shuffled: bool) -> None:
    generator = torch.Generator().manual_seed(0) if shuffled else None
    sizes, seen = [], []
    for images, labels in batches(numbered(count), batch_size, generator=generator):
        assert images.dtype == torch.uint8
        assert torch.equal(images[:, 0, 0, 0].long(), labels)
        sizes.append(len(labels))
        seen.extend(labels.tolist())
    assert sorted(seen) == list(range(count))
    if not shuffled:
        assert seen == list(range(count))
    assert all(size == batch_size for size in sizes[:-1])
    merges = shuffled and batch_size > 1 and count > batch_size and count % batch_size == 1
    last = count % batch_size or batch_size
    assert sizes[-1:] == ([batch_size + 1] if merges else [last] if count else [])


def test_shuffling_follows_the_generator() -> None:
    def order(generator: torch.Generator) -> list[int]:
        return torch.cat([labels for _, labels in batches(numbered(50), 8, generator=generator)]).tolist()

    generator = torch.Generator().manual_seed(0)
    first, second = order(generator), order(generator)
    assert first != second
    assert first == order(torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_size_below_one(batch_size: int) -> None:
    with pytest.raises(ConfigError, match=f"batch size {batch_size}: expected 1 or more"):
        list(batches(numbered(4), batch_size))


def test_a_split_moves_as_a_whole() -> None:
    moved = numbered(3).to("meta")
    assert moved.images.device.type == "meta"
    assert moved.labels.device.type == "meta"
    assert len(moved) == 3


def test_residence_on_the_cpu_copies_nothing() -> None:
    split = numbered(3)
    assert resident(split, torch.device("cpu")).images.data_ptr() == split.images.data_ptr()


@pytest.mark.parametrize(("free", "fits"), [(72, True), (71, False)])
def test_residence_takes_at_most_half_of_the_free_memory(
    free: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = numbered(3)  # 12 bytes of pixels and 24 of labels
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 100)
    monkeypatch.setattr(Split, "to", lambda self, device: f"all on {device}")
    result = resident(split, torch.device("cuda", 0))
    if fits:
        assert result == "all on cuda:0"
    else:
        assert result.labels.tolist() == [100, 101, 102]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_of_a_resident_split_are_on_the_gpu() -> None:
    split = resident(numbered(9), torch.device("cuda", torch.cuda.current_device()))
    generator = torch.Generator().manual_seed(0)
    for (images, labels), (_, expected) in zip(
        batches(split, 4, generator=generator),
        batches(numbered(9), 4, generator=torch.Generator().manual_seed(0)),
        strict=True,
    ):
        assert images.is_cuda
        assert torch.equal(labels.cpu(), expected)
