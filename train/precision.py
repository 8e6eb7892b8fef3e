"""Training with the extractor in bfloat16, for GPUs and for CPUs that multiply it (AMX, AVX-512 BF16)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from stabdeq.cpu_features import multiplies_bfloat16

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PrecisionName = Literal["auto", "float32", "bfloat16"]


def precision_of(
    precision: PrecisionName, backbone: "nn.Module", device: "torch.device"
) -> Literal["float32", "bfloat16"]:
    """Return the precision of ``backbone`` on ``device``; "auto" is bfloat16 where that is faster.

    That is for a ``ResNet`` on a CPU with instructions for it (docs/results, CIFAR-10).
    """
    from stabdeq.backbones import ResNet  # recipes, which name a precision, are read without torch

    if precision != "auto":
        return precision
    return "bfloat16" if isinstance(backbone, ResNet) and device.type == "cpu" and multiplies_bfloat16() else "float32"


@contextmanager
def backbone_in(precision: PrecisionName, backbone: "nn.Module", device: "torch.device") -> Iterator[None]:
    """Let ``backbone`` compute in ``precision`` within; its weights stay float32, as do the cell, the solver, V and the head.

    "bfloat16" is torch's autocast: convolutions and matrix products round to 8 bits, sums and statistics do not.
    """
    if precision_of(precision, backbone, device) == "float32":
        yield
        return
    import torch

    plain = backbone.forward

    def forward(x: "Tensor") -> "Tensor":
        with torch.autocast(device.type, torch.bfloat16):
            return plain(x)

    backbone.forward = forward
    try:
        yield
    finally:
        del backbone.forward  # the instance's; the class's own is seen again
