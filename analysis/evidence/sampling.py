"""States drawn around a centre, each from a distribution that can be stated, and what a clean sample of them is worth.

All functions take an explicit generator, whose device the states are on, and return float64 (count, n).
"""

import torch
from torch import Tensor

# States at one part in a billion of the radius: next to the centre, and still far from rounding of the offset.
INNERMOST = 1e-9
SHELLS = 32


def directions(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Return unit vectors (count, dim), uniform on the sphere."""
    normal = torch.randn(count, dim, generator=generator, device=generator.device, dtype=torch.float64)
    return normal / normal.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def in_ball(count: int, centre: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Return states uniform by volume in the ball of ``radius`` around ``centre`` (n,)."""
    dim = centre.shape[0]
    fraction = torch.rand(count, 1, generator=generator, device=generator.device, dtype=torch.float64)
    return centre + radius * fraction ** (1 / dim) * directions(count, dim, generator)


def in_box(count: int, low: Tensor, high: Tensor, generator: torch.Generator) -> Tensor:
    """Return states uniform by volume between the corners ``low`` and ``high`` (n,)."""
    fraction = torch.rand(count, low.shape[0], generator=generator, device=generator.device, dtype=torch.float64)
    return low + (high - low) * fraction


def on_shells(count: int, centre: Tensor, smallest: float, largest: float, generator: torch.Generator) -> Tensor:
    """Return states on 32 shells around ``centre`` (n,), at log-spaced radii from ``smallest`` to ``largest``."""
    ends = torch.tensor([smallest, largest], dtype=torch.float64).log10()
    radii = torch.logspace(float(ends[0]), float(ends[1]), SHELLS, dtype=torch.float64)
    which = torch.arange(count, device=generator.device) % SHELLS
    return centre + radii.to(centre.device)[which, None] * directions(count, centre.shape[0], generator)


def clopper_pearson_upper(violations: int, samples: int, confidence: float = 0.95) -> float:
    """Return the one-sided upper confidence bound on a rate of which ``violations`` in ``samples`` were seen.

    Exact for independent samples (Clopper and Pearson 1934): the quantile of Beta(violations + 1, samples - violations).

    >>> round(clopper_pearson_upper(0, 59), 3)
    0.05
    """
    # scipy.stats has it too, and takes seconds to import.
    from scipy.special import betaincinv

    if not 0 <= violations <= samples or samples < 1 or not 0 < confidence < 1:
        raise ValueError(f"expected 0 <= violations <= samples, got {violations} of {samples} at {confidence}")
    if violations == samples:
        return 1.0
    return float(betaincinv(violations + 1, samples - violations, confidence))
