"""Shrinking a witness: nearer to the centre, with fewer coordinates and rounder numbers, while it still violates."""

from collections.abc import Callable

import torch
from torch import Tensor

BISECTIONS = 20
DIGITS = 8
ONE_BY_ONE = 1024  # coordinates, beyond which their number is halved instead: n x n numbers would not fit memory


def shrink(state: Tensor, centre: Tensor, violates: Callable[[Tensor], Tensor], *, nearest: float = 0.0) -> Tensor:
    """Return a simpler state (n,) that ``violates`` accepts; ``state`` itself where none is found.

    ``violates`` maps (B, n) to a bool (B,) and accepts ``state``; let it ask for a clear margin, or the result lies on
    the border of what is a violation. No state nearer to ``centre`` (n,) than ``nearest`` is tried.
    """
    fewer = _simplest(_with_fewer_coordinates(state, centre), violates, state)
    nearer = _bisect(fewer, centre, violates, nearest)
    return _simplest(_rounder(nearer, centre), violates, nearer)


def rounded(states: Tensor, centre: Tensor) -> Tensor:
    """Return the states (B, n) with their offsets from the centre rounded to one decimal place, two, and so on.

    The place is relative to the offset's largest coordinate. The result is (8 B, n), the roundest states first.
    """
    offset = states - centre
    largest = offset.abs().amax(1, keepdim=True)
    unit = 10.0 ** torch.where(largest == 0, 1, largest).log10().floor()
    # Dividing by a power of ten, not multiplying by a negative one, keeps 0.3 the float that prints as 0.3.
    return torch.cat([centre + (offset / unit * 10.0**k).round() / (10.0**k / unit) for k in range(DIGITS)])


def _simplest(candidates: Tensor, violates: Callable[[Tensor], Tensor], otherwise: Tensor) -> Tensor:
    """Return the first candidate, simplest first, that violates."""
    accepted = violates(candidates).nonzero()
    return candidates[int(accepted[0])] if len(accepted) else otherwise


def _with_fewer_coordinates(state: Tensor, centre: Tensor) -> Tensor:
    """Return (n - 1, n): only the largest coordinate's offset kept, then the two largest, and so on; of many 1, 2, 4, 8."""
    offset = state - centre
    order = offset.abs().argsort(descending=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    kept = torch.arange(1, max(2, len(order)), device=order.device)
    if len(order) > ONE_BY_ONE:
        kept = 2 ** torch.arange((len(order) - 1).bit_length(), device=order.device)
    return torch.where(rank < kept[:, None], state, centre)


def _bisect(state: Tensor, centre: Tensor, violates: Callable[[Tensor], Tensor], nearest: float) -> Tensor:
    """Return the state pulled towards the centre along its ray as far as bisection finds it to violate."""
    distance = float((state - centre).norm())
    low, high = (min(1.0, nearest / distance), 1.0) if distance else (1.0, 1.0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if bool(violates((centre + middle * (state - centre))[None])[0]):
            high = middle
        else:
            low = middle
    return centre + high * (state - centre)


def _rounder(state: Tensor, centre: Tensor) -> Tensor:
    return rounded(state[None], centre)
