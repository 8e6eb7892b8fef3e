"""The gain of equilibria: how far a changed input moves an output of w = relu(M w + U h + c), by one matrix inequality.

For two inputs the increments obey dw' L (M dw + U dh - dw) >= 0 for every diagonal L >= 0. So with S = 2L - LM - M'L,

    gamma^2 (S - C'C) - L U U' L > 0  and  L > 0   imply   ||C dw|| <= gamma ||dh||,

and S > 0 makes the solution w exist and be unique for every input (theory: certificates).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.proofs.cells import gain_descent
from analysis.proofs.cells.network import Equation, random_slopes
from analysis.proofs.matrices.enclosure import Enclosure, diagonal
from analysis.proofs.matrices.semidefinite import repaired, run_solver
from stabdeq.linear_algebra import eigenvalues, symmetric_eigenvalues

ROOM = (1e-6, 1e-4)  # relative room that a proof is given, in turn, beyond the value computed in floating point
LEAST = 1e-12
REACH, SECTIONS, GOLDEN = 3.0, 22, (5**0.5 - 1) / 2  # of the decimal exponents by which a multiplier is rescaled
ENTRIES = 2**23  # of the matrices that are factorised at once


@dataclass(frozen=True)
class Gain:
    """A proved bound: ||C dw|| <= ``value`` ||dh||, with the ``multiplier`` L (m,) that proves it."""

    value: float
    multiplier: Tensor


def supply(equation: Equation, multiplier: Tensor) -> Enclosure:
    """Return S = 2L - LM - M'L, (..., m, m), for multipliers (..., m)."""
    scaled = Enclosure.exact(multiplier[..., None]) * equation.weight
    return diagonal(2 * multiplier) - scaled - scaled.mT


def proves_gain(
    equation: Equation, output: Enclosure, injection: Enclosure, multiplier: Tensor, value: Tensor
) -> Tensor:
    """Return (...,) bool: whether ``multiplier`` (..., m) proves ||C dw|| <= value ||dh||; False says nothing.

    ``output`` C (..., k, m), ``injection`` U (m, j), ``value`` (...,). It proves existence and uniqueness of w, too.
    """
    squared = Enclosure.exact(value[..., None, None]) * Enclosure.exact(value[..., None, None])
    across, down = Enclosure.exact(multiplier[..., None, :]), Enclosure.exact(multiplier[..., None])
    weighted = down * (injection @ injection.mT) * across
    matrix = squared * (supply(equation, multiplier) - output.mT @ output) - weighted
    return (multiplier > 0).all(-1) & (value > 0) & matrix.is_positive_definite()


def slope_abscissa(equation: Equation) -> float:
    """Return the largest real part of the eigenvalues of M S, S being patterns of ReLU slopes: no L > 0 has S > 0 unless < 1."""
    slopes = random_slopes(len(equation.bias.centre))
    return float(eigenvalues(equation.weight.centre * slopes[:, None, :]).real.max())


def smallest_gain(equation: Equation, output: Tensor, injection: Tensor, multiplier: Tensor) -> Tensor:
    """Return the smallest gain (...,) that ``multiplier`` (..., m) can prove, in floating point; infinite where none."""
    factor, failed = gain_descent.room(equation, output.mT @ output, multiplier)
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
    start = _rescaled(equation, output.centre, injection.centre, start)
    values, multipliers = _find_gains(equation, output[None], injection, start[None])
    return Gain(float(values[0]), multipliers[0]) if values[0] < torch.inf else None


def find_row_gains(equation: Equation, rows: Enclosure, injection: Enclosure, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return proved gains (K,) of the scalar outputs c'w, c each of ``rows`` (K, m), infinite where unproved, and multipliers (K, m).

    Each row gets its own multiplier, from ``start`` (m,), which proves uniqueness. What proves a gain g of w proves, times |c|^2, the
    gain |c| g of c'w: no row's is larger.
    """
    squared = rows.centre.square().sum(1)
    return _find_gains(equation, rows[:, None, :], injection, torch.where(squared > 0, squared, 1.0)[:, None] * start)


def _rescaled(equation: Equation, output: Tensor, injection: Tensor, multiplier: Tensor) -> Tensor:
    """Return ``multiplier`` (m,) times the number that makes its gain smallest: of many outputs the descent hardly moves it.

    The gain is convex in that number, and infinite where it is too small: the golden section finds its floor.
    """
    best = gain_descent.balanced(equation, output[None], injection, multiplier)[0]

    def gain(exponent: float) -> float:
        return float(smallest_gain(equation, output, injection, best * 10**exponent))

    low, high = -REACH, REACH
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = gain(left), gain(right)
    for _ in range(SECTIONS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = gain(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = gain(right)
    exponent, value = min((left, at_left), (right, at_right), key=lambda pair: pair[1])
    return best * 10**exponent if value < torch.inf else best


def _find_gains(equation: Equation, outputs: Enclosure, injection: Enclosure, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return proved gains (K,) of ``outputs`` (K, k, m), infinite where unproved, and multipliers (K, m), from ``starts`` (K, m)."""
    # U U' = G G' has the same gains and no more columns than rows.
    wide = injection.centre
    narrow = torch.linalg.qr(wide.mT, mode="r").R.mT if wide.shape[1] > wide.shape[0] else wide
    count = max(1, ENTRIES // starts.shape[1] ** 2)
    parts = [
        _find_some(equation, outputs[i : i + count], injection, narrow, starts[i : i + count])
        for i in range(0, len(outputs.centre), count)
    ]
    values, multipliers = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(multipliers)


def _find_some(
    equation: Equation, outputs: Enclosure, injection: Enclosure, narrow: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what ``_find_gains`` does of outputs that memory holds at once, G being ``narrow``."""
    C = outputs.centre
    # What balances rests on bounds, which are crude where outputs are many.
    first = gain_descent.balanced(equation, C, narrow, starts[0]) if C.shape[1] == 1 else starts
    found = gain_descent.descended(equation, C, narrow, first)
    gains = [smallest_gain(equation, C, narrow, each) for each in (starts, found)]
    multipliers = torch.where((gains[0] < gains[1])[:, None], starts, found)
    least = torch.minimum(*gains)
    values = torch.full_like(least, torch.inf)
    for room in ROOM:
        tried = torch.where(least < torch.inf, least * (1 + room) + LEAST, 1.0)
        proved = (least < torch.inf) & proves_gain(equation, outputs, injection, multipliers, tried)
        values = torch.where(proved, torch.minimum(values, tried), values)
        if bool((values < torch.inf).all()):
            break
    return values, multipliers


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
