"""Proofs that a polynomial is positive where others are, by sums of squares.

To show p > 0 where q_i >= 0 and h_j = 0, write p = v' G v + sum_i s_i q_i + sum_j t_j h_j with vectors of monomials v, a positive
definite matrix G, sums of squares s_i and any polynomials t_j (P. Parrilo, "Semidefinite programming relaxations for
semialgebraic problems", Math. Program. 96, 2003). A semidefinite solver proposes them, in floating point. The s_i are made of
squares of its numbers, the t_j of the numbers themselves; the rest p - sum_i s_i q_i - sum_j t_j h_j is then computed in rational
arithmetic, each of its coefficients is spread over the entries of G that make it, and G is proved to be positive definite.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import clarabel
import numpy as np
import torch
from flint import fmpq, fmpq_mat
from scipy import sparse as matrices

from analysis.proofs.matrices.definiteness import proves_positive_definite
from analysis.proofs.polynomials.monomials import (
    BITS,
    Blocks,
    Problem,
    Shape,
    Terms,
    count_of,
    degree_of,
    shape,
    sparse,
)
from analysis.proofs.polynomials.polynomial import rational

# A dense block of so many monomials takes the solver some seconds.
LARGEST_BLOCK, MOST_MONOMIALS = 48, 600
# Where blocks are small, a search of those that are smaller yet saves nothing.
SMALL_BLOCK = 12


@dataclass(frozen=True)
class Squares:
    """A proof: the Gram matrix is proved to be positive definite on ``monomials`` monomials; the identity has this ``degree``."""

    degree: int
    monomials: int


@dataclass(frozen=True)
class _Proposal:
    """What the solver found: Gram matrices of the target and of each inequality's multipliers, and each equality's coefficients."""

    main: list[np.ndarray]
    multipliers: list[list[np.ndarray]]
    free: list[np.ndarray]


def prove_positive(problem: Problem, *, strictly: bool) -> Squares | None:
    """Return a proof of ``problem``, but at the centre, or None, which says nothing; where not ``strictly``, of >= 0."""
    if not problem.target:
        return None if strictly else Squares(0, 0)
    least = -(-max(degree_of(problem.target), *map(degree_of, problem.inequalities + problem.equalities), 0) // 2)
    for half in (least, least + 1):
        for candidate in _shapes(problem, half):
            if (not strictly or _vanishes_at_centre_alone(candidate.main, problem.dim)) and _proves(problem, candidate):
                return Squares(2 * half, sum(map(len, candidate.main)))
    return None


def _shapes(problem: Problem, half: int) -> Iterator[Shape]:
    """Yield the shapes of certificates to be tried, the smaller first."""
    if count_of(problem, half) > MOST_MONOMIALS:
        return
    full = shape(problem, half)
    if full.largest > SMALL_BLOCK:
        smaller = sparse(problem, full)
        if smaller.largest <= LARGEST_BLOCK and smaller != full:
            yield smaller
    if full.largest <= LARGEST_BLOCK:
        yield full


def _vanishes_at_centre_alone(blocks: Blocks, dim: int) -> bool:
    """Return whether a power of every coordinate is among the monomials, or 1, so that they are all 0 at the centre alone, or nowhere."""
    monomials = {one for block in blocks for one in block}
    powers = [{power << BITS * place for power in range(1 << BITS)} for place in range(dim)]
    return all(monomials & some for some in powers)


def _proves(problem: Problem, candidate: Shape) -> bool:
    proposal = _proposed(problem, candidate)
    return proposal is not None and _is_proof(problem, candidate, proposal)


def _proposed(problem: Problem, candidate: Shape) -> _Proposal | None:
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
    cones = [clarabel.ZeroConeT(len(bounds))]
    grams = [(candidate.main, {0: 1.0})]
    grams += [(blocks, _floats(given)) for blocks, given in zip(candidate.multipliers, problem.inequalities, strict=True)]
    for blocks, numbers in grams:
        for block in blocks:
            moments(block, numbers)
            cones.append(clarabel.PSDTriangleConeT(len(block)))
    if not candidate.main or not problem.target.keys() <= columns.keys():
        return None
    cost = np.zeros(len(columns))
    for monomial, coefficient in problem.target.items():
        cost[columns[monomial]] = _float(coefficient)
    multipliers = _solved(cost, entries, bounds, cones)
    if multipliers is None or multipliers[0] >= 0:
        return None
    return _unpacked(multipliers, candidate)


def _solved(
    cost: np.ndarray, entries: list[tuple[int, int, float]], bounds: list[float], cones: list[object]
) -> np.ndarray | None:
    """Return the multipliers of ``entries`` x + s = ``bounds`` with s in the cones, at the least ``cost`` x, or None without any."""
    rows, places, numbers = zip(*entries, strict=True)
    size = len(cost)
    left = matrices.csc_matrix((numbers, (rows, places)), shape=(len(bounds), size))
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_threads, settings.chordal_decomposition_enable = False, 1, False
    solver = clarabel.DefaultSolver(
        matrices.csc_matrix((size, size)), cost, left, np.array(bounds), cones, settings
    )
    found = np.array(solver.solve().z)
    return found if len(found) == len(bounds) and np.isfinite(found).all() else None


def _unpacked(multipliers: np.ndarray, candidate: Shape) -> _Proposal:
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
    return _Proposal(main, grams[1:], free)


def _is_proof(problem: Problem, candidate: Shape, proposal: _Proposal) -> bool:
    """Return whether the proposal, once what is left of the identity is absorbed, proves the target to be positive."""
    rest = dict(problem.target)
    for given, blocks, grams in zip(problem.inequalities, candidate.multipliers, proposal.multipliers, strict=True):
        for block, gram in zip(blocks, grams, strict=True):
            _subtract(rest, _squares(block, gram), given)
    for given, some, numbers in zip(problem.equalities, candidate.free, proposal.free, strict=True):
        _subtract(rest, {one: rational(float(number)) for one, number in zip(some, numbers, strict=True)}, given)
    pairs: dict[int, int] = {}
    for block in candidate.main:
        for one in block:
            for other in block:
                pairs[one + other] = pairs.get(one + other, 0) + 1
    grams = [gram.copy() for gram in proposal.main]
    # What is left is added twice: what the first sums in floating point leave is bounded after the second.
    for _ in range(2):
        left = _remainder(rest, candidate.main, grams)
        if not left.keys() <= pairs.keys():
            return False
        shares = {one: left.get(one, fmpq(0)) / count for one, count in pairs.items()}
        grams = [gram + _spread(block, shares) for block, gram in zip(candidate.main, grams, strict=True)]
    left = _remainder(rest, candidate.main, grams)
    errors = {one: math.nextafter(abs(_float(left.get(one, fmpq(0)) / count)), math.inf) for one, count in pairs.items()}
    return all(
        bool(np.isfinite(gram).all())
        and bool(proves_positive_definite(torch.from_numpy(gram), torch.from_numpy(_spread(block, errors))))
        for block, gram in zip(candidate.main, grams, strict=True)
    )


def _squares(block: list[int], gram: np.ndarray) -> Terms:
    """Return the exact sum of squares of the columns of a matrix L, L L' being about ``gram``, times the monomials."""
    eigenvalues, vectors = np.linalg.eigh(gram)
    root = vectors * np.sqrt(eigenvalues.clip(min=0))
    exact = fmpq_mat([[rational(float(number)) for number in row] for row in root])
    product = exact * exact.transpose()
    total: Terms = {}
    for i, one in enumerate(block):
        for j, other in enumerate(block):
            total[one + other] = total.get(one + other, fmpq(0)) + product[i, j]
    return total


