"""The 8 x 8 digits that ship with scikit-learn."""

from pathlib import Path

import torch

from stabdeq.data.batches import DIGIT_NAMES, Parts, Split
from stabdeq.data.stratified import TEST_FRACTION, divide


def read(data_dir: Path | None, download: bool) -> Parts:
    """Return the digits, their levels 0 to 16 as 0 to 255, 80 to 20; neither argument means anything to them."""
    from sklearn.datasets import load_digits

    levels, labels = load_digits(return_X_y=True)  # levels 0 to 16, (N, 64)
    images = (torch.from_numpy(levels) * (255 / 16)).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    whole = Split(images, torch.from_numpy(labels).long())
    return *divide("digits", whole, TEST_FRACTION, DIGIT_NAMES), DIGIT_NAMES
