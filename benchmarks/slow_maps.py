"""Maps z = f(z, h) whose plain iteration is slow, from the fields where fixed points are computed; all in float64."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.problems import LinearCell

DEATHS = torch.tensor([162, 267, 271, 185, 111, 61, 27, 8, 3, 1], dtype=torch.float64)  # days with 0, 1, ... deaths


@dataclass(frozen=True, eq=False)
class SlowMap:
    """z = f(z, h) for the rows ``h`` (B, *), from ``start`` (B, *)."""

    name: str
    f: Callable[[Tensor, Tensor], Tensor]
    h: Tensor
    start: Tensor


def deaths_step(z: Tensor) -> Tensor:
    """Return the next share and two means (B, 3) of the states ``z`` (B, 3): a mixture of two Poisson laws.

    Deaths of women over 80 by day (Hasselblad 1969), by expectation maximisation; section 5.1 in Varadhan and Roland 2008.
    """
    share, first, second = z[:, :1], z[:, 1:2], z[:, 2:]
    count = torch.arange(len(DEATHS), dtype=z.dtype)
    one, two = share * torch.exp(-first) * first**count, (1 - share) * torch.exp(-second) * second**count
    belongs = one / (one + two) * DEATHS
    means = ((part * count).sum(1) / part.sum(1) for part in (belongs, DEATHS - belongs))
    return torch.stack([belongs.sum(1) / DEATHS.sum(), *means], 1)


def deaths_starts(count: int = 16) -> Tensor:
    """Return states (count, 3) to begin at."""
    ends = ((0.2, 0.8), (1.0, 1.8), (2.2, 4.0))
    return torch.stack([torch.linspace(*pair, count, dtype=torch.float64) for pair in ends], 1)


def slow_maps() -> list[SlowMap]:
    """Return all of them."""
    starts = deaths_starts()
    transitions, rewards = torch.softmax(2 * _normal(4, 40, 40, seed=20), 2), _normal(8, 40, 4, seed=21)
    weight, features = _normal(64, 64, seed=3) * 1.5 / 8, _normal(32, 64, seed=4)
    linear = LinearCell(64, 0.99).double()
    query, key, value = (_normal(16, 16, seed=seed) / 4 for seed in (11, 12, 13))

    def attention(z: Tensor, h: Tensor) -> Tensor:
        normed = torch.nn.functional.layer_norm(z, (16,))
        weights = torch.softmax((normed @ query) @ (normed @ key).transpose(1, 2) / 4, 2)
        return 0.5 * z + 0.6 * weights @ (normed @ value) + 0.5 * h

    def values(z: Tensor, h: Tensor) -> Tensor:
        return (h + 0.98 * torch.einsum("ast,bt->bsa", transitions, z)).amax(2)

    def positive(z: Tensor, h: Tensor) -> Tensor:
        return z * torch.linspace(0, 0.995, 64, dtype=torch.float64) + h

    words, rows = _normal(24, 12, 16, seed=14), _normal(32, 64, seed=1)
    return [
        SlowMap("expectation maximisation", lambda z, h: deaths_step(z), starts, starts),
        SlowMap("value iteration, discount 0.98", values, rewards, torch.zeros(8, 40, dtype=torch.float64)),
        SlowMap("linear, spectrum 0 to 0.995", positive, rows, torch.zeros_like(rows)),
        SlowMap("linear, spectrum -0.99 to 0.99", linear, rows, torch.zeros_like(rows)),
        SlowMap("tanh, gain 1.5", lambda z, h: torch.tanh(z @ weight.T + h), features, torch.zeros_like(features)),
        SlowMap("attention", attention, words, torch.zeros_like(words)),
    ]


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
