"""CIFAR10 and CIFAR100, as torchvision stores them."""

from functools import partial
from pathlib import Path

import torch

from stabdeq.data.batches import Parts, Split
from stabdeq.data.downloaded import DownloadedSet


def _read(name: str, root: Path, download: bool) -> Parts:
    from torchvision import datasets

    # torchvision compares the files with published check sums before it unpickles any of them.
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    train, test = (kind(root, train=train, download=download) for train in (True, False))
    train_split, test_split = (
        Split(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in (train, test)
    )
    return train_split, test_split, tuple(train.classes)


FILES_10 = tuple(
    f"cifar-10-batches-py/{file}" for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
)
FILES_100 = tuple(f"cifar-100-python/{file}" for file in ("train", "test", "meta"))
CIFAR10 = DownloadedSet("cifar10", FILES_10, partial(_read, "cifar10"))
CIFAR100 = DownloadedSet("cifar100", FILES_100, partial(_read, "cifar100"))
