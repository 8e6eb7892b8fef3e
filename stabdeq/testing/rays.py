"""Where rays from a centre leave a sublevel set of V."""

import torch
from torch import Tensor

from stabdeq.testing.functions import Value, value_of

DOUBLINGS = 64
BISECTIONS = 64


def beyond(V: Value, rays: Tensor, origin: Tensor, level: float) -> Tensor:
    """Return a state (B, n) along each ray, as far as ``rays`` (B, n) or further, that is not in {V <= ``level``}.

    Where the ray from ``origin`` (n,) has none within 2^64 times that distance, the state is in the set.
    """
    far = rays
    for _ in range(DOUBLINGS):
        inside = value_of(V, far) <= level
        if not bool(inside.any()):
            break
        far = torch.where(inside[:, None], origin + 2 * (far - origin), far)
    return far


def leaving(V: Value, outside: Tensor, origin: Tensor, level: Tensor | float) -> Tensor:
    """Return where the segment from ``origin`` (n,) to ``outside`` (B, n) leaves {V <= ``level``}: the first state out of it.

    By bisection: of several places, one. ``level`` is a number, or one a state, (B,).
    """
    low, high = torch.zeros_like(outside[:, :1]), torch.ones_like(outside[:, :1])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        # NaN counts as outside, so that the bisection ends where it begins.
        inside = (value_of(V, origin + middle * (outside - origin)) <= level)[:, None]
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return origin + high * (outside - origin)
