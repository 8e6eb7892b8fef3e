"""A batch of training whose rows lie in several processes: what is one number or one draw for all of them.

Within ``shared`` a tensor (B, *) holds this process's rows of the batch. What samples have in common is then found among all
processes, by functions that each of them must call alike, as often and in the same order; they return the same bits to each.
Outside it a batch is whole, and they say what torch says.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from stabdeq import processes

# How many rows each process has; None where a batch is whole. No context variable: on a GPU, a backward pass has its own thread.
_sizes: tuple[int, ...] | None = None


@contextmanager
def shared(total: int) -> Iterator[slice]:
    """Let batches be shared within the block, and yield which of their ``total`` rows are this process's; all where it is alone."""
    global _sizes
    _sizes = processes.sizes(total) if processes.count() > 1 else None
    try:
        yield processes.rows(total)
    finally:
        _sizes = None


def is_shared() -> bool:
    """Return whether the batch at hand lies in several processes."""
    return _sizes is not None


def size(own: int) -> int:
    """Return how many numbers the batch has, of which ``own`` are of this process's rows, each of as many."""
    return own if _sizes is None else own // _sizes[processes.place()] * sum(_sizes)


def largest(values: Tensor, dim: int = 0) -> Tensor:
    """Return the largest of ``values`` along ``dim``, which the samples lie along; NaN where one is NaN."""
    own = values.amax(dim)
    return own if _sizes is None else processes.gathered(own).amax(0)


def is_any(samples: Tensor) -> Tensor:
    """Return whether any of the ``samples`` (B,) bool is, () bool."""
    own = samples.any()
    return own if _sizes is None else processes.gathered(own.to(torch.uint8)).bool().any()


def whole(own: Tensor) -> Tensor:
    """Return the rows of the whole batch, of which ``own`` (B, *) are this process's; no gradient flows through it."""
    if _sizes is None:
        return own
    padded = own.new_zeros(max(_sizes), *own.shape[1:])
    padded[: len(own)] = own
    return torch.cat([part[:rows] for part, rows in zip(processes.gathered(padded), _sizes, strict=True)])


def own_rows(batch: Tensor, dim: int = 0) -> Tensor:
    """Return this process's rows of the whole ``batch``, which lie along ``dim``."""
    if _sizes is None:
        return batch
    start = sum(_sizes[: processes.place()])
    return batch.narrow(dim, start, _sizes[processes.place()])


def drawn(draw: Callable[[Sequence[int]], Tensor], shape: Sequence[int], dim: int = 0) -> Tensor:
    """Return random numbers of ``shape``, the samples along ``dim``, that ``draw`` makes.

    They are drawn for the whole batch, so that no sample's depend on how many processes there are. A generator then stands where
    it does in all of them.
    """
    wider = list(shape)
    wider[dim] = size(shape[dim])
    found = own_rows(draw(wider), dim)
    assert found.shape == torch.Size(shape), "random numbers for some of a process's rows"
    return found


def mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance of each channel, both (C,), of a batch ``x`` (B, C, *); differentiable.

    A process's gradient is that of the sum over all processes of what they compute with them.
    """
    variance, mean = torch.var_mean(x, dim=[0, *range(2, x.dim())], correction=0)
    if _sizes is None:
        return mean, variance
    means, variances = _Gathered.apply(torch.stack([mean, variance])).unbind(1)  # (processes, C)
    parts = means.new_tensor(_sizes)[:, None] / sum(_sizes)
    mean = (parts * means).sum(0)
    return mean, (parts * (variances + (means - mean).square())).sum(0)


def normalised(x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return what BatchNorm in training mode makes of ``x`` (B, C, *), and the mean and biased variance (C,) that it does it by."""
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    mean, variance = mean_and_variance(wide)
    scale = (variance + epsilon).rsqrt()
    scale = scale if weight is None else scale * weight
    channels = (1, -1, *[1] * (x.dim() - 2))
    normal = (wide - mean.view(channels)) * scale.view(channels)
    normal = normal if bias is None else normal + bias.view(channels)
    return normal.to(x.dtype), mean.detach(), variance.detach()


class _Gathered(torch.autograd.Function):
    """The tensors (*) of all processes, (processes, *), and the gradient of each from what all of them do with it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return processes.gathered(own)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:  # pyrefly: ignore
        return processes.summed(grad_outputs[0])[processes.place()]
