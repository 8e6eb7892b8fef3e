"""Proofs that a polynomial is positive where others are, by sums of squares.

To show p > 0 where q_i >= 0 and h_j = 0, write p = v' G v + sum_i s_i q_i + sum_j t_j h_j with vectors of monomials v, a positive
definite matrix G, sums of squares s_i and any polynomials t_j (P. Parrilo, "Semidefinite programming relaxations for
semialgebraic problems", Math. Program. 96, 2003). A semidefinite solver proposes them, in floating point. The s_i are made of
squares of its numbers, the t_j of the numbers themselves; the rest p - sum_i s_i q_i - sum_j t_j h_j is then computed in rational
arithmetic, each of its coefficients is spread over the entries of G that make it, and G is proved to be positive definite.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from flint import fmpq, fmpq_mat

from analysis.proofs.matrices.definiteness import proves_positive_definite
from analysis.proofs.polynomials.moments import Proposal, proposed
from analysis.proofs.polynomials.monomials import (
    BITS,
    Blocks,
    Problem,
    Shape,
    Terms,
    count_of,
    degree_of,
    products_of,
    shape,
    sparse,
)
from analysis.proofs.polynomials.polynomial import BeyondSquaresError, as_float, rational
from stabdeq.linear_algebra import symmetric_eigenvectors

# A dense block of so many monomials takes the solver about ten seconds; the time grows with the sixth power of the size.
LARGEST_BLOCK, MOST_MONOMIALS = 66, 600
# Where blocks are small, a search of those that are smaller yet saves nothing.
SMALL_BLOCK = 12


@dataclass(frozen=True)
class Squares:
    """A proof: the Gram matrix is proved to be positive definite on ``monomials`` monomials; the identity has this ``degree``."""

    degree: int
    monomials: int


def prove_positive(problem: Problem, *, strictly: bool) -> Squares | None:
    """Return a proof of ``problem``, but at the centre, or None, which says nothing; where not ``strictly``, of >= 0.

    Raises BeyondSquaresError where the solver would take too long.
    """
    if not problem.target:
        return None if strictly else Squares(0, 0)
    # What leaves out the centre may not be needed, and squares that may not be 0 there are worse to find.
    around = [one for one in problem.inequalities if one.get(0, 0) >= 0]
    whole = replace(problem, inequalities=around)
    found = _proved(whole, strictly)
    return _proved(problem, strictly) if found is None and whole != problem else found


def _proved(problem: Problem, strictly: bool) -> Squares | None:
    least = -(-max(degree_of(problem.target), *map(degree_of, problem.inequalities + problem.equalities), 0) // 2)
    is_tried = False
    for half in (least, least + 1):
        for candidate in _shapes(problem, half):
            is_tried = True
            if strictly and not _vanishes_at_centre_alone(candidate.main, problem.dim):
                continue
            for proposal in _proposals(problem, candidate):
                if _is_proof(problem, candidate, proposal):
                    return Squares(2 * half, sum(map(len, candidate.main)))
    if not is_tried:
        words = f"it would be of degree {2 * least}, with more than {LARGEST_BLOCK} monomials in one matrix"
        raise BeyondSquaresError(words)
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
    if full.largest <= LARGEST_BLOCK or _is_fixed(full):
        yield full


def _proposals(problem: Problem, candidate: Shape) -> Iterator[Proposal]:
    """Yield what may prove the problem: no multipliers, where that leaves no choice, and then what the solver finds."""
    if _is_unique(candidate):
        grams = [
            [np.zeros((len(block), len(block))) for block in blocks]
            for blocks in (candidate.main, *candidate.multipliers)
        ]
        yield Proposal(grams[0], grams[1:], [np.zeros(len(some)) for some in candidate.free])
    if not _is_fixed(candidate):
        found = proposed(problem, candidate)
        if found is not None:
            yield found


def _is_unique(candidate: Shape) -> bool:
    """Return whether one Gram matrix alone makes any polynomial, since all products of two monomials differ."""
    pairs = sum(len(block) * (len(block) + 1) // 2 for block in candidate.main)
    return len(products_of(candidate.main)) == pairs


def _is_fixed(candidate: Shape) -> bool:
    """Return whether besides there are no multipliers, so that nothing is to be found."""
    return not any(candidate.multipliers) and not any(candidate.free) and _is_unique(candidate)


def _vanishes_at_centre_alone(blocks: Blocks, dim: int) -> bool:
    """Return whether a power of every coordinate is among the monomials, or 1, so that they are all 0 at the centre alone, or nowhere."""
    monomials = {one for block in blocks for one in block}
    powers = [{power << BITS * place for power in range(1 << BITS)} for place in range(dim)]
    return all(monomials & some for some in powers)


def _is_proof(problem: Problem, candidate: Shape, proposal: Proposal) -> bool:
    """Return whether the proposal, once what is left of the identity is absorbed, proves the target to be positive."""
    rest = dict(problem.target)
    for given, blocks, grams in zip(problem.inequalities, candidate.multipliers, proposal.multipliers, strict=True):
        for block, gram in zip(blocks, grams, strict=True):
            _subtract(rest, _squares(block, gram), given)
    for given, some, numbers in zip(problem.equalities, candidate.free, proposal.free, strict=True):
        _subtract(rest, {one: rational(float(number)) for one, number in zip(some, numbers, strict=True)}, given)
    pairs = products_of(candidate.main)
    grams = [gram.copy() for gram in proposal.main]
    # What is left is added twice: what the first sums in floating point leave is bounded after the second.
    for _ in range(2):
        left = _remainder(rest, candidate.main, grams)
        if not left.keys() <= pairs.keys():
            return False
        shares = {one: left.get(one, fmpq(0)) / count for one, count in pairs.items()}
        grams = [gram + _spread(block, shares) for block, gram in zip(candidate.main, grams, strict=True)]
    left = _remainder(rest, candidate.main, grams)
    errors = {
        one: math.nextafter(abs(as_float(left.get(one, fmpq(0)) / count)), math.inf) for one, count in pairs.items()
    }
    return all(
        bool(np.isfinite(gram).all())
        and bool(proves_positive_definite(torch.from_numpy(gram), torch.from_numpy(_spread(block, errors))))
        for block, gram in zip(candidate.main, grams, strict=True)
    )


def _squares(block: list[int], gram: np.ndarray) -> Terms:
    """Return the exact sum of squares of the columns of a matrix L, L L' being about ``gram``, times the monomials."""
    eigenvalues, vectors = symmetric_eigenvectors(torch.as_tensor(gram))
    root = (vectors * eigenvalues.clamp(min=0).sqrt()).numpy()
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
    return np.array([[float(as_float(shares[one + other])) for other in block] for one in block])
