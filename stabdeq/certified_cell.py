"""Cells z = relu(W z + h + b) with one equilibrium for all weights; here the one that moves no more than the features do."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabdeq.errors import SolverError

# By this part the linear matrix inequality holds with room, so that it can be proved in floating point.
MARGIN = 1e-3


class ReluCell(nn.Module):
    """The map f(z, h) = relu(z T + scale (h + b)), which a subclass makes to contract by its choice of T and scale.

    There is no BatchNorm: samples are independent in training too.
    """

    couples_samples = False
    bias: nn.Parameter  # (n,)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return T (n, n) and scale (n,)."""
        raise NotImplementedError

    def decoupled(self, z: Tensor, h: Tensor) -> "ReluCell":
        """Return the map itself, which treats each sample alone."""
        return self

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return f(z, h), (B, n), (B, n) -> (B, n)."""
        transition, scale = self.affine()
        return functional.relu(z @ transition + (h + self.bias) * scale)

    @torch.no_grad()
    def fold(self) -> "FoldedCertifiedCell":
        """Return the map as one matrix product."""
        transition, scale = self.affine()
        return FoldedCertifiedCell(transition.contiguous(), scale, self.bias.clone())


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


def forward_backward(monotone: Tensor, multiplier: Tensor) -> tuple[Tensor, Tensor]:
    """Return T (n, n) and scale (n,) of z -> relu(z + step L (W z - z + h + b)), for ``monotone`` L (I - W), L > 0 (n,).

    It has the equilibria z = relu(W z + h + b), and contracts in the Euclidean norm where the symmetric part of L (I - W) is
    positive definite.
    """
    step = contracting_step(monotone)
    identity = torch.eye(len(monotone), dtype=monotone.dtype, device=monotone.device)
    return (identity - step * monotone).T, step * multiplier


@torch.no_grad()
def contracting_step(monotone: Tensor) -> Tensor:
    """Return the largest s () with s M'M <= (M + M') / 2 =: H for M = ``monotone`` (n, n): the step at which the map contracts.

    ||I - s M||^2 <= 1 - s m where H >= m I. It is at least m / ||M||^2, and 1 / ||M|| where M is symmetric. The equilibrium
    does not depend on it, so no gradient flows through it. Raises SolverError where H is not found to be positive definite.
    """
    factor, failed = torch.linalg.cholesky_ex((monotone + monotone.T) / 2)
    if not bool((failed == 0) & monotone.isfinite().all()):
        raise SolverError("the cell's matrix overflows or is singular: its weights are too large for their dtype")
    return torch.linalg.matrix_norm(torch.linalg.solve_triangular(factor, monotone.T, upper=False), 2) ** -2


@dataclass(frozen=True)
class FoldedCertifiedCell:
    """The map of a cell of this family: f(z, h) = relu(z T + scale (h + b))."""

    transition: Tensor  # (n, n), T
    scale: Tensor  # (n,)
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
