"""The processes that train one model together, and what they tell each other; a process alone is the first of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stabdeq.errors import LostProcessError


def count() -> int:
    """Return how many processes there are: those of torch.distributed's default group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def place() -> int:
    """Return which of them this is, from 0."""
    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Return whether this is the process that prints and writes."""
    return place() == 0


def sizes(total: int) -> tuple[int, ...]:
    """Return how many of ``total`` rows each process takes, as evenly as they go, the first ones one more.

    >>> sizes(3)
    (3,)
    """
    each, more = divmod(total, count())
    return tuple(each + (process < more) for process in range(count()))


def rows(total: int) -> slice:
    """Return which of ``total`` rows this process takes: each is one process's, and their order is that of the processes."""
    ends = (0, *accumulate(sizes(total)))
    return slice(ends[place()], ends[place() + 1])


def gathered(tensor: Tensor) -> Tensor:
    """Return the ``tensor`` (*) of each process, all of one shape, in their order, (processes, *). Raises LostProcessError."""
    if count() == 1:
        return tensor[None]
    found = tensor.new_empty(count(), *tensor.shape)
    with _answered():
        dist.all_gather(list(found.unbind()), tensor.contiguous())
    return found


def summed(tensor: Tensor) -> Tensor:
    """Return the sum of the ``tensor`` of each process, all of one shape: the same bits in all. Raises LostProcessError."""
    if count() == 1:
        return tensor
    found = tensor.clone(memory_format=torch.contiguous_format)
    with _answered():
        dist.all_reduce(found)
    return found


def of_the_first(value: Any) -> Any:
    """Return the ``value`` of the first process, pickled where it is another's. Raises LostProcessError."""
    if count() == 1:
        return value
    values = [value if is_first() else None]
    with _answered():
        dist.broadcast_object_list(values)
    return values[0]


def wait() -> None:
    """Wait until all processes are here. Raises LostProcessError."""
    if count() > 1:
        with _answered():
            dist.barrier()


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # gloo's and NCCL's, of whatever kind
        reason = str(error).partition(". ")[0].split("] ", 1)[-1]  # without the place in gloo's own code
        raise LostProcessError(
            f"process {place() + 1} of {count()} has lost another, which ended or does not answer ({reason})"
        ) from error
