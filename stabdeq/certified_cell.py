"""A cell whose equilibrium exists, is unique, and moves by no more than the features do, for all weights."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabdeq.errors import SolverError

# By this part the linear matrix inequality holds with room, so that it can be proved in floating point.
MARGIN = 1e-3


class CertifiedCell(nn.Module):
    """A map with the equilibria z = relu(W z + h + b), with ||dz*|| <= ||dh|| between any two features.

    W = I - L^{-1} ((1 + margin) (I + L^2) / 2 + A'A / 2 + B - B') with a diagonal L > 0, so that 2 L - L W - W' L exceeds
    I + L^2 whatever the parameters are, which is the linear matrix inequality for a gain of 1 with the multiplier L (Revay,
    Wang and Manchester 2020, arXiv 2010.01732; with L = I the monotone networks of Winston and Kolter 2020).

    The map is the forward-backward step f(z, h) = relu(z + step L (W z - z + h + b)). It has the same equilibria and is a
    contraction in the Euclidean norm, so Picard's iteration and the flow f(z) - z converge to the equilibrium from anywhere.
    There is no BatchNorm: samples are independent in training too.
    """

    couples_samples = False

    def __init__(self, state_dim: int) -> None:
        super().__init__()
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

    @torch.no_grad()
    def step(self, monotone: Tensor) -> Tensor:
        """Return the step (), m / ||M||^2 for M = ``monotone`` (n, n) with symmetric part >= m, at which the map contracts.

        ||I - step M||^2 <= 1 - (m / ||M||)^2. The equilibrium does not depend on it, so no gradient flows through it.
        Raises SolverError where M is not finite.
        """
        if not bool(monotone.isfinite().all()):
            raise SolverError("the certified cell's matrix overflows: its weights are too large for their dtype")
        least = torch.linalg.eigvalsh((monotone + monotone.T) / 2)[0]
        return least / torch.linalg.matrix_norm(monotone, 2).square()

    def decoupled(self, z: Tensor, h: Tensor) -> "CertifiedCell":
        """Return the map itself, which treats each sample alone."""
        return self

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return f(z, h), (B, n), (B, n) -> (B, n)."""
        monotone = self.monotone
        drift = (h + self.bias) * self.multiplier - z @ monotone.T
        return functional.relu(z + self.step(monotone) * drift)

    @torch.no_grad()
    def fold(self) -> "FoldedCertifiedCell":
        """Return the map as one matrix product."""
        monotone = self.monotone
        step = self.step(monotone)
        identity = torch.eye(len(monotone), dtype=monotone.dtype, device=monotone.device)
        return FoldedCertifiedCell(
            (identity - step * monotone).T.contiguous(), step * self.multiplier, self.bias.clone()
        )


@dataclass(frozen=True)
class FoldedCertifiedCell:
    """The map of a certified cell: f(z, h) = relu(z T + scale (h + b))."""

    transition: Tensor  # (n, n), T = (I - step M)'
    scale: Tensor  # (n,), step L
    bias: Tensor  # (n,)

    def inject(self, h: Tensor) -> Tensor:
        """Return scale (h + b), (B, n), which ``__call__`` reads: it is the same at every state."""
        return (h + self.bias) * self.scale

    def __call__(self, z: Tensor, injected: Tensor) -> Tensor:
        """Return f(z, h), (B, n), (B, n) -> (B, n), from ``injected`` = inject(h)."""
        return torch.addmm(injected, z, self.transition).relu_()

    def linearise(self, z: Tensor, injected: Tensor) -> tuple["CertifiedPullBack", tuple[Tensor]]:
        """Return the vector-Jacobian product at ``z`` (B, n) and the slope of the ReLU (B, n) that it reads."""
        slope = (torch.addmm(injected, z, self.transition) > 0).to(z.dtype)
        return CertifiedPullBack(self.transition.T.contiguous()), (slope,)


@dataclass(frozen=True)
class CertifiedPullBack:
    """u -> J' u for J = df/dz of a folded certified cell."""

    transition: Tensor  # (n, n)

    def __call__(self, u: Tensor, slope: Tensor) -> Tensor:
        """Return J' u, (B, n) -> (B, n)."""
        return (u * slope) @ self.transition
