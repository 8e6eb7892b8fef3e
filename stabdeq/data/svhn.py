"""SVHN, cropped digits of house numbers, as torchvision stores it."""

from pathlib import Path

import torch

from stabdeq.data.batches import DIGIT_NAMES, Parts, Split
from stabdeq.data.downloaded import DownloadedSet


def _read(root: Path, download: bool) -> Parts:
    from torchvision import datasets

    train, test = (datasets.SVHN(root, split=part, download=download) for part in ("train", "test"))
    return (
        Split(torch.from_numpy(train.data).contiguous(), torch.from_numpy(train.labels)),
        Split(torch.from_numpy(test.data).contiguous(), torch.from_numpy(test.labels)),
        DIGIT_NAMES,
    )


SVHN = DownloadedSet("svhn", ("train_32x32.mat", "test_32x32.mat"), _read)
