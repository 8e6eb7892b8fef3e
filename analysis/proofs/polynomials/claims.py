"""Which claims about polynomial V and dynamics are proved how: each is that some polynomials are positive on some sets.

Coordinates are those from the centre, in units of powers of two that make the region about 1 in size: both exact. Where V or the
dynamics are quotients, every divisor is first shown to be positive on the ball or box, so that a quotient has the sign of its numerator.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from flint import fmpq, fmpq_mpoly
from torch import fx

from analysis.evidence.regions import Ball, Box
from analysis.findings import exactly
from analysis.proofs.box_search import Proof, Unproved, falling
from analysis.proofs.polynomials.monomials import BITS, Problem, Terms, packed
from analysis.proofs.polynomials.polynomial import BeyondSquaresError, Quotient, Ring, rational
from analysis.proofs.polynomials.reading import quotients
from analysis.proofs.polynomials.squares import Squares, prove_positive

# The unit of a coordinate is at most about the radius, and at least so many halvings less.
HALVINGS = 30


def prove_polynomial(
    name: str,
    value: fx.GraphModule,
    motion: fx.GraphModule | None = None,
    *,
    base: Ball | Box,
    level: float = math.inf,
    lower: float = -math.inf,
    inner: float = 0.0,
    rate: float | None = None,
    in_steps: bool = False,
) -> Proof | Unproved:
    """Try to prove the claim ``name``, one of ``PROOFS``, of V, ``value`` (1, n) -> (1,), by sums of squares.

    ``motion`` (1, n) -> (1, n) is f of z' = f(z), or where time goes ``in_steps`` the next state, z+. The claim is proved of all states of
    ``base`` where ``lower`` <= V <= ``level``, at least ``inner`` from the centre; strict claims need not hold at the centre.
    ``rate`` is alpha of "decay", V-dot <= -alpha V; in steps it is kappa of "decrease", V(z+) <= (1 - kappa) V(z), strict where it is 0 or
    None. "closed" is that V exceeds the level where the base ends; "convex" is of the whole base. Of functions that are no quotients
    of polynomials nothing is proved. Raises ValueError where a claim lacks its dynamics or its rate.
    """
    if name not in PROOFS or (in_steps and name == "decay"):
        return Unproved(f"there is no proof by sums of squares of a claim {name!r}{' in steps' * in_steps}.")
    if name in DYNAMIC and motion is None:
        raise ValueError(f"expected the dynamics, got None: the claim {name!r} needs them")
    if name == "decay" and rate is None:
        raise ValueError("expected a rate alpha of the decay, got None")
    question = Question(
        value, motion, base, level, lower, inner, rate if name == "decay" or in_steps else None, in_steps
    )
    try:
        return PROOFS[name](question)
    except BeyondSquaresError as error:
        return Unproved(f"no sum of squares was sought: {error}.")


@dataclass(frozen=True)
class Question:
    """What is to be proved about: the functions as quotients of polynomials, and the states."""

    value_graph: fx.GraphModule
    motion_graph: fx.GraphModule | None
    base: Ball | Box
    level: float = math.inf
    lower: float = -math.inf
    inner: float = 0.0
    rate: float | None = None
    in_steps: bool = False
    directed: bool = False

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
    def value(self) -> Quotient:
        return self.value_at(self.states)

    def value_at(self, states: list[Quotient]) -> Quotient:
        return quotients(self.value_graph, states).item()

    @cached_property
    def motion(self) -> list[Quotient]:
        assert self.motion_graph is not None
        return quotients(self.motion_graph, self.states).tolist()

    @cached_property
    def excess(self) -> Quotient:
        """V-dot or V(z+) - V(z), and the rate times V(z): to be negative."""
        if self.in_steps:
            change = self.value_at(self.motion) - self.value
        else:
            change = self.ring.sum([self.value.derivative(place) * one for place, one in enumerate(self.motion)])
        return change if not self.rate else change + self.constant(self.rate) * self.value

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
        return self.in_base(self.states)

    @cached_property
    def below(self) -> Quotient:
        """What is >= 0 where V <= level."""
        return self.constant(self.level) - self.value

    @cached_property
    def constraints(self) -> list[Quotient]:
        """What is >= 0 in the states that the claim is about, and nowhere else."""
        found = [] if self.level == math.inf else [self.below]
        found += self.within
        if self.inner:
            found.append(self.squared_distance(self.states) - self.constant(self.inner) ** 2)
        if self.lower > -math.inf:
            found.append(self.value - self.constant(self.lower))
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
            for unit in (_power_of_two(exponent), -_power_of_two(exponent)):
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
        words = f"all of {{{' <= '.join(parts)}}} within {self.base.within}" if len(parts) > 1 else self.base.words
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
                return Unproved(f"no sum of squares was found that shows that no divisor is 0 in {self.base.words}.")
            found.append(squares)
        for problem in problems:
            squares = prove_positive(problem, strictly=strictly)
            if squares is None:
                return Unproved(f"no sum of squares was found that shows that {words}.")
            found.append(squares)
        return Proof(f"{words}: {_described(found)}", 0)


def _scaled(polynomial: fmpq_mpoly, units: list[int]) -> Terms:
    """Return a polynomial in the units, times the positive number that makes its largest coefficient 1."""
    terms = {
        packed(powers): coefficient * _power_of_two(sum(map(operator.mul, powers, units)))
        for powers, coefficient in polynomial.to_dict().items()
    }
    largest = max(map(abs, terms.values()), default=fmpq(1))
    return {monomial: coefficient / largest for monomial, coefficient in terms.items()}


def _power_of_two(exponent: int) -> fmpq:
    return fmpq(2**exponent) if exponent >= 0 else fmpq(1, 2**-exponent)


def _described(found: list[Squares]) -> str:
    largest = max(found, key=lambda one: (one.degree, one.monomials))
    return (
        f"by sums of squares of degree at most {largest.degree}, of {largest.monomials} monomials. The identity is checked in rational "
        "arithmetic, and its matrix by a Cholesky factorisation with all rounding accounted for."
    )


def _zero(question: Question) -> Proof | Unproved:
    return _vanishing("V(c)", [question.value])


def _equilibrium(question: Question) -> Proof | Unproved:
    if question.in_steps:
        return _vanishing("z+ - c at z = c", list(map(operator.sub, question.motion, question.states)))
    return _vanishing("f(c)", question.motion)


def _vanishing(symbol: str, found: list[Quotient]) -> Proof | Unproved:
    if all(one.at_centre == 0 for one in found):
        return Proof(f"{symbol} is 0 in rational arithmetic.", 0)
    return Unproved(f"{symbol} is not 0 in rational arithmetic.")


def _positive(question: Question) -> Proof | Unproved:
    problem = question.problem(question.value, question.constraints)
    return question.proved(f"V > 0 off the centre on {question.covers}", [problem], strictly=True)


def _convex(question: Question) -> Proof | Unproved:
    """Prove y' H(z) y >= 0, H being V's Hessian, as a polynomial in the 2n coordinates (z, y), by squares of forms in y."""
    whole = replace(question, level=math.inf, lower=-math.inf, inner=0.0, directed=True)
    along = whole.ring.coordinates[whole.dim :]
    slope = whole.ring.sum([whole.value.derivative(place) * one for place, one in enumerate(along)])
    form = whole.ring.sum([slope.derivative(place) * one for place, one in enumerate(along)])
    problem = whole.problem(form, whole.constraints)
    return whole.proved(f"V's Hessian is positive semidefinite on {whole.covers}", [problem], strictly=False)


def _decrease(question: Question) -> Proof | Unproved:
    problem = question.problem(-question.excess, question.constraints)
    if question.in_steps:
        words = f"V(z+) <= (1 - {exactly(question.rate)}) V(z)" if question.rate else "V(z+) < V(z) off the centre"
    else:
        words = "V-dot < 0 off the centre"
    return question.proved(f"{words} on {question.covers}", [problem], strictly=not question.rate)


def _decay(question: Question) -> Proof | Unproved:
    assert question.rate is not None
    problem = question.problem(-question.excess, question.constraints)
    words = f"{falling(question.rate)} <= 0 on {question.covers}"
    return question.proved(words, [problem], strictly=False)


def _closed(question: Question) -> Proof | Unproved:
    if question.level == math.inf or question.below.at_centre == 0:
        return Unproved(_no_boundary(question))
    return question.proved(_exceeds(question), _exceeding(question), strictly=True)


def _invariant(question: Question) -> Proof | Unproved:
    level = question.level
    if question.in_steps:
        kept = question.in_base(question.motion)
        kept += [] if level == math.inf else [question.constant(level) - question.value_at(question.motion)]
        problems = [question.problem(one, question.constraints) for one in kept]
        return question.proved(f"z+ stays in {question.covers}", problems, strictly=False)
    if level == math.inf or question.below.at_centre == 0:
        return Unproved(_no_boundary(question))
    falling = question.problem(-question.excess, question.within, [question.below])
    words = f"{_exceeds(question)} and V-dot < 0 wherever V = {exactly(level)}"
    return question.proved(words, [*_exceeding(question), falling], strictly=True)


def _no_boundary(question: Question) -> str:
    """Return why nothing is proved of a boundary {V = level}: there is none, or the centre is on it, where strict proofs do not hold."""
    if question.level == math.inf:
        return f"there is no level of V that bounds a set in {question.base.words}."
    return f"V is {exactly(question.level)} at the centre itself."


def _exceeding(question: Question) -> list[Problem]:
    """Return that V exceeds the level where the base ends: on the sphere, or on every face of the box."""
    if isinstance(question.base, Ball):
        return [question.problem(-question.below, [], question.within)]
    problems = []
    for place, state in enumerate(question.states):
        others = question.within[:place] + question.within[place + 1 :]
        for end in (question.base.low, question.base.high):
            face = state - question.constant(float(end[place]))
            problems.append(question.problem(-question.below, others, [face]))
    return problems


def _exceeds(question: Question) -> str:
    where = (
        f"at distance {exactly(question.base.radius)} of the centre"
        if isinstance(question.base, Ball)
        else f"on the faces of {question.base.words}"
    )
    return f"V > {exactly(question.level)} {where}"


PROOFS: dict[str, Callable[[Question], Proof | Unproved]] = {
    "zero": _zero,
    "positive": _positive,
    "convex": _convex,
    "equilibrium": _equilibrium,
    "decrease": _decrease,
    "decay": _decay,
    "invariant": _invariant,
    "closed": _closed,
}
DYNAMIC = {"equilibrium", "decrease", "decay", "invariant"}
