"""The cell of a network without an equilibrium: f(z, h) = h."""

import torch
from torch import Tensor

from stabdeq.cells.equilibrium import EquilibriumCell
from stabdeq.sizes import require_sizes
from stabdeq.solvers import Solution, Status
from stabdeq.solvers.solution import accumulation_dtype


class ConstantCell(EquilibriumCell):
    """f(z, h) = h, whose equilibrium is h: with it, an ordinary network is a model that everything here can train and attack."""

    def __init__(self, state_dim: int) -> None:
        super().__init__()
        require_sizes("cell constant", state_dim=state_dim)

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return h (B, n)."""
        return h

    def solve(self, h: Tensor) -> Solution:
        """Return the equilibria, ``h`` (B, n) itself with its gradient: one evaluation shows that it stays; NaN is no state."""
        finite = h.isfinite().all(1)
        return Solution(
            z=h,
            residual=torch.where(finite, 0, torch.inf).to(accumulation_dtype(h.dtype)),
            status=torch.where(finite, Status.converged, Status.nan),
            evaluations=finite.new_ones(len(h), dtype=torch.int64),
        )
