"""Branch and bound: a claim about every state of a region, proved on boxes that are halved until each proves itself."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from analysis.proofs.intervals.watching import told

BOXES_AT_ONCE = 1024
FEW = 64  # boxes take a batch no longer than one does: so many are halved twice at once


@dataclass(frozen=True)
class Examined:
    """What was found on a batch of boxes.

    ``closed`` (B,): the claim holds all over the box. ``violated`` (B,): it surely fails at the box's middle.
    ``weights`` (B, n) >= 0: how much each side's length adds to the doubt; where not finite, the lengths alone decide.
    ``within``, where given, are corners (B, n), (B, n) of smaller boxes outside which the claim holds too: of a box left open, no more
    than that is searched.
    """

    closed: Tensor
    violated: Tensor
    weights: Tensor
    within: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Cover:
    """How a search ended: how many boxes were examined, and, unless all were closed, why and around which ``state``.

    ``fails``: the inequality surely fails at that state. ``turned``: not all boxes were along the axes.
    """

    boxes: int
    fault: str = ""
    state: tuple[float, ...] = ()
    fails: bool = False
    turned: bool = False


def cover(
    low: Tensor,
    high: Tensor,
    examine: Callable[[Tensor, Tensor], Examined],
    *,
    max_boxes: int,
    deadline: float = math.inf,
    at_once: int = BOXES_AT_ONCE,
) -> Cover:
    """Examine the boxes between ``low`` and ``high`` (B, n), ``at_once`` in a batch, and halve those left open until none is left.

    Effort is counted in boxes, so that a busy machine changes nothing; ``deadline``, a time of ``time.monotonic``, is a stop
    besides. Halves share their border, so that nothing is lost between them.
    """
    count, share = 0, equal_shares(len(low))
    while len(low):
        fault = spent(count, len(low), max_boxes, deadline)
        if fault:
            return _stopped(low, high, count, fault)
        batch_low, batch_high = low[-at_once:], high[-at_once:]
        batch_share, share = share[-at_once:], share[:-at_once]
        low, high = low[:-at_once], high[:-at_once]
        found = examine(batch_low, batch_high)
        count += len(batch_low)
        if bool(found.violated.any()):
            at = found.violated
            return replace(_stopped(batch_low[at], batch_high[at], count, "the inequality fails"), fails=True)
        within = (batch_low, batch_high) if found.within is None else found.within
        open_low, open_high = (corner[~found.closed] for corner in within)
        weights, open_share = found.weights[~found.closed], batch_share[~found.closed]
        for _ in range(2 if len(open_low) < FEW else 1):
            halves = halved(open_low, open_high, weights)
            if halves is None:
                return _stopped(open_low, open_high, count, "a box too small to halve stayed open")
            (open_low, open_high), weights, open_share = halves, weights.repeat(2, 1), (open_share / 2).repeat(2)
        low, high = torch.cat([low, open_low]), torch.cat([high, open_high])
        share = torch.cat([share, open_share])
        told(count, share)
    return Cover(count)


def equal_shares(count: int) -> Tensor:
    """Return the shares (count,) of so many boxes that a search begins with."""
    return torch.full((count,), 1 / max(1, count), dtype=torch.float64)


def spent(count: int, left: int, max_boxes: int, deadline: float) -> str:
    """Return why a search ends after ``count`` boxes, with so many ``left``; nothing where it goes on."""
    if count >= max_boxes:
        return still_open(left, max_boxes)
    return f"the time was up, with {left} still open (give more: --budget)" if time.monotonic() > deadline else ""


def still_open(left: int, max_boxes: int, outlook: str = "") -> str:
    return f"{left} are still open{outlook} (give more: --boxes {8 * max_boxes})"


def middle(low: Tensor, high: Tensor) -> Tensor:
    """Return a point of each box (B, n), as near its middle as rounding allows."""
    return torch.minimum(torch.maximum(low + (high - low) / 2, low), high)


def halved(low: Tensor, high: Tensor, weights: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return both halves of each box, cut across the side of most doubt; None where no side has a number inside."""
    length = high - low
    doubt = torch.where(weights.isfinite().all(1, keepdim=True), weights, 1) * length
    # Of sides of nearly the same doubt, the longer one.
    doubt = doubt + 1e-3 * doubt.amax(1, keepdim=True) * length / length.amax(1, keepdim=True)
    cuts = middle(low, high)
    splits = (cuts > low) & (cuts < high)
    if not bool(splits.any(1).all()):
        return None
    side = doubt.masked_fill(~splits, -1).argmax(1, keepdim=True)
    cut = cuts.gather(1, side)
    return torch.cat([low, low.scatter(1, side, cut)]), torch.cat([high.scatter(1, side, cut), high])


def _stopped(low: Tensor, high: Tensor, count: int, fault: str) -> Cover:
    """Return the end of a search, at the smallest of the boxes given."""
    smallest = int((high - low).amax(1).argmin())
    state = middle(low, high)[smallest]
    return Cover(count, fault, tuple(state.tolist()))
