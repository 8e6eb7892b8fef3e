"""Random crops and mirror images of training batches."""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from stabdeq.shared_batch import drawn

CROP_PADDING = 4


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images ``(B, C, H, W)``, each cropped from itself framed in 4 pixels of 0, and mirrored or not.

    Every sample has its own crop (81 equally likely) and its own flip (left to right, one in two). The draws
    come from ``generator`` on the CPU whatever the device of the images, so that all devices see the same.
    Source: Chu et al., arXiv 2304.12707, Sec. 5.2; the 4 pixels, which it does not state, are usual on CIFAR.
    """
    count, channels, height, width = images.shape
    offsets = drawn(partial(torch.randint, 2 * CROP_PADDING + 1, generator=generator), (2, count, 1), dim=1)
    flipped = drawn(partial(torch.randint, 2, generator=generator), (count, 1)).bool().to(images.device)
    offsets = offsets.to(images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)  # (B, H)
    columns = offsets[1] + torch.arange(width, device=images.device)  # (B, W)
    columns = torch.where(flipped, columns.flip(1), columns)
    samples = torch.arange(count, device=images.device)
    planes = torch.arange(channels, device=images.device)
    return pad(images, [CROP_PADDING] * 4)[
        samples[:, None, None, None], planes[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]
