"""States written as numbers, and drawn at random, for tests that go through them one at a time."""

import torch
from solver_problems import normal
from torch import Tensor


def numbers(*values: float | list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random(count: int, dim: int = 2, seed: int = 0) -> Tensor:
    return normal(count, dim, seed=seed)


def close(found: Tensor, expected: Tensor | list, within: float = 1e-12) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=within)
