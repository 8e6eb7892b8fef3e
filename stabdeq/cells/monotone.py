"""The cell of a monotone operator equilibrium network (Winston and Kolter 2020, arXiv 2006.08591)."""

import math

import torch
from torch import Tensor, nn

from stabdeq.cells.relu import ReluCell, forward_backward
from stabdeq.sizes import require_sizes

# m of the authors' experiments. By the gain 1 / m, ||dz*|| <= ||dh||; with 0.1 the step hardly contracts, and Anderson needs
# 84 evaluations in place of 12 on the digits.
MONOTONICITY = 1.0


class MonotoneCell(ReluCell):
    """A map with the equilibria z = relu(W z + h + b), W = (1 - m) I - A'A + B - B': I - W is strongly monotone by m = 1.

    So there is one equilibrium for every h, whatever the parameters are, and ||dz*|| <= ||dh|| / m between any two features.
    Of the paper's splittings this is forward-backward, whose state is z itself; Peaceman-Rachford's is another vector, u with
    z = relu(u). The start is that of ``nn.Linear``, as in the authors' code.
    """

    def __init__(self, state_dim: int) -> None:
        super().__init__()
        require_sizes("cell monotone", state_dim=state_dim)
        bound = 1 / math.sqrt(state_dim)
        self.symmetric = nn.Parameter(torch.empty(state_dim, state_dim).uniform_(-bound, bound))
        self.skew = nn.Parameter(torch.empty(state_dim, state_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(state_dim))

    @property
    def monotone(self) -> Tensor:
        """(n, n): I - W = m I + A'A - B + B', whose symmetric part is at least m I."""
        identity = torch.eye(len(self.bias), dtype=self.bias.dtype, device=self.bias.device)
        return MONOTONICITY * identity + self.symmetric.T @ self.symmetric - self.skew + self.skew.T

    @property
    def weight(self) -> Tensor:
        """(n, n): W."""
        return torch.eye(len(self.bias), dtype=self.bias.dtype, device=self.bias.device) - self.monotone

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return T (n, n) and scale (n,) of the forward-backward step."""
        return forward_backward(self.monotone, torch.ones_like(self.bias))
