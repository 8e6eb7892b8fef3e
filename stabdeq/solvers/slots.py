"""Vectors of a solver's history, one slot (B, n) beside the other, so that all arithmetic on them is contiguous."""

import torch
from torch import Tensor

from stabdeq.solvers.solution import accumulation_dtype

# From so many components of a state, or of all states, no product of all slots is written out: it takes memory as they do, and time.
LONG, MANY = 512, 2**16


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
    if _is_large(slots, dtype) or (_is_plain(slots, dtype) and slots.shape[2] >= LONG):
        return torch.matmul(vector[:, None], slots.permute(1, 2, 0))[:, 0].T
    return (slots * vector.to(dtype)).sum(2)  # the product of two halves may overflow


def add_combination(start: Tensor, weights: Tensor, slots: Tensor) -> Tensor:
    """Return ``start`` (B, n) plus the sum of ``slots`` (w, B, n) with ``weights`` (w, B), in the dtype of ``start``."""
    if not _is_large(slots, weights.dtype):
        return start + (weights[:, :, None] * slots).sum(0).to(start.dtype)
    first, *others = zip(weights[:, :, None], slots, strict=True)
    total = torch.addcmul(start, *first)
    for weight, slot in others:
        total.addcmul_(weight, slot)
    return total


def _is_large(slots: Tensor, dtype: torch.dtype) -> bool:
    return _is_plain(slots, dtype) and slots[0].numel() >= MANY


def _is_plain(slots: Tensor, dtype: torch.dtype) -> bool:
    # Compiled, product and sum are one loop without memory of its own.
    return slots.dtype == dtype and not torch.compiler.is_compiling()
