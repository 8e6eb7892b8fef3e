"""One training by several processes: joining those that torchrun started, and what can not be shared among them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import nn

from stabdeq import processes
from stabdeq.errors import ConfigError, LostProcessError, StabdeqError
from stabdeq.model import StabilisedDEQ
from stabdeq.shared_batch import is_shared
from train.objectives import RegisteredObjective
from train.recipe import Recipe


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun started, within the block; alone where it started none, or they are joined already.

    Where CUDA is available each has a GPU of its own. Where torchrun ends this process, since another ended, LostProcessError
    leaves the block. Raises StabdeqError where there are fewer GPUs than processes.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()) or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(_own_gpu())
    dist.init_process_group()
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
        dist.destroy_process_group()  # not after an error: it would wait for the others
    finally:
        # Of an error that is being told, torchrun's signal is to leave the rest.
        signal.signal(signal.SIGTERM, before if not dist.is_initialized() else signal.SIG_IGN)


def is_first_here() -> bool:
    """Return whether this is the first process on its machine."""
    return int(os.environ.get("LOCAL_RANK", processes.place())) == 0


def require_shareable(recipe: Recipe, model: StabilisedDEQ, images: int) -> None:
    """Raise ConfigError where several processes cannot train ``model`` on so many ``images`` as one process would."""
    count = processes.count()
    if count == 1:
        return
    fewest = min(size for size in (recipe.batch_size, images, _last_batch(images, recipe.batch_size)) if size)
    if fewest < count:
        raise ConfigError(
            f"the smallest batch of an epoch has {fewest} of {images} images (batch_size = {recipe.batch_size}), which {count} "
            f"processes cannot share: start {fewest} at most, or choose another --set batch_size="
        )
    if model.cell.couples_samples:
        if not model.cell.shares_batches:
            raise ConfigError(
                f"{type(model.cell).__name__} couples the samples of a batch, of which each process has a part: let it find what "
                "they share by stabdeq.shared_batch and set shares_batches = True, or train in one process"
            )
        if recipe.model.solver.compiled:
            raise ConfigError(
                "a compiled solver cannot ask the other processes for the statistics of a batch: leave out model.solver.compiled, "
                "or choose a cell without BatchNorm, such as --set model.cell=certified"
            )
    if isinstance(recipe.objective, RegisteredObjective):
        raise ConfigError(
            f"the objective {recipe.objective.name!r} is not one of stabdeq's, and may be no mean over a batch's samples: "
            "train in one process"
        )
    noisy = [type(part).__name__ for part in model.modules() if isinstance(part, nn.modules.dropout._DropoutNd)]
    if noisy:
        raise ConfigError(
            f"{noisy[0]} draws other numbers in each process: take it out of the backbone, or train in one process"
        )


def sum_gradients(model: StabilisedDEQ, is_lost: bool) -> bool:
    """Let each gradient of ``model`` on a shared batch be the sum over all processes, and return whether ``is_lost`` is so in any.

    In place of torch's DistributedDataParallel, which weighs all processes alike though one may have an image more, and knows
    nothing of what the backward pass of an equilibrium asks of the others.
    """
    if not is_shared():
        return is_lost
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), gradients[0].new_tensor([float(is_lost)])])
    *sums, lost = processes.summed(flat).split([*(gradient.numel() for gradient in gradients), 1])
    for gradient, found in zip(gradients, sums, strict=True):
        gradient.copy_(found.view_as(gradient))
    return bool(lost)


def _last_batch(images: int, batch_size: int) -> int:
    """Return the size of an epoch's last batch; 0 where it is one image, which joins the batch before it, or none is left."""
    left = images % batch_size
    return 0 if left == 1 and images > batch_size else left


def _own_gpu() -> int:
    place, wanted, found = (
        int(os.environ["LOCAL_RANK"]),
        int(os.environ["LOCAL_WORLD_SIZE"]),
        torch.cuda.device_count(),
    )
    if wanted > found:
        raise StabdeqError(
            f"{wanted} processes on a machine with {found} visible GPUs: each needs one, so give --nproc-per-node {found}, "
            "or CUDA_VISIBLE_DEVICES= (empty) to train on the CPU"
        )
    return place


def _end(number: int, frame: object) -> NoReturn:
    raise LostProcessError(
        f"process {processes.place() + 1} of {processes.count()} was ended (SIGTERM), as torchrun does when another process failed"
    )
