"""Which monomials the squares of a proof can be made of: those that no vertex of Newton's polytope forbids, in as few blocks as may be.

A monomial is an integer, its exponents ``BITS`` bits apart, so that a product of monomials is a sum of integers.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flint import fmpq, fmpq_mpoly

BITS = 6
Terms = dict[int, fmpq]
Blocks = list[list[int]]


@dataclass(frozen=True)
class Problem:
    """To be shown: ``target`` is positive where the ``inequalities`` are >= 0 and the ``equalities`` are 0; ``dim`` coordinates.

    Every monomial of the squares is one of ``leads`` times any of the first ``dim - bound`` coordinates: the others, ``bound`` of
    them, stand in the leads alone.
    """

    target: Terms
    inequalities: list[Terms]
    equalities: list[Terms]
    dim: int
    leads: tuple[int, ...] = (0,)
    bound: int = 0


@dataclass(frozen=True)
class Shape:
    """The monomials of a certificate: ``main`` of the target, ``multipliers`` of each inequality's, and ``free`` of each equality's."""

    main: Blocks
    multipliers: list[Blocks]
    free: list[list[int]]

    @property
    def largest(self) -> int:
        return max((len(block) for blocks in (self.main, *self.multipliers) for block in blocks), default=0)


def terms_of(polynomial: fmpq_mpoly) -> Terms:
    return {packed(exponents): coefficient for exponents, coefficient in polynomial.to_dict().items()}


def packed(exponents: Iterable[int]) -> int:
    return sum(exponent << BITS * place for place, exponent in enumerate(exponents))


def degree(monomial: int) -> int:
    total = 0
    while monomial:
        total += monomial & (1 << BITS) - 1
        monomial >>= BITS
    return total


def degree_of(terms: Terms) -> int:
    return max(map(degree, terms), default=0)


def count_of(problem: Problem, half: int) -> int:
    """Return how many monomials ``shape`` begins with."""
    free = problem.dim - problem.bound
    return len(problem.leads) * math.comb(free + half, half)


def shape(problem: Problem, half: int) -> Shape:
    """Return all monomials of a certificate of degree 2 ``half`` that may be in it, in blocks that the parities of exponents allow.

    A polynomial that changes by no change of coordinates' signs needs no products that do.
    """
    lead = max(map(degree, problem.leads))
    same = _parity(problem)
    monomials = _monomials(problem, half - lead)
    multipliers = [_monomials(problem, (2 * half - degree_of(given)) // 2 - lead) for given in problem.inequalities]
    free = [
        [one for one in _up_to(problem.dim, 2 * half - degree_of(given)) if same(one) == same(0)]
        for given in problem.equalities
    ]
    _prune(problem, monomials, multipliers, free, same)
    products = products_of(_split(monomials, same))
    free = [
        [one for one in some if all(one + other in products for other in given)]
        for some, given in zip(free, problem.equalities, strict=True)
    ]
    return Shape(_split(monomials, same), [_split(some, same) for some in multipliers], free)


def sparse(problem: Problem, full: Shape) -> Shape:
    """Return the part of a shape in which monomials stand in one block only where the terms at hand ask for it.

    That loses some certificates, and makes those of many coordinates small (J. Wang, V. Magron, J.-B. Lasserre, "TSSOS: a
    moment-SOS hierarchy that exploits term sparsity", SIAM J. Optim. 31, 2021).
    """
    squares = {2 * one for block in full.main for one in block}
    known = squares | problem.target.keys()
    multipliers = [
        _joined(blocks, {one - other for one in problem.target for other in given})
        for blocks, given in zip(full.multipliers, problem.inequalities, strict=True)
    ]
    free = [
        [one for one in some if any(one + other in known for other in given)]
        for some, given in zip(full.free, problem.equalities, strict=True)
    ]
    for blocks, given in zip(multipliers, problem.inequalities, strict=True):
        known = known | {one + other for one in products_of(blocks) for other in given}
    for some, given in zip(free, problem.equalities, strict=True):
        known = known | {one + other for one in some for other in given}
    return Shape(_joined(full.main, known), multipliers, free)


def _up_to(dim: int, most: int) -> list[int]:
    """Return the monomials in ``dim`` coordinates of degree at most ``most``."""
    found: list[tuple[int, int]] = [(0, 0)] if most >= 0 else []
    for place in range(dim):
        found = [(one + (more << BITS * place), used + more) for one, used in found for more in range(most - used + 1)]
    return [one for one, _ in found]


def _monomials(problem: Problem, most: int) -> list[int]:
    return [lead + one for lead in problem.leads for one in _up_to(problem.dim - problem.bound, most)]


def _parity(problem: Problem) -> Callable[[int], int]:
    """Return the map of monomials to what all changes of signs that leave the problem alone do to them, as bits."""
    odd = sum(1 << BITS * place for place in range(problem.dim))
    basis: list[int] = []
    given = [problem.target, *problem.inequalities, *problem.equalities]
    for bits in sorted({one & odd for terms in given for one in terms}):
        reduced = _reduced(bits, basis)
        if reduced:
            basis = sorted([*basis, reduced], reverse=True)
    return lambda monomial: _reduced(monomial & odd, basis)


def _reduced(bits: int, basis: list[int]) -> int:
    """Return the representative of ``bits`` modulo ``basis``, each with another leading bit, the largest first."""
    for one in basis:
        bits = min(bits, bits ^ one)
    return bits


def _split(monomials: list[int], same: Callable[[int], int]) -> Blocks:
    blocks: dict[int, list[int]] = {}
    for one in monomials:
        blocks.setdefault(same(one), []).append(one)
    return list(blocks.values())


def products_of(blocks: Blocks) -> dict[int, int]:
    """Return the products of two monomials of one block, and how many ordered pairs make each."""
    counts: dict[int, int] = {}
    for block in blocks:
        for one in block:
            for other in block:
                counts[one + other] = counts.get(one + other, 0) + 1
    return counts


def _prune(
    problem: Problem,
    monomials: list[int],
    multipliers: list[list[int]],
    free: list[list[int]],
    same: Callable[[int], int],
) -> None:
    """Take out the monomials whose squares must have the coefficient 0, until none is left.

    The square of m stands on the diagonal, and that is 0 where no other product is the same monomial, the target has no such term,
    and multipliers can but subtract from it. This leaves half of Newton's polytope, and of what is 0 at the centre its lowest part
    (J. Löfberg, "Pre- and post-processing sum-of-squares programs in practice", IEEE Trans. Autom. Control 54, 2009).
    """
    from_free = {
        one + other for some, given in zip(free, problem.equalities, strict=True) for one in some for other in given
    }
    while True:
        counts = products_of(_split(monomials, same))
        raised, lowered = set(from_free), {}
        for place, (some, given) in enumerate(zip(multipliers, problem.inequalities, strict=True)):
            for one, pairs in products_of(_split(some, same)).items():
                is_square = pairs == 1
                for other, coefficient in given.items():
                    if is_square and coefficient > 0:
                        lowered.setdefault(one + other, []).append((place, one))
                    else:
                        raised.add(one + other)
        removed = {
            one for one in monomials if counts[2 * one] == 1 and 2 * one not in problem.target and 2 * one not in raised
        }
        idle = {pair for one in removed for pair in lowered.get(2 * one, [])}
        idle |= {
            pair
            for product, pairs in lowered.items()
            if product not in counts and product not in problem.target and product not in raised
            for pair in pairs
        }
        if not removed and not idle:
            return
        monomials[:] = [one for one in monomials if one not in removed]
        for place, some in enumerate(multipliers):
            some[:] = [one for one in some if (place, 2 * one) not in idle]


def _joined(blocks: Blocks, known: Iterable[int]) -> Blocks:
    """Return the parts of blocks that products among ``known`` connect."""
    known = set(known)
    parts = []
    for block in blocks:
        left = list(block)
        while left:
            part, reached = [], [left.pop(0)]
            while reached:
                one = reached.pop()
                part.append(one)
                near = [other for other in left if one + other in known]
                left = [other for other in left if one + other not in known]
                reached.extend(near)
            parts.append(sorted(part))
    return parts
