"""Vectors of a solver's history, one slot (B, n) beside the other, so that all arithmetic on them is contiguous."""

import torch
from torch import Tensor

from stabdeq.solvers.solution import accumulation_dtype

LONG = 512  # components from which a batched matrix product is faster than a product of all and its sums


def write(slots: Tensor, slot: int | Tensor, value: Tensor, dim: int = 0) -> None:
    """Write ``value`` into one of ``slots`` along ``dim``: a number, or in compiled code a tensor (1,)."""
    if isinstance(slot, int):  # many times faster than by index
        slots.select(dim, slot).copy_(value)
    else:
        slots.index_copy_(dim, slot, value.unsqueeze(dim))


def write_difference(slots: Tensor, slot: int | Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Write ``a`` - ``b`` into one of ``slots``, and return it."""
    if isinstance(slot, int):  # at its place at once: no copy
        return torch.sub(a, b, out=slots[slot])
    difference = a - b
    write(slots, slot, difference)
    return difference


def read(slots: Tensor, slot: int | Tensor) -> Tensor:
    """Return one of ``slots`` (w, ...)."""
    return slots[slot] if isinstance(slot, int) else slots.index_select(0, slot)[0]


def inner(slots: Tensor, vector: Tensor) -> Tensor:
    """Return the inner products (w, B) of ``slots`` (w, B, n) with ``vector`` (B, n), in float32 at least."""
    dtype = accumulation_dtype(vector.dtype)
    if _are_long(slots, dtype):
        with torch.autocast(slots.device.type, enabled=False):
            return torch.matmul(vector[:, None], slots.permute(1, 2, 0))[:, 0].T
    return (slots * vector.to(dtype)).sum(2)  # the product of two halves may overflow


def combine(weights: Tensor, slots: Tensor) -> Tensor:
    """Return the sum (B, n) of ``slots`` (w, B, n) with ``weights`` (w, B)."""
    if _are_long(slots, weights.dtype):
        with torch.autocast(slots.device.type, enabled=False):
            return torch.matmul(weights.T[:, None], slots.permute(1, 0, 2))[:, 0]
    return (weights[:, :, None] * slots).sum(0)


def _are_long(slots: Tensor, dtype: torch.dtype) -> bool:
    # Compiled, product and sum are one loop without memory of its own.
    return slots.shape[2] >= LONG and slots.dtype == dtype and not torch.compiler.is_compiling()
