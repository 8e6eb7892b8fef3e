"""The semidefinite solver: it proposes sums of squares. Whether they prove anything is decided elsewhere."""

from dataclasses import dataclass
from typing import Any

import clarabel
import numpy as np
from scipy import sparse

from analysis.proofs.polynomials.monomials import Problem, Shape, Terms
from analysis.proofs.polynomials.polynomial import as_float

# What needs multipliers as large, of polynomials whose coefficients are at most 1, is beyond double precision.
LARGEST_MULTIPLIER = 1e12
# To which the solver's equations and its optimum are to hold: a least eigenvalue below that is not found.
ACCURACY = 1e-10


@dataclass(frozen=True)
class Proposal:
    """What the solver found: Gram matrices of the target and of each inequality's multipliers, and each equality's coefficients."""

    main: list[np.ndarray]
    multipliers: list[list[np.ndarray]]
    free: list[np.ndarray]


def proposed(problem: Problem, candidate: Shape) -> Proposal | None:
    """Return what the solver proposes, the Gram matrix's least eigenvalue being as large as can be; None if that is not positive.

    The unknowns of the problem solved are moments y_m, one a monomial: the least sum_m p_m y_m where the moments of all squares
    are positive semidefinite and the squares' own sum to 1. The multipliers of these constraints are the matrices sought.
    """
    columns: dict[int, int] = {}
    entries: list[tuple[int, int, float]] = []
    bounds: list[float] = []

    def row(terms: Terms | dict[int, float], factor: float, bound: float = 0.0) -> None:
        for monomial, coefficient in terms.items():
            place = columns.setdefault(monomial, len(columns))
            entries.append((len(bounds), place, factor * float(coefficient)))
        bounds.append(bound)

    def moments(block: list[int], given: dict[int, float]) -> None:
        for end, other in enumerate(block):
            for one in block[: end + 1]:
                factor = -1.0 if one == other else -(2**0.5)
                row({one + other + monomial: coefficient for monomial, coefficient in given.items()}, factor)

    row({2 * one: 1.0 for block in candidate.main for one in block}, 1.0, 1.0)
    for some, given in zip(candidate.free, problem.equalities, strict=True):
        numbers = _floats(given)
        for one in some:
            row({one + monomial: coefficient for monomial, coefficient in numbers.items()}, 1.0)
    cones = [clarabel.ZeroConeT(len(bounds))]  # pyrefly: ignore
    grams = [(candidate.main, {0: 1.0})]
    grams += [
        (blocks, _floats(given)) for blocks, given in zip(candidate.multipliers, problem.inequalities, strict=True)
    ]
    for blocks, numbers in grams:
        for block in blocks:
            moments(block, numbers)
            cones.append(clarabel.PSDTriangleConeT(len(block)))  # pyrefly: ignore
    if not candidate.main or not problem.target.keys() <= columns.keys():
        return None
    cost = np.zeros(len(columns))
    for monomial, coefficient in problem.target.items():
        cost[columns[monomial]] = as_float(coefficient)
    multipliers = _solved(cost, entries, bounds, cones)
    if multipliers is None or multipliers[0] >= 0:
        return None
    return _unpacked(multipliers, candidate)


def _solved(
    cost: np.ndarray, entries: list[tuple[int, int, float]], bounds: list[float], cones: list[Any]
) -> np.ndarray | None:
    """Return the multipliers of ``entries`` x + s = ``bounds`` with s in the cones, at the least ``cost`` x, or None without any."""
    rows, places, numbers = zip(*entries, strict=True)
    size = len(cost)
    left = sparse.csc_matrix((numbers, (rows, places)), shape=(len(bounds), size))
    settings = clarabel.DefaultSettings()  # pyrefly: ignore
    settings.verbose, settings.max_threads, settings.chordal_decomposition_enable = False, 1, False
    settings.tol_feas = settings.tol_gap_abs = settings.tol_gap_rel = ACCURACY
    no_quadratic = sparse.csc_matrix((size, size))
    solver = clarabel.DefaultSolver(no_quadratic, cost, left, np.array(bounds), cones, settings)  # pyrefly: ignore
    # Its status is worth nothing and is not read: whether the numbers prove anything is decided elsewhere.
    found = np.array(solver.solve().z)
    return found if len(found) == len(bounds) and (abs(found) < LARGEST_MULTIPLIER).all() else None


def _unpacked(multipliers: np.ndarray, candidate: Shape) -> Proposal:
    """Return the solver's multipliers as matrices: of the normalisation, the equalities, then each block's upper triangle."""
    margin, start = -multipliers[0], 1
    free = []
    for some in candidate.free:
        free.append(-multipliers[start : start + len(some)])
        start += len(some)
    grams = []
    for blocks in (candidate.main, *candidate.multipliers):
        found = []
        for block in blocks:
            size = len(block)
            lower = np.tril_indices(size)
            matrix = np.zeros((size, size))
            matrix[lower] = multipliers[start : start + len(lower[0])]
            start += len(lower[0])
            matrix = (matrix + matrix.T) / 2
            off_diagonal = ~np.eye(size, dtype=bool)
            matrix[off_diagonal] *= 2**0.5
            found.append(matrix)
        grams.append(found)
    main = [matrix + margin * np.eye(len(matrix)) for matrix in grams[0]]
    return Proposal(main, grams[1:], free)


def _floats(terms: Terms) -> dict[int, float]:
    return {one: as_float(coefficient) for one, coefficient in terms.items()}
