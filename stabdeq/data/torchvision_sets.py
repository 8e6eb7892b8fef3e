"""MNIST, SVHN and CIFAR as torchvision stores them, read into tensors."""

import shlex
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

import torch

from stabdeq.data.batches import DIGIT_NAMES, Parts, Split
from stabdeq.errors import DataError

# What torchvision's readers raise on missing, truncated, corrupt or foreign files, and on a failed download.
READ_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AssertionError,
    EOFError,
    HTTPException,
    UnpicklingError,
)


def _read_mnist(root: Path, download: bool) -> Parts:
    from torchvision import datasets

    class MNIST(datasets.MNIST):  # the folder that torchvision looks in has the name of the class
        def _check_legacy_exist(self) -> bool:
            return False  # torchvision would unpickle processed/*.pt, which nobody has verified

    train, test = (MNIST(root, train=train, download=download) for train in (True, False))
    return (
        Split(train.data.unsqueeze(1), train.targets.long()),
        Split(test.data.unsqueeze(1), test.targets.long()),
        DIGIT_NAMES,
    )


def _read_svhn(root: Path, download: bool) -> Parts:
    from torchvision import datasets

    train, test = (datasets.SVHN(root, split=part, download=download) for part in ("train", "test"))
    return (
        Split(torch.from_numpy(train.data).contiguous(), torch.from_numpy(train.labels)),
        Split(torch.from_numpy(test.data).contiguous(), torch.from_numpy(test.labels)),
        DIGIT_NAMES,
    )


def _read_cifar(name: str, root: Path, download: bool) -> Parts:
    from torchvision import datasets

    # torchvision compares the files with published check sums before it unpickles any of them.
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    train, test = (kind(root, train=train, download=download) for train in (True, False))
    train_split, test_split = (
        Split(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in (train, test)
    )
    return train_split, test_split, tuple(train.classes)


READERS: dict[str, Callable[[Path, bool], Parts]] = {
    "mnist": _read_mnist,
    "svhn": _read_svhn,
    "cifar10": lambda root, download: _read_cifar("cifar10", root, download),
    "cifar100": lambda root, download: _read_cifar("cifar100", root, download),
}


# One file of each set, as torchvision stores it: says whether the set is missing, or there and unreadable.
EXPECTED_FILES = {
    "mnist": [
        f"MNIST/raw/{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ],
    "svhn": ["train_32x32.mat", "test_32x32.mat"],
    "cifar10": [
        f"cifar-10-batches-py/{file}"
        for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
    ],
    "cifar100": [f"cifar-100-python/{file}" for file in ("train", "test", "meta")],
}


def read_failure(name: str, root: Path, error: Exception, download: bool) -> DataError:
    """Tell apart a download that failed, data that are missing, and data that are there but unreadable."""
    cause = " ".join(str(error).split()) or type(error).__name__
    command = f"`stabdeq train {name} --data-dir {shlex.quote(str(root))} --download`"
    missing = [root / file for file in EXPECTED_FILES[name] if not (root / file).is_file()]
    if download and (missing or isinstance(error, URLError | HTTPException)):
        return DataError(
            f"{name} could not be downloaded into {root}: {cause}: "
            f"check the network, or put {', '.join(EXPECTED_FILES[name])} there yourself"
        )
    if missing:
        return DataError(f"no {name} data: looked for {missing[0]}; download them with {command}")
    return DataError(
        f"{name} in {root} is truncated or corrupt: {cause}; delete its files and download them again with {command}"
    )
