"""Cells, equilibria and their unrolled loops that the tests of implicit gradients share."""

from collections.abc import Callable

import torch
from solver_problems import SOLVERS, normal
from torch import Tensor

from stabdeq.solvers import Solution, Solver, solve
from stabdeq.solvers.implicit import attach_gradient

BATCH, DIM = 4, 3
Cell = Callable[[Tensor, Tensor, Tensor], Tensor]  # (z, weight, h) -> next z


def tanh_cell(z: Tensor, weight: Tensor, h: Tensor) -> Tensor:
    return torch.tanh(z @ weight.T + h)


def coupled_cell(z: Tensor, weight: Tensor, h: Tensor) -> Tensor:
    """Each sample sees the batch's mean and variance, as under BatchNorm in training."""
    z = torch.tanh(z @ weight.T + h)
    return 0.4 * (z - z.mean(0)) / (z.var(0, correction=0) + 0.1).sqrt() + 0.2 * h


def weight_and_features() -> tuple[Tensor, Tensor]:
    weight = normal(DIM, DIM)
    weight = 0.9 * weight / torch.linalg.matrix_norm(weight, 2)
    return weight.requires_grad_(), normal(BATCH, DIM, seed=1).requires_grad_()


def equilibrium(
    cell: Cell,
    weight: Tensor,
    h: Tensor,
    *,
    solver: Solver = SOLVERS[0],
    tolerance: float = 1e-13,
    coupled: bool = False,
    max_evaluations: int = 500,
) -> tuple[Tensor, Solution]:
    """The equilibrium with its gradient attached, and the solution that holds the adjoint's."""

    def f(z: Tensor) -> Tensor:
        return cell(z, weight, h)

    with torch.no_grad():
        solution = solve(
            f, torch.zeros_like(h), solver, tolerance=tolerance, max_evaluations=max_evaluations, coupled=coupled
        )
    attached = attach_gradient(
        cell,
        (weight, h),
        solution,
        solver,
        tolerance=tolerance,
        max_evaluations=max_evaluations,
        coupled=coupled,
    )
    return attached, solution


def loss(z: Tensor, weight: Tensor, h: Tensor) -> Tensor:
    """Nonlinear in z, so that dL/dz depends on it, and with a path beside z."""
    return (z.pow(3) / 3 + torch.sin(2 * z)).sum() + (weight.square().sum() * h).sum()
