"""A slow expectation maximisation of known answer: deaths of women over 80 by day, a mixture of two Poisson laws.

Hasselblad 1969; the problem of section 5.1 in Varadhan and Roland 2008, Simple and globally convergent methods.
"""

import torch
from torch import Tensor

DEATHS = torch.tensor([162, 267, 271, 185, 111, 61, 27, 8, 3, 1], dtype=torch.float64)  # days with 0, 1, ... deaths
START = torch.tensor([[0.3, 1.0, 2.5], [0.4, 1.4, 3.0], [0.5, 1.0, 4.0]], dtype=torch.float64)


def deaths_step(z: Tensor) -> Tensor:
    """Return the next share and two means (B, 3) of the states ``z`` (B, 3)."""
    share, first, second = z[:, :1], z[:, 1:2], z[:, 2:]
    count = torch.arange(len(DEATHS), dtype=z.dtype)
    one, two = share * torch.exp(-first) * first**count, (1 - share) * torch.exp(-second) * second**count
    belongs = one / (one + two) * DEATHS
    other = DEATHS - belongs
    means = ((part * count).sum(1) / part.sum(1) for part in (belongs, other))
    return torch.stack([belongs.sum(1) / DEATHS.sum(), *means], 1)
