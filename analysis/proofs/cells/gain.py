"""The gain of equilibria: how far a changed input moves an output of w = relu(M w + U h + c), by one matrix inequality.

For two inputs the increments obey dw' L (M dw + U dh - dw) >= 0 for every diagonal L >= 0. So with S = 2L - LM - M'L,

    gamma^2 (S - C'C) - L U U' L > 0  and  L > 0   imply   ||C dw|| <= gamma ||dh||,

and S > 0 makes the solution w exist and be unique for every input (theory: certificates).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.proofs.cells.network import Equation, random_slopes
from analysis.proofs.matrices.enclosure import Enclosure, diagonal
from analysis.proofs.matrices.semidefinite import repaired, run_solver
from stabdeq.linear_algebra import cholesky, eigenvalues, spectral_norm, symmetric_eigenvalues

ROOM = 1e-6  # relative room that a proof is given beyond the value computed in floating point
LEAST = 1e-12
DESCENT_STEPS = 100


@dataclass(frozen=True)
class Gain:
    """A proved bound: ||C dw|| <= ``value`` ||dh||, with the ``multiplier`` L (m,) that proves it."""

    value: float
    multiplier: Tensor


def supply(equation: Equation, multiplier: Tensor) -> Enclosure:
    """Return S = 2L - LM - M'L, (..., m, m), for multipliers (..., m)."""
    scaled = diagonal(multiplier) @ equation.weight
    return diagonal(2 * multiplier) - scaled - scaled.mT


def proves_gain(
    equation: Equation, output: Enclosure, injection: Enclosure, multiplier: Tensor, value: Tensor
) -> Tensor:
    """Return (...,) bool: whether ``multiplier`` (..., m) proves ||C dw|| <= value ||dh||; False says nothing.

    ``output`` C (..., k, m), ``injection`` U (m, j), ``value`` (...,). It proves existence and uniqueness of w, too.
    """
    squared = Enclosure.exact(value[..., None, None]) * Enclosure.exact(value[..., None, None])
    weighted = diagonal(multiplier) @ injection
    matrix = squared * (supply(equation, multiplier) - output.mT @ output) - weighted @ weighted.mT
    return (multiplier > 0).all(-1) & (value > 0) & matrix.is_positive_definite()


def slope_abscissa(equation: Equation) -> float:
    """Return the largest real part of the eigenvalues of M S, S being patterns of ReLU slopes: no L > 0 has S > 0 unless < 1."""
    slopes = random_slopes(len(equation.bias.centre))
    return float(eigenvalues(equation.weight.centre * slopes[:, None, :]).real.max())


def smallest_gain(equation: Equation, output: Tensor, injection: Tensor, multiplier: Tensor) -> Tensor:
    """Return the smallest gain (...,) that ``multiplier`` (..., m) can prove, in floating point; infinite where none."""
    weight = equation.weight.centre
    scaled = multiplier[..., None] * weight
    room = torch.diag_embed(2 * multiplier) - scaled - scaled.mT - output.mT @ output
    factor, failed = cholesky(room)
    ratio = torch.linalg.solve_triangular(factor, multiplier[..., None] * injection, upper=False)
    squared = symmetric_eigenvalues(ratio @ ratio.mT)[..., -1]
    return torch.where(~failed & (multiplier > 0).all(-1), squared.clamp(min=0).sqrt(), torch.inf)


def find_gain(equation: Equation, output: Enclosure, injection: Enclosure, start: Tensor | None = None) -> Gain | None:
    """Return a proved gain of ``output`` C (k, m) from inputs through ``injection`` U (m, j), or None.

    ``start`` (m,) is a multiplier known to prove uniqueness; without one, a solver proposes the first.
    """
    if start is None and slope_abscissa(equation) < 1:
        start = _solve_gain(equation.weight.centre, output.centre, injection.centre)
    if start is None:
        return None
    values, multipliers = _find_gains(equation, output[None], injection, start[None])
    return Gain(float(values[0]), multipliers[0]) if values[0] < torch.inf else None


