"""A solver as a user writes it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stabdeq.solvers import Solver


@dataclass(frozen=True)
class HeavyBall(Solver):
    """Picard with momentum: the memory is the last step (B, n)."""

    mixing: float = 0.5
    momentum: float = 0.4

    def init(self, z: Tensor) -> Any:
        return torch.zeros_like(z)

    def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
        velocity = self.momentum * memory + self.mixing * field
        return z + velocity, velocity

    def forget(self, memory: Any, samples: Tensor) -> Any:
        return memory.masked_fill(samples[:, None], 0)

    def select(self, memory: Any, samples: Tensor) -> Any:
        return memory[samples]
