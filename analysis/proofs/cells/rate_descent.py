"""The best rate that P and L can prove by the inequality of ``decay``, in floating point, and its descent: nothing here is trusted.

Theta, -2 a of a flow or r^2 of a map, is better the smaller it is.
"""

from typing import Literal

import torch
from torch import Tensor

from analysis.proofs.cells.network import ReluNetwork
from stabdeq.linear_algebra import cholesky, symmetric_eigenvalues, symmetric_eigenvectors

Kind = Literal["flow", "map"]
STEPS = 50
STEP_OF_ROOT, STEP_OF_LOGARITHMS = (
    0.25,
    0.05,
)  # the first over n, since a change of all entries at once moves P by n times it
SPREAD = 1 / 64, 1 / 1024  # of the eigenvalues that weigh, first and last: at a minimum several are the largest


def smallest_theta(network: ReluNetwork, norm: Tensor, multiplier: Tensor, kind: Kind) -> float:
    """Return the smallest theta that P = ``norm`` (n, n) and L (m,) can prove; infinite where none."""
    factor, failed = cholesky(norm)
    needed = None if bool(failed) else _needed(network, factor, multiplier, kind)
    return torch.inf if needed is None else float(symmetric_eigenvalues(needed)[-1])


def descended(network: ReluNetwork, norm: Tensor, multiplier: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
    """Return P and L of no larger theta than these, by Adam on P's root and the logarithms of L; the best seen are kept.

    The gradient is that of a smooth bound of the largest eigenvalue.
    """
    root = cholesky(norm).factor.clone()
    exponent = multiplier.log()
    steps = STEP_OF_ROOT / len(norm), STEP_OF_LOGARITHMS
    parameters = [part.requires_grad_() for part in (root, exponent)]
    optimiser = torch.optim.Adam([{"params": [part], "lr": lr} for part, lr in zip(parameters, steps, strict=True)])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    best, kept = torch.inf, (norm.clone(), multiplier.clone())
    points = [part.detach().clone() for part in parameters]
    for step in range(STEPS):
        with torch.enable_grad():
            needed = _needed(network, root.tril(), exponent.exp(), kind)
        theta, pull = (torch.inf, None) if needed is None else _soft_largest(needed, step / STEPS)
        if needed is None or not theta < torch.inf:  # outside of the feasible set: shorter steps from the best point
            for part, point in zip(parameters, points, strict=True):
                part.data.copy_(point)
            for group in optimiser.param_groups:
                group["lr"] /= 2
            continue
        if theta < best:
            best, points = theta, [part.detach().clone() for part in parameters]
            lower = points[0].tril()
            product = lower @ lower.mT
            kept = (product + product.mT) / 2, points[1].exp()
        optimiser.zero_grad()
        needed.backward(pull)
        optimiser.step()
        schedule.step()
    return kept


def _soft_largest(matrix: Tensor, done: float) -> tuple[float, Tensor]:
    """Return the largest eigenvalue of ``matrix`` (n, n), and the derivative (n, n) of a smooth bound of it."""
    values, vectors = symmetric_eigenvectors(matrix.detach())
    first, last = SPREAD
    weights = torch.softmax(values / (first * (last / first) ** done), 0)
    return float(values[-1]), (vectors * weights) @ vectors.mT


def _needed(network: ReluNetwork, factor: Tensor, multiplier: Tensor, kind: Kind) -> Tensor | None:
    """Return the symmetric (n, n) whose largest eigenvalue is the smallest theta, P having the lower ``factor``; None where none.

    It is the Schur complement of the multipliers' corner in the inequality, with the factor of P divided off on both sides.
    """
    A, B, D, N = (getattr(network, part).centre for part in ("skip", "state", "output", "hidden"))
    P, LB, LN = factor @ factor.mT, multiplier[:, None] * B, multiplier[:, None] * N
    corner = torch.diag(2 * multiplier) - LN - LN.mT
    PA, PD = _product(P, A), _product(P, D)
    if kind == "flow":
        first, mixed = -(PA + PA.mT), PD + LB.mT
    else:
        first, mixed = -_product(PA.mT, A), _product(PD.mT, A).mT + LB.mT
        corner = corner - _product(PD.mT, D)
    corner_factor, failed = cholesky((corner + corner.mT) / 2)
    if bool(failed):
        return None
    part = torch.linalg.solve_triangular(corner_factor, mixed.mT, upper=False)
    half = torch.linalg.solve_triangular(factor, part.mT @ part - first, upper=False)
    needed = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    return (needed + needed.mT) / 2


def _product(matrix: Tensor, constant: Tensor) -> Tensor:
    """Return ``matrix`` @ ``constant``, which in cells of one ReLU is mostly a multiple of the identity: that takes no product."""
    if len(constant) == constant.shape[1] and torch.equal(
        constant, constant[0, 0] * torch.eye(*constant.shape, dtype=constant.dtype)
    ):
        return constant[0, 0] * matrix
    return matrix @ constant
