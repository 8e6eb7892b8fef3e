"""Cells z = relu(W z + h + b), iterated as a map that contracts for all weights; a subclass chooses W."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabdeq.cells.equilibrium import EquilibriumCell
from stabdeq.errors import SolverError
from stabdeq.linear_algebra import cholesky, spectral_norm


class ReluCell(EquilibriumCell):
    """The map f(z, h) = relu(z T + scale (h + b)), which a subclass makes to contract by its choice of T and scale.

    There is no BatchNorm: samples are independent in training too.
    """

    bias: nn.Parameter  # (n,)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return T (n, n) and scale (n,)."""
        raise NotImplementedError

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return f(z, h), (B, n), (B, n) -> (B, n)."""
        transition, scale = self.affine()
        return functional.relu(z @ transition + (h + self.bias) * scale)

    def rates(self) -> "Rates":
        """Return how fast the flow f(z) - z decays, and the Lipschitz constant of f in z, both for every input; differentiable."""
        transition, _ = self.affine()
        identity = torch.eye(len(transition), dtype=transition.dtype, device=transition.device)
        return Rates(1 - spectral_norm(identity + transition).square() / 4, spectral_norm(transition))

    @torch.no_grad()
    def fold(self) -> "FoldedReluCell":
        """Return the map as one matrix product."""
        transition, scale = self.affine()
        return FoldedReluCell(transition.contiguous(), scale, self.bias.clone())


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
    factor, failed = cholesky((monotone + monotone.T) / 2)
    if bool(failed):
        raise SolverError("the cell's matrix overflows or is singular: its weights are too large for their dtype")
    return spectral_norm(torch.linalg.solve_triangular(factor, monotone.T, upper=False)) ** -2


@dataclass(frozen=True)
class Rates:
    """Of f(z, h) in z, in the Euclidean norm: dz'(df - dz) <= -``decay`` ||dz||^2 and ||df|| <= ``lipschitz`` ||dz||; both ().

    With df = D T'dz, D the ReLU's slopes between 0 and 1: dz_i (T'dz)_i D_i <= ((dz_i + (T'dz)_i) / 2)^2, whose sum is at most
    ||I + T||^2 ||dz||^2 / 4.
    """

    decay: Tensor
    lipschitz: Tensor


@dataclass(frozen=True)
class FoldedReluCell:
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

    def linearise(self, z: Tensor, injected: Tensor) -> tuple["ReluPullBack", tuple[Tensor]]:
        """Return the vector-Jacobian product at ``z`` (B, n) and the slope of the ReLU (B, n) that it reads."""
        slope = (torch.addmm(injected, z, self.transition) > 0).to(z.dtype)
        return ReluPullBack(self.transition.T.contiguous()), (slope,)


@dataclass(frozen=True)
class ReluPullBack:
    """u -> J' u for J = df/dz of a folded cell of this family."""

    transition: Tensor  # (n, n)

    def __call__(self, u: Tensor, slope: Tensor) -> Tensor:
        """Return J' u, (B, n) -> (B, n)."""
        return (u * slope) @ self.transition
