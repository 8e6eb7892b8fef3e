"""Tiny files in the formats of the downloads and folders of images, and how they are loaded."""

import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stabdeq.config import DataConfig
from stabdeq.data import DataSet, load_data
from stabdeq.errors import DataError


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


def write_folder(root: Path, counts: dict[str, int], *, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    """Write random PNG images of ``size`` (width, height): as many of each class as ``counts`` says."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
            image.convert(mode).save(root / name / f"{i:03}.png")
