"""Training with the extractor in bfloat16, for GPUs and for CPUs that multiply it (AMX, AVX-512 BF16)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PrecisionName = Literal["float32", "bfloat16"]


@contextmanager
def backbone_in(precision: PrecisionName, backbone: "nn.Module", device: "torch.device") -> Iterator[None]:
    """Let ``backbone`` compute in ``precision`` within; its weights stay float32, as do the cell, the solver, V and the head.

    "bfloat16" is torch's autocast: convolutions and matrix products round to 8 bits, sums and statistics do not.
    """
    if precision == "float32":
        yield
        return
    import torch  # recipes, which name a precision, are read without it

    plain = backbone.forward

    def forward(x: "Tensor") -> "Tensor":
        with torch.autocast(device.type, torch.bfloat16):
            return plain(x)

    backbone.forward = forward
    try:
        yield
    finally:
        del backbone.forward  # the instance's; the class's own is seen again
