"""Plain steps z <- f(z), each sample until it rests: cheaper than a solver's where the way is short or f is cheap."""

from collections.abc import Callable

import torch
from torch import Tensor

from stabdeq.solvers import norm

STEPS = 64  # before a sample is given up
STRIDE = 4  # steps between two looks
FEW = 2**12  # state components below which samples that rest stay in the batch


@torch.no_grad()
def settle(
    f: Callable[..., Tensor], start: Tensor, rows: tuple[Tensor, ...], *, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Return the states (B, n) that steps z <- f(z, *rows) from ``start`` (B, n) lead to, and who came to rest, (B,) bool.

    A sample rests where a step's length is at most ``tolerance`` times the state's, or times 1 where that is larger. Its state
    does not depend on how long the others take. ``rows`` hold what f reads beside the state, a row for each sample.
    """
    found, rests = start.clone(), torch.zeros(len(start), dtype=torch.bool, device=start.device)
    z, moving = start, torch.arange(len(start), device=start.device)
    for _ in range(0, STEPS, STRIDE):
        before = z
        for _ in range(STRIDE):
            before, z = z, f(z, *rows)
        done = norm(z - before) <= tolerance * norm(before).clamp(min=1)
        new = done & ~rests[moving]
        found[moving[new]] = z[new]
        rests[moving[new]] = True
        if bool(rests.all()):
            break
        if z.numel() >= FEW and bool(done.any()):
            left = (~rests[moving]).nonzero().squeeze(1)
            z, moving, rows = z[left], moving[left], tuple(row[left] for row in rows)
    return found, rests
