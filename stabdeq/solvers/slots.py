"""Vectors of a solver's history, one slot (B, n) beside the other, so that all arithmetic on them is contiguous."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from stabdeq.solvers.solution import accumulation_dtype

LONG = 256  # components from which a batched matrix product is faster than a product of all and its sums


def write(slots: Tensor, slot: int | Tensor, value: Tensor | float, dim: int = 0) -> None:
    """Write ``value`` into one of ``slots`` along ``dim``: a number, or in compiled code a tensor (1,)."""
    if isinstance(slot, Tensor):
        if isinstance(value, Tensor):
            slots.index_copy_(dim, slot, value.unsqueeze(dim))
        else:
            slots.index_fill_(dim, slot, value)
    elif isinstance(value, Tensor):  # many times faster than by index
        slots.select(dim, slot).copy_(value)
    else:
        slots.select(dim, slot).fill_(value)


def difference(slots: Tensor, slot: int | Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return ``a`` - ``b``, to be written into one of ``slots``: at its place at once where that needs no memory."""
    return torch.sub(a, b, out=slots[slot]) if isinstance(slot, int) else a - b


def write_quotient(slots: Tensor, slot: int | Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Write ``a`` / ``b`` into one of ``slots``, and return it."""
    if isinstance(slot, int):
        return torch.div(a, b, out=slots[slot])
    quotient = (a / b).to(slots.dtype)
    write(slots, slot, quotient)
    return quotient


def inner(slots: Tensor, vector: Tensor) -> Tensor:
    """Return the inner products (w, B) of ``slots`` (w, B, n) with ``vector`` (B, n), in float32 at least."""
    dtype = accumulation_dtype(vector.dtype)
    if _are_long(slots, dtype):
        with _uncast(slots.device.type):
            return torch.bmm(vector[:, None], slots.permute(1, 2, 0))[:, 0].T
    return (slots * vector.to(dtype)).sum(2)  # the product of two halves may overflow


def less_combined(vector: Tensor, weights: Tensor, slots: Tensor) -> Tensor:
    """Return ``vector`` (B, n) less the sum of ``slots`` (w, B, n) with ``weights`` (w, B)."""
    if _are_long(slots, weights.dtype):
        with _uncast(slots.device.type):
            # Of any other strides, even those that ``contiguous`` leaves to a single slot, the product is ten times slower.
            by_sample = weights.T.clone(memory_format=torch.contiguous_format)[:, None]
            return torch.baddbmm(vector[:, None], by_sample, slots.transpose(0, 1), alpha=-1)[:, 0]
    return (vector - (weights[:, :, None] * slots).sum(0)).to(vector.dtype)


def _uncast(device: str) -> AbstractContextManager[object]:
    # The context costs as much as a product.
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _are_long(slots: Tensor, dtype: torch.dtype) -> bool:
    # Compiled, product and sum are one loop without memory of its own.
    return slots.shape[2] >= LONG and slots.dtype == dtype and not torch.compiler.is_compiling()
