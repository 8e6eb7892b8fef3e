"""Cells z = relu(W z + h + b) with one equilibrium for all weights; here the one that moves no more than the features do."""

import math

import torch
from torch import Tensor, nn

from stabdeq.cells.relu import ReluCell, forward_backward
from stabdeq.sizes import require_sizes

# By this part the linear matrix inequality holds with room, so that it can be proved in floating point.
MARGIN = 1e-3


class CertifiedCell(ReluCell):
    """A map with the equilibria z = relu(W z + h + b), with ||dz*|| <= ||dh|| between any two features.

    W = I - L^{-1} ((1 + margin) (I + L^2) / 2 + A'A / 2 + B - B') with a diagonal L > 0, so that 2 L - L W - W' L exceeds
    I + L^2 whatever the parameters are, which is the linear matrix inequality for a gain of 1 with the multiplier L (Revay,
    Wang and Manchester 2020, arXiv 2010.01732; with L = I the monotone networks of Winston and Kolter 2020).

    It is iterated as a forward-backward step, so Picard's iteration and the flow f(z) - z converge to the equilibrium from
    anywhere.
    """

    def __init__(self, state_dim: int) -> None:
        super().__init__()
        require_sizes("cell certified", state_dim=state_dim)
        scale = 0.5 / math.sqrt(state_dim)
        self.symmetric = nn.Parameter(scale * torch.randn(state_dim, state_dim))
        self.skew = nn.Parameter(scale * torch.randn(state_dim, state_dim))
        self.log_multiplier = nn.Parameter(torch.zeros(state_dim))
        self.bias = nn.Parameter(torch.zeros(state_dim))

    @property
    def multiplier(self) -> Tensor:
        """(n,): the diagonal of L."""
        return self.log_multiplier.exp()

    @property
    def monotone(self) -> Tensor:
        """(n, n): L (I - W), whose symmetric part is at least (1 + margin) (I + L^2) / 2."""
        diagonal = (1 + MARGIN) / 2 * (1 + self.multiplier.square())
        return torch.diag(diagonal) + self.symmetric.T @ self.symmetric / 2 + self.skew - self.skew.T

    @property
    def weight(self) -> Tensor:
        """(n, n): W."""
        identity = torch.eye(len(self.bias), dtype=self.bias.dtype, device=self.bias.device)
        return identity - self.monotone / self.multiplier[:, None]

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return T (n, n) and scale (n,) of the forward-backward step."""
        return forward_backward(self.monotone, self.multiplier)
