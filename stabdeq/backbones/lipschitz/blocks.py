"""Sums of many products as sums of sums of few, whose rounding, in whatever order, is bounded by that of few."""

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 64


def block_products(x: Tensor, weight: Tensor) -> Tensor:
    """Return what each ``BLOCK`` inputs add to x W', (blocks, B, outputs), for ``x`` (B, inputs), ``weight`` W (outputs, inputs)."""
    parts = zip(x.split(BLOCK, 1), weight.split(BLOCK, 1), strict=True)
    return torch.stack([functional.linear(*part) for part in parts])


def linear_in_blocks(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x W' + b, (B, outputs), for ``x`` (B, inputs), ``weight`` W (outputs, inputs) and ``bias`` b (outputs,)."""
    return block_products(x, weight).sum(0) + bias
