"""What a proof by sums of squares is about: V and dynamics as quotients of polynomials, and the states, in the units of the region.

Coordinates are those from the centre, in units of powers of two that make the region about 1 in size: both exact. Where V or the
dynamics are quotients, every divisor is first shown to be positive on the ball or box, so that a quotient has the sign of its numerator.
"""

import math
import operator
from dataclasses import dataclass, replace
from functools import cached_property

from flint import fmpq, fmpq_mpoly
from torch import fx

from analysis.evidence.regions import Ball, Box
from analysis.findings import exactly
from analysis.proofs.box_search import Proof, Unproved
from analysis.proofs.polynomials.logarithms import WithLogarithms, above, at_most, below
from analysis.proofs.polynomials.monomials import BITS, Problem, Terms, packed
from analysis.proofs.polynomials.polynomial import Quotient, Ring, rational
from analysis.proofs.polynomials.reading import quotients
from analysis.proofs.polynomials.squares import Squares, prove_positive

# The unit of a coordinate is at most about the radius, and at least so many halvings less.
HALVINGS = 30


@dataclass(frozen=True)
class Question:
    """What is to be proved about: the functions as quotients of polynomials, and the states: all there are, if ``everywhere``."""

    value_graph: fx.GraphModule
    motion_graph: fx.GraphModule | None
    base: Ball | Box
    level: float = math.inf
    lower: float = -math.inf
    inner: float = 0.0
    rate: float | None = None
    in_steps: bool = False
    directed: bool = False
    everywhere: bool = False

    @cached_property
    def ring(self) -> Ring:
        """The polynomials in z - c, and where the question is ``directed``, in a direction (n,) besides."""
        return Ring(self.dim * (2 if self.directed else 1))

    @property
    def dim(self) -> int:
        return len(self.base.centre)

    @cached_property
    def states(self) -> list[Quotient]:
        return list(map(operator.add, self.ring.coordinates, self.constants(self.base.centre.tolist())))

    @cached_property
    def value(self) -> Quotient | WithLogarithms:
        return self.value_at(self.states)

    def value_at(self, states: list[Quotient]) -> Quotient | WithLogarithms:
        return quotients(self.value_graph, states, logarithms=True).item()

    @cached_property
    def motion(self) -> list[Quotient]:
        assert self.motion_graph is not None
        return quotients(self.motion_graph, self.states).tolist()

    @cached_property
    def excess(self) -> Quotient:
        """V-dot or V(z+) - V(z), and the rate times V(z), or an upper bound of it: to be negative."""
        if self.in_steps:
            change = self.value_at(self.motion) - self.value
        else:
            change = self.ring.sum([self.value.derivative(place) * one for place, one in enumerate(self.motion)])
        return at_most(change if not self.rate else change + self.constant(self.rate) * self.value)

    def constant(self, number: float) -> Quotient:
        return self.ring.constant(rational(number))

    def constants(self, numbers: list[float]) -> list[Quotient]:
        return list(map(self.constant, numbers))

    def squared_distance(self, states: list[Quotient]) -> Quotient:
        offset = map(operator.sub, states, self.constants(self.base.centre.tolist()))
        return self.ring.sum([one**2 for one in offset])

    def in_base(self, states: list[Quotient]) -> list[Quotient]:
        """Return what is >= 0 at those ``states`` (n,) that are in the ball or box, and at no others."""
        if isinstance(self.base, Ball):
            return [self.constant(self.base.radius) ** 2 - self.squared_distance(states)]
        sides = zip(states, *map(self.constants, (self.base.low.tolist(), self.base.high.tolist())), strict=True)
        return [(one - low) * (high - one) for one, low, high in sides]

    @cached_property
    def within(self) -> list[Quotient]:
        return [] if self.everywhere else self.in_base(self.states)

    @property
    def where(self) -> str:
        return "the whole space" if self.everywhere else self.base.words

    @cached_property
    def below(self) -> Quotient:
        """What is >= 0 where V <= level."""
        return below(self.value, self.constant(self.level))

    @cached_property
    def constraints(self) -> list[Quotient]:
        """What is >= 0 in the states that the claim is about, and of quotients nowhere else."""
        found = [] if self.level == math.inf else [self.below]
        found += self.within
        if self.inner:
            found.append(self.squared_distance(self.states) - self.constant(self.inner) ** 2)
        if self.lower > -math.inf:
            found.append(above(self.value, self.constant(self.lower)))
        return found

    @cached_property
    def units(self) -> list[int]:
        """The exponents of the powers of two that the ring's coordinates are measured in; directions are as they are."""
        base = self.base
        reach = ((base.high - base.low) / 2).tolist() if isinstance(base, Box) else [base.radius] * self.dim
        largest = [round(math.log2(one)) if one > 0 else 0 for one in reach]
        if self.level < math.inf:
            largest = [self._unit_along(axis, most) for axis, most in enumerate(largest)]
        return largest + [0] * (self.ring.dim - self.dim)

    def _unit_along(self, axis: int, most: int) -> int:
        """Return the exponent of the largest power of two at which V does not exceed the level along an axis, in either sense."""
        for exponent in range(most, most - HALVINGS, -1):
            for unit in (power_of_two(exponent), -power_of_two(exponent)):
                at = [fmpq(0)] * self.ring.dim
                at[axis] = unit
                if self.below.numerator(*at) >= 0:
                    return exponent
        return most

    @property
    def covers(self) -> str:
        parts = (
            [exactly(self.lower)] * (self.lower > -math.inf) + ["V"] + [exactly(self.level)] * (self.level < math.inf)
        )
        words = f"all of {{{' <= '.join(parts)}}} within {self.base.within}" if len(parts) > 1 else self.where
        return f"{words}, further than {exactly(self.inner)} from the centre" if self.inner else words

    def problem(
        self, target: Quotient, inequalities: list[Quotient], equalities: list[Quotient] | None = None
    ) -> Problem:
        """Return what is to be shown: ``target`` is positive where ``inequalities`` are >= 0 and ``equalities`` are 0."""
        scaled = [
            [_scaled(one.numerator, self.units) for one in part] for part in ([target], inequalities, equalities or [])
        ]
        directions = range(self.dim, self.ring.dim)
        leads = tuple(1 << BITS * place for place in directions) or (0,)
        return Problem(scaled[0][0], scaled[1], scaled[2], self.ring.dim, leads, len(directions))

    def positive_divisor(self, divisor: fmpq_mpoly, equalities: list[Quotient] | None = None) -> Squares | None:
        """Return a proof that a ``divisor`` is positive in the base where ``equalities`` are 0."""
        # It is a polynomial in z alone, also where the question is directed.
        problem = replace(self.problem(Quotient(self.ring, divisor), self.within, equalities), leads=(0,))
        return prove_positive(problem, strictly=True)

    def proved(self, words: str, problems: list[Problem], *, strictly: bool) -> Proof | Unproved:
        """Return the proof of all ``problems``, which together say what ``words`` do."""
        found = []
        for divisor in self.ring.divisors:
            squares = self.positive_divisor(divisor)
            if squares is None:
                return Unproved(f"no sum of squares was found that shows that no divisor is 0 in {self.where}.")
            found.append(squares)
        for problem in problems:
            squares = prove_positive(problem, strictly=strictly)
            if squares is None:
                return Unproved(f"no sum of squares was found that shows that {words}.")
            found.append(squares)
        return Proof(f"{words}: {_described(found)}", 0)


def _scaled(polynomial: fmpq_mpoly, units: list[int]) -> Terms:
    """Return a polynomial in the units, times the positive number that makes its largest coefficient 1."""
    terms = in_units(polynomial, units)
    largest = max(map(abs, terms.values()), default=fmpq(1))
    return {monomial: coefficient / largest for monomial, coefficient in terms.items()}


def in_units(polynomial: fmpq_mpoly, units: list[int]) -> Terms:
    """Return the terms of a polynomial in coordinates measured in powers of two with the exponents ``units``."""
    return {
        packed(powers): coefficient * power_of_two(sum(map(operator.mul, powers, units)))
        for powers, coefficient in polynomial.to_dict().items()
    }


def power_of_two(exponent: int) -> fmpq:
    """Return 2^exponent."""
    return fmpq(2**exponent) if exponent >= 0 else fmpq(1, 2**-exponent)


def _described(found: list[Squares]) -> str:
    largest = max(found, key=lambda one: (one.degree, one.monomials))
    return (
        f"by sums of squares of degree at most {largest.degree}, of {largest.monomials} monomials. The identity is checked in rational "
        "arithmetic, and its matrix by a Cholesky factorisation with all rounding accounted for."
    )
