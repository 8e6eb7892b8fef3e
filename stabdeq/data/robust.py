"""Robust data sets: training images that hold the features of a robust model alone (Ilyas et al. 2019, arXiv 1905.02175)."""

from pathlib import Path

import torch
from torch import Tensor

from stabdeq.data.tensor_file import read_tensor
from stabdeq.errors import DataError

IMAGES_NAME, LABELS_NAME = "CIFAR_ims", "CIFAR_lab"  # as released, whatever the images


def read_robust(folder: Path) -> tuple[Tensor, Tensor]:
    """Return the images (N, C, H, W), uint8, and labels (N,), int64, of the two files in ``folder``.

    The files hold floats in [0, 1], which are rounded to the nearest of 256 levels: half a level, 0.002, is far below what
    the images were changed by. Raises DataError where a file is missing, or holds something else.
    """
    for name in (IMAGES_NAME, LABELS_NAME):
        if not (folder / name).is_file():
            raise DataError(
                f"no robust data: looked for {folder / name}; put the files {IMAGES_NAME} and {LABELS_NAME} of Ilyas et al. "
                "there, or make them with `stabdeq robust-data CHECKPOINT --out DIR`"
            )
    images, labels = read_tensor(folder / IMAGES_NAME), read_tensor(folder / LABELS_NAME)
    if images.dim() != 4 or images.dtype not in (torch.float32, torch.uint8):
        raise DataError(
            f"{folder / IMAGES_NAME}: expected images (N, C, H, W) of floats in [0, 1] or of uint8, not "
            f"{tuple(images.shape)} of {images.dtype}"
        )
    if labels.dim() != 1 or labels.dtype != torch.int64:
        raise DataError(
            f"{folder / LABELS_NAME}: expected labels (N,) of int64, not {tuple(labels.shape)} of {labels.dtype}"
        )
    return (_to_bytes(images, folder / IMAGES_NAME) if images.is_floating_point() else images), labels


def _to_bytes(images: Tensor, path: Path) -> Tensor:
    parts = images.split(1000)  # the floats alone take 600 MB on CIFAR
    outside = sum(int((~((part >= 0) & (part <= 1))).sum()) for part in parts)  # NaN counts: it fails both comparisons
    if outside:
        raise DataError(
            f"{path}: {outside} of {images.numel()} pixels are NaN or outside [0, 1]: get the file anew, or divide its "
            "levels by 255"
        )
    return torch.cat([(part * 255).round().to(torch.uint8) for part in parts])
