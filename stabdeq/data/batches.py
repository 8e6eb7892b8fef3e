"""Images with their labels as tensors, and batches of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stabdeq.errors import ConfigError, DataError

DIGIT_NAMES = tuple("0123456789")


@dataclass(frozen=True, eq=False)
class Split:
    """Images ``(N, C, H, W)`` uint8 with their labels ``(N,)`` int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        """Return this split with its tensors on ``device``."""
        return Split(self.images.to(device), self.labels.to(device))


Parts = tuple[Split, Split, tuple[str, ...]]  # train (validation not yet taken out), test, names of the classes


def to_unit(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return uint8 images of any shape as floats in [0, 1]; raises DataError for images of another type."""
    if images.dtype != torch.uint8:
        raise DataError(f"uint8 images expected, got {images.dtype}: give pixels of 0 to 255, not yet scaled")
    return images.to(dtype) / 255


def batches(
    split: Split, batch_size: int, *, generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images ``(B, C, H, W)`` uint8 and labels ``(B,)``, every sample once, on the device of the split.

    Without a generator the samples come in order, as views of the split. With one (on the CPU) they are
    shuffled for training: a final batch of one joins the batch before it, as BatchNorm needs at least two.
    Raises ConfigError for a batch size below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size}: expected 1 or more")
    count = len(split)
    if generator is None:
        for start in range(0, count, batch_size):
            yield split.images[start : start + batch_size], split.labels[start : start + batch_size]
        return
    order = torch.randperm(count, generator=generator).to(split.labels.device)
    sizes = [min(batch_size, count - start) for start in range(0, count, batch_size)]
    if len(sizes) > 1 and count % batch_size == 1:
        sizes[-2:] = [batch_size + 1]
    for chosen in order.split(sizes):
        yield split.images[chosen], split.labels[chosen]


def resident(split: Split, device: torch.device) -> Split:
    """Return the split on ``device``, or as it is where it exceeds half of a GPU's free memory."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if split.images.nbytes + split.labels.nbytes > free / 2:
            return split
    return split.to(device)


def on_device(device: torch.device, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return images (B, *) and labels (B,) on ``device``: on a GPU through pinned memory, so that nobody waits for the copies."""

    def placed(tensor: Tensor) -> Tensor:
        tensor = tensor.pin_memory() if device.type == "cuda" and not tensor.is_cuda else tensor
        return tensor.to(device, non_blocking=True)

    return placed(images), placed(labels)
