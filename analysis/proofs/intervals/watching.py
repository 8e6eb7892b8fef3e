"""Who is told how far a search on boxes has come, so that a person sees that a long one goes on.

It is a variable of the context, not an argument: what is told changes no search, and a dozen functions lie between a command and the loop.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor


class Boxes(NamedTuple):
    """How far a search has come: boxes ``examined``, those still ``open``, and the ``share`` of the volume it began with that is closed.

    Volume is counted by halvings, so that the share says little of the time left where some of the region is much harder than the rest.
    """

    examined: int
    open: int
    share: float


_told: ContextVar[Callable[[Boxes], object] | None] = ContextVar("_told", default=None)


@contextmanager
def watched(tell: Callable[[Boxes], object]) -> Iterator[None]:
    """Let ``tell`` be called after each batch of boxes that is examined within the block."""
    token = _told.set(tell)
    try:
        yield
    finally:
        _told.reset(token)


def told(examined: int, shares: Tensor) -> None:
    """Tell whoever watches that so many boxes were examined; ``shares`` (B,) are those of the boxes still open."""
    tell = _told.get()
    if tell is not None:
        tell(Boxes(examined, len(shares), 1 - float(shares.sum())))
