"""Damped Picard iteration: z <- z + mixing (f(z) - z)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stabdeq.solvers.solver import Solver


@dataclass(frozen=True)
class Picard(Solver):
    """The plain fixed-point iteration, damped where ``mixing`` < 1; converges where its map contracts."""

    mixing: float = 1.0

    def init(self, z: Tensor) -> None:
        """Picard keeps no memory."""

    def step(self, z: Tensor, field: Tensor, memory: None) -> tuple[Tensor, None]:
        """Return z + mixing (f(z) - z), (B, n)."""
        return torch.add(z, field, alpha=self.mixing), memory

    def forget(self, memory: None, samples: Tensor) -> None:
        """Nothing to forget."""

    def select(self, memory: None, samples: Tensor) -> None:
        """Nothing to select."""