def find_row_gains(equation: Equation, rows: Enclosure, injection: Enclosure, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return proved gains (K,) of the scalar outputs c'w, c each of ``rows`` (K, m), infinite where unproved, and multipliers (K, m).

    Each row gets its own multiplier, from ``start`` (m,), which proves uniqueness.
    """
    return _find_gains(equation, rows[:, None, :], injection, start.expand(len(rows.centre), -1))


def _find_gains(equation: Equation, outputs: Enclosure, injection: Enclosure, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return proved gains (K,) of ``outputs`` (K, k, m), infinite where unproved, and multipliers (K, m)."""
    # U U' = G G' has the same gains and no more columns than rows.
    wide = injection.centre
    narrow = torch.linalg.qr(wide.mT, mode="r").R.mT if wide.shape[1] > wide.shape[0] else wide
    multipliers = _descend(equation, outputs.centre, narrow, _scale(equation, outputs.centre, narrow, starts))
    values = smallest_gain(equation, outputs.centre, narrow, multipliers)
    found = values < torch.inf
    values = torch.where(found, values * (1 + ROOM) + LEAST, 1.0)
    proved = found & proves_gain(equation, outputs, injection, multipliers, values)
    return torch.where(proved, values, torch.inf), multipliers


def _scale(equation: Equation, output: Tensor, injection: Tensor, multipliers: Tensor) -> Tensor:
    """Return each multiplier (K, m) times the number that makes its gain smallest."""
    scaled = multipliers[..., None] * equation.weight.centre
    room = torch.diag_embed(2 * multipliers) - scaled - scaled.mT
    factor, _ = cholesky(room)
    part = torch.linalg.solve_triangular(factor, output.mT.expand(*multipliers.shape, -1), upper=False)
    least = spectral_norm(part).square()  # the scale at which S - C'C turns singular
    # The gain is convex in the scale: a coarse grid finds its valley, a fine one the floor.
    centre = torch.zeros_like(least)
    for exponents in (torch.linspace(-3, 3, 49), torch.linspace(-0.12, 0.12, 25)):
        grid = centre[..., None] + exponents.double()
        gains = torch.stack(
            [
                smallest_gain(equation, output, injection, (least * (1 + 10**each))[..., None] * multipliers)
                for each in grid.unbind(-1)
            ],
            -1,
        )
        centre = grid.gather(-1, gains.argmin(-1, keepdim=True))[..., 0]
    return (least * (1 + 10**centre))[..., None] * multipliers


def _descend(equation: Equation, output: Tensor, injection: Tensor, multipliers: Tensor) -> Tensor:
    """Return multipliers (K, m) of no larger gain, by Adam on their logarithms; the best seen are kept.

    The problem is convex in L and gamma^2, so there is no local minimum to fall into.
    """
    best = multipliers
    value = smallest_gain(equation, output, injection, best)
    with torch.enable_grad():
        exponent = multipliers.log().requires_grad_()
        optimiser = torch.optim.Adam([exponent], lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, DESCENT_STEPS)
        for _ in range(DESCENT_STEPS):
            gain = smallest_gain(equation, output, injection, exponent.exp())
            with torch.no_grad():
                better = gain < value
                best = torch.where(better[:, None], exponent.exp(), best)
                value = torch.where(better, gain, value)
                # A step that left the feasible set has no gradient to return by.
                exponent.copy_(torch.where((gain < torch.inf)[:, None], exponent, best.log()))
            optimiser.zero_grad()
            torch.where(gain < torch.inf, gain.log(), 0.0).sum().backward()
            optimiser.step()
            schedule.step()
    return best


def _solve_gain(weight: Tensor, output: Tensor, injection: Tensor) -> Tensor | None:
    """Return the multiplier (m,) that a solver proposes for the smallest gain, or None; nothing of it is trusted."""
    import cvxpy

    m = len(weight)
    entries, squared = cvxpy.Variable(m, nonneg=True), cvxpy.Variable()
    multiplier = cvxpy.diag(entries)
    scaled, weighted = multiplier @ weight.numpy(), multiplier @ injection.numpy()
    matrix = cvxpy.bmat(
        [
            [2 * multiplier - scaled - scaled.T - (output.mT @ output).numpy(), -weighted],
            [-weighted.T, squared * torch.eye(injection.shape[1], dtype=torch.float64).numpy()],
        ]
    )
    run_solver(cvxpy.Problem(cvxpy.Minimize(squared), [(matrix + matrix.T) / 2 >> 0]))
    return repaired(entries.value)