def _subtract(rest: Terms, factor: Terms, given: Terms) -> None:
    for one, coefficient in factor.items():
        if coefficient != 0:
            for other, number in given.items():
                rest[one + other] = rest.get(one + other, fmpq(0)) - coefficient * number


def _remainder(rest: Terms, blocks: Blocks, grams: list[np.ndarray]) -> Terms:
    """Return ``rest`` less v' G v, exactly, without terms that are 0."""
    left = dict(rest)
    for block, gram in zip(blocks, grams, strict=True):
        for i, one in enumerate(block):
            for j in range(i + 1):
                monomial = one + block[j]
                share = rational(float(gram[i, j])) * (1 if i == j else 2)
                left[monomial] = left.get(monomial, fmpq(0)) - share
    return {one: coefficient for one, coefficient in left.items() if coefficient != 0}


def _spread(block: list[int], shares: Terms | dict[int, float]) -> np.ndarray:
    return np.array([[float(_float(shares[one + other])) for other in block] for one in block])


def _floats(terms: Terms) -> dict[int, float]:
    return {one: _float(coefficient) for one, coefficient in terms.items()}


def _float(number: fmpq | float) -> float:
    """Return the nearest float."""
    return number if isinstance(number, float) else float(Fraction(int(number.p), int(number.q)))
