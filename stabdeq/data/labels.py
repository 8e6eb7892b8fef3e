"""What labels must be: one whole number for each image, the place of one of the model's classes."""

import torch
from torch import Tensor

from stabdeq.errors import DataError


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise DataError unless ``labels`` (N,), of any whole-number dtype, all lie from 0 to ``classes`` - 1."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"labels of {labels.dtype}: expected whole numbers, 0 to {classes - 1}, such as torch.int64")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise DataError(
            f"labels from {lowest} to {highest} for a model of {classes} {'class' if classes == 1 else 'classes'}: expected 0 to "
            f"{classes - 1}; are these the data it was trained on?"
        )
