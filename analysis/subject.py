"""The subject of an audit: a model in float64, the images it is audited on, and their equilibria."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from stabdeq.lyapunov import LyapunovFunction
from stabdeq.model import EquilibriumModel
from stabdeq.solvers import Anderson, Broyden, Solution, solve
from stabdeq.stability import centre_of, stabilised_field

TOLERANCE = 1e-11  # residual to which an audit solves for equilibria, in float64
MAX_EVALUATIONS = 1000
DENSE = 1024  # largest state whose Jacobian is formed whole


@dataclass(frozen=True)
class Subject:
    """What every check reads; all tensors are float64.

    ``images`` (N, C, H, W) and ``labels`` (N,) are test images, ``indices`` (N,) their places in the test split, ``h``
    (N, *) their features, ``solution`` the audit's own equilibria, to a residual of ``TOLERANCE`` where they converged.
    ``claims`` names what the model claims, as "check.name"; ``structured`` says that V is of this library's family, whose
    properties follow from the way it is built.
    """

    model: EquilibriumModel
    images: Tensor
    labels: Tensor
    indices: Tensor
    h: Tensor
    solution: Solution
    claims: frozenset[str]
    structured: bool
    seed: int

    @property
    def lyapunov(self) -> LyapunovFunction | None:
        """The model's Lyapunov function, or None."""
        return self.model.lyapunov

    @cached_property
    def found(self) -> Tensor:
        """(M,) the positions, among the N images, whose equilibrium was found: no other is used by any check."""
        return self.solution.converged.nonzero().squeeze(1)

    @cached_property
    def equilibria(self) -> Tensor:
        """(M, n) the equilibria found, flattened."""
        return self.solution.z[self.found].flatten(1)

    @property
    def dim(self) -> int:
        """The number n of state components."""
        return self.solution.z[0].numel()

    @cached_property
    def radius(self) -> float:
        """Radius of the ball of states that claims are judged on: twice the largest norm of an equilibrium, at least 1."""
        return max([1.0, *(2 * self.equilibria.norm(dim=1)).tolist()])

    def generator(self) -> torch.Generator:
        """Return a fresh source of randomness from the audit's seed."""
        return torch.Generator().manual_seed(self.seed)

    def centres(self) -> Tensor:
        """Return V's centre (M, n) for each equilibrium found."""
        assert self.lyapunov is not None
        return centre_of(self.lyapunov, self.equilibria)

    def field(self, z: Tensor, which: Tensor) -> Tensor:
        """Return the unprojected field F(z, h) = f(z, h) - z, (B, n), h being that of the found images ``which`` (B,)."""
        h = self.h[self.found[which]]
        state = z.view(len(z), *self.solution.z.shape[1:])
        return self.model.cell(state, h).flatten(1) - z

    def cell_at(self, position: int) -> Callable[[Tensor], Tensor]:
        """Return z -> f(z, h) on flat states (B, n), all with the features of the equilibrium ``position``."""
        h = self.h[self.found[position]]

        def cell(z: Tensor) -> Tensor:
            state = z.reshape(-1, *self.solution.z.shape[1:])
            return self.model.cell(state, h.expand(len(z), *h.shape)).flatten(1)

        return cell

    def jacobian(self, z: Tensor, position: int) -> Tensor:
        """Return df/dz (n, n) at ``z`` (n,): one vector-Jacobian product of n copies, a row from each."""
        pull_back = torch.func.vjp(self.cell_at(position), z.expand(self.dim, self.dim))[1]
        return pull_back(torch.eye(self.dim, dtype=torch.float64))[0]

    def stabilised(self, z: Tensor, which: Tensor) -> Tensor:
        """Return the stabilised field F^(z, h), (B, n)."""
        assert self.lyapunov is not None
        return stabilised_field(self.field(z, which), z, self.centres()[which], self.lyapunov)


def solve_accurately(f: Callable[[Tensor], Tensor], z0: Tensor) -> Solution:
    """Return equilibria of ``f`` from ``z0`` (B, *) to the audit's tolerance: Anderson, then Broyden where that fails."""
    first = solve(f, z0, Anderson(window=10), tolerance=TOLERANCE, max_evaluations=MAX_EVALUATIONS)
    if bool(first.converged.all()):
        return first
    second = solve(f, z0, Broyden(memory=40), tolerance=TOLERANCE, max_evaluations=MAX_EVALUATIONS)
    better = ~first.converged & (second.converged | (second.residual < first.residual))
    wide = better.view(-1, *[1] * (z0.dim() - 1))
    return Solution(
        z=torch.where(wide, second.z, first.z),
        residual=torch.where(better, second.residual, first.residual),
        status=torch.where(better, second.status, first.status),
        evaluations=first.evaluations + torch.where(first.converged, 0, second.evaluations),
    )
