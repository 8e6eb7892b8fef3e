"""BatchNorms of an extractor whose batch lies in several processes: statistics of all of it, on every device."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stabdeq.shared_batch import is_shared, normalised, size


@contextmanager
def shared_norms(network: nn.Module) -> Iterator[None]:
    """Let the BatchNorms of ``network`` take the whole batch's statistics in training mode within the block, where it is shared.

    torch's SyncBatchNorm is another class, in whose place a checkpoint's reader puts none, and does not run on a CPU.
    """
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm)] if is_shared() else []
    for norm in norms:
        norm.forward = partial(_forward, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward  # the instance's; the class's own is seen again


def _forward(norm: _BatchNorm, x: Tensor) -> Tensor:
    if not norm.training:
        return type(norm).forward(norm, x)
    normal, mean, variance = normalised(x, norm.weight, norm.bias, norm.eps)
    if norm.track_running_stats:
        _update(norm, mean, variance, size(x.numel() // x.shape[1]))
    return normal


@torch.no_grad()
def _update(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move the running statistics as torch does, towards the mean and the unbiased variance of ``count`` numbers."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * (count / (count - 1)), share)
