"""Which claims about polynomial V and dynamics are proved how: each is that some polynomials are positive on some sets.

Coordinates are those from the centre, in units of powers of two that make the region about 1 in size: both exact. Where V or the
dynamics are quotients, every divisor is first shown to be positive on the ball or box, so that a quotient has the sign of its numerator.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

from flint import fmpq, fmpq_mpoly
from torch import Tensor, fx

from analysis.evidence.regions import Ball, Box, Sublevel
from analysis.findings import exactly
from analysis.proofs.box_search import Proof, Unproved
from analysis.proofs.polynomials.monomials import BITS, Problem, Terms, packed
from analysis.proofs.polynomials.polynomial import NotPolynomialError, Quotient, Ring, rational
from analysis.proofs.polynomials.reading import quotients
from analysis.proofs.polynomials.squares import Squares, prove_positive

# The largest power of two tried as a unit is that of the radius, the smallest so many halvings less.
HALVINGS = 30


def prove_polynomial(
    name: str,
    value: fx.GraphModule,
    velocity: fx.GraphModule | None = None,
    *,
    centre: Tensor,
    region: Ball | Box | Sublevel,
    alpha: float | None = None,
    inner: float = 0.0,
    lower_level: float | None = None,
    step: fx.GraphModule | None = None,
) -> Proof | Unproved:
    """Try to prove the claim ``name`` of V, ``value`` (1, n) -> (1,), by sums of squares: a claim of ``PROOFS``.

    The dynamics are z' = f(z), f being ``velocity``, or z+ = g(z), g being ``step``, both (1, n) -> (1, n). ``alpha`` is the rate of
    "decay": V-dot <= -alpha V, or V(g(z)) <= (1 - alpha) V(z). At the ``centre`` (n,) strict claims need not hold. States nearer to the centre than ``inner``, or where V is less than
    ``lower_level``, are left out. On a sublevel set the claim is proved of all of {V <= level} within the radius. Of functions
    that are no quotients of polynomials nothing is proved. Raises ValueError where a claim lacks its dynamics or its rate, or is given
    both kinds of dynamics.
    """
    if name not in PROOFS:
        return Unproved(f"there is no proof by sums of squares of a claim {name!r}.")
    if name in DYNAMIC and (velocity is None) == (step is None):
        raise ValueError("expected either the velocity or the step of the dynamics, got both or neither")
    if name == "decay" and alpha is None:
        raise ValueError("expected a rate alpha of the decay, got None")
    try:
        question = _Question(value, velocity, step, centre, region, alpha if name == "decay" else None, inner, lower_level)
        return PROOFS[name](question)
    except NotPolynomialError as error:
        return Unproved(f"there is no proof by sums of squares: {error}.")


@dataclass(frozen=True)
class _Question:
    """What is to be proved about: the functions as quotients of polynomials, and the states."""

    value_graph: fx.GraphModule
    velocity_graph: fx.GraphModule | None
    step_graph: fx.GraphModule | None
    centre: Tensor
    region: Ball | Box | Sublevel
    alpha: float | None
    inner: float
    lower_level: float | None
    directed: bool = False

    @cached_property
    def ring(self) -> Ring:
        """The polynomials in z - c, and where the question is ``directed``, in a direction (n,) besides."""
        return Ring(self.dim * (2 if self.directed else 1))

    @property
    def dim(self) -> int:
        return len(self.centre)

    @cached_property
    def offset(self) -> list[Quotient]:
        """z - c."""
        return self.ring.coordinates[: self.dim]

    @cached_property
    def states(self) -> list[Quotient]:
        return [one + self.constant(at) for one, at in zip(self.offset, self.centre.tolist(), strict=True)]

    @cached_property
    def value(self) -> Quotient:
        return self.value_at(self.states)

    def value_at(self, states: list[Quotient]) -> Quotient:
        return quotients(self.value_graph, states).item()

    @cached_property
    def velocity(self) -> list[Quotient]:
        """f, or g where time is discrete."""
        graph = self.velocity_graph if self.step_graph is None else self.step_graph
        if graph is None:
            raise ValueError("expected the dynamics, got None: a claim about V-dot needs them")
        return quotients(graph, self.states).tolist()

    @cached_property
    def excess(self) -> Quotient:
        """V-dot + alpha V, or V(g(z)) - (1 - alpha) V(z): to be negative."""
        if self.step_graph is None:
            change = self.ring.sum([self.value.derivative(place) * one for place, one in enumerate(self.velocity)])
        else:
            change = self.value_at(self.velocity) - self.value
        return change if self.alpha is None else change + self.value * self.constant(self.alpha)

    @property
    def excess_words(self) -> str:
        change = "V-dot" if self.step_graph is None else "V(g(z)) - V"
        return change if self.alpha is None else f"{change} + {exactly(self.alpha)} V"

    def constant(self, number: float) -> Quotient:
        return self.ring.constant(rational(number))

    def squared(self, offset: list[Quotient]) -> Quotient:
        return self.ring.sum([one * one for one in offset])

    def within(self, states: list[Quotient], shape: Ball | Box) -> list[Quotient]:
        """Return what is >= 0 at those ``states`` (n,) that are in the ball or box, and at no others."""
        if isinstance(shape, Box):
            sides = zip(states, shape.low.tolist(), shape.high.tolist(), strict=True)
            return [(one - self.constant(low)) * (self.constant(high) - one) for one, low, high in sides]
        offset = [one - self.constant(at) for one, at in zip(states, shape.centre.tolist(), strict=True)]
        return [self.constant(shape.radius) ** 2 - self.squared(offset)]

    @property
    def shape(self) -> Ball | Box:
        """The ball or the box that the region is, or is a part of."""
        return Ball(self.region.centre, self.region.radius) if isinstance(self.region, Sublevel) else self.region

    @cached_property
    def constraints(self) -> list[Quotient]:
        """What is >= 0 in the states that the claim is about, and nowhere else."""
        found = []
        if isinstance(self.region, Sublevel):
            found.append(self.constant(self.region.level) - self.value)
        found += self.within(self.states, self.shape)
        if self.inner:
            found.append(self.squared(self.offset) - self.constant(self.inner) ** 2)
        if self.lower_level is not None:
            found.append(self.value - self.constant(self.lower_level))
        return found

    @cached_property
    def units(self) -> list[int]:
        """The exponents of the powers of two that the ring's coordinates are measured in; directions are as they are."""
        reach = [self.region.radius] * self.dim
        if isinstance(self.region, Box):
            reach = ((self.region.high - self.region.low) / 2).tolist()
        largest = [round(math.log2(one)) for one in reach]
        if not isinstance(self.region, Sublevel):
            return largest + [0] * (self.ring.dim - self.dim)
        return [self._unit_along(axis, most) for axis, most in enumerate(largest)]

    def _unit_along(self, axis: int, most: int) -> int:
        """Return the exponent of the largest power of two within which V stays below the level along an axis, both ways."""
        above = (self.constraints[0]).numerator  # of level - V
        for exponent in range(most, most - HALVINGS, -1):
            ends = [[fmpq(0)] * self.ring.dim for _ in range(2)]
            ends[0][axis], ends[1][axis] = _power_of_two(exponent), -_power_of_two(exponent)
            if any(above(*end) >= 0 for end in ends):
                return exponent
        return most

    @property
    def covers(self) -> str:
        if isinstance(self.region, Sublevel):
            words = f"all of V <= {exactly(self.region.level)} within {exactly(self.region.radius)} of the centre"
        else:
            words = self.region.words
        if self.inner:
            words += f", further than {exactly(self.inner)} from the centre"
        return words if self.lower_level is None else f"{words}, where V >= {exactly(self.lower_level)}"

    def proved(self, problems: list[Problem], words: str, *, strictly: bool = True) -> Proof | Unproved:
        """Return the proof that the target of each of ``problems`` is positive but at the centre; ``words`` say what that means."""
        where = self.within(self.states, self.shape)
        divisors = [self.problem(Quotient(self.ring, one), where) for one in self.ring.divisors]
        found = []
        for problem, what in [*((one, "that no divisor is 0") for one in divisors), *((one, words) for one in problems)]:
            squares = prove_positive(problem, strictly=strictly or problem in divisors)
            if squares is None:
                return Unproved(f"no sum of squares was found that shows {what} on {self.covers}.")
            found.append(squares)
        return Proof(f"{words} on {self.covers}: {_described(found)}", 0)

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


def _described(proofs: list[Squares]) -> str:
    largest = max(proofs, key=lambda one: (one.degree, one.monomials))
    return (
        f"by sums of squares of degree at most {largest.degree} with a positive definite Gram matrix of {largest.monomials} monomials, "
        "in exact rational arithmetic but for its Cholesky factorisation, whose rounding is accounted for."
    )


def _zero(question: _Question) -> Proof | Unproved:
    return _vanishing("V", [question.value])


def _equilibrium(question: _Question) -> Proof | Unproved:
    if question.step_graph is None:
        return _vanishing("f", question.velocity)
    return _vanishing("g(z) - z", list(map(operator.sub, question.velocity, question.states)))


def _vanishing(symbol: str, found: list[Quotient]) -> Proof | Unproved:
    if all(one.at_centre == 0 for one in found):
        return Proof(f"{symbol} = 0 at the centre, in exact rational arithmetic.", 0)
    return Unproved(f"{symbol} is not 0 at the centre, in exact rational arithmetic.")


def _positive(question: _Question) -> Proof | Unproved:
    return question.proved([question.problem(question.value, question.constraints)], "V > 0 off the centre")


def _convex(question: _Question) -> Proof | Unproved:
    """Prove y' H(z) y >= 0, H being V's Hessian, as a polynomial in the 2n coordinates (z, y); every square is one of forms in y."""
    whole = replace(question, region=question.shape, inner=0.0, lower_level=None, directed=True)
    along = whole.ring.coordinates[whole.dim :]
    slopes = [whole.value.derivative(place) for place in range(whole.dim)]
    form = whole.ring.sum(
        [one.derivative(j) * along[i] * along[j] for i, one in enumerate(slopes) for j in range(whole.dim)]
    )
    words = "V's Hessian is positive semidefinite"
    return whole.proved([whole.problem(form, whole.constraints)], words, strictly=False)


def _derivative(question: _Question, strictly: bool) -> Proof | Unproved:
    words = f"{question.excess_words} < 0 off the centre" if strictly else f"{question.excess_words} <= 0"
    problem = question.problem(-question.excess, question.constraints)
    return question.proved([problem], words, strictly=strictly)


def _closed(question: _Question) -> Proof | Unproved:
    if not isinstance(question.region, Sublevel):
        return Unproved(f"there is no proof by sums of squares that {question.region.words} is closed.")
    return question.proved([_exceeding(question)], _exceeds(question.region))


def _invariant(question: _Question) -> Proof | Unproved:
    region = question.region
    if not isinstance(region, Sublevel):
        return Unproved(f"there is no proof by sums of squares that {region.words} is invariant.")
    level = question.constant(region.level)
    if question.step_graph is None:
        within = question.within(question.states, question.shape)
        falling = question.problem(-question.excess, within, [question.value - level])
        words = f"{_exceeds(region)} and V-dot < 0 wherever V = {exactly(region.level)}"
        return question.proved([_exceeding(question), falling], words)
    kept = [level - question.value_at(question.velocity), *question.within(question.velocity, question.shape)]
    problems = [question.problem(one, question.constraints) for one in kept]
    words = f"V(g(z)) <= {exactly(region.level)} and g(z) is within {exactly(region.radius)} of the centre"
    return question.proved(problems, words, strictly=False)


def _exceeding(question: _Question) -> Problem:
    excess = question.value - question.constant(question.region.level)
    return question.problem(excess, [], question.within(question.states, question.shape))


def _exceeds(region: Sublevel) -> str:
    return f"V > {exactly(region.level)} at distance {exactly(region.radius)} of the centre"


PROOFS: dict[str, Callable[[_Question], Proof | Unproved]] = {
    "zero": _zero,
    "positive": _positive,
    "convex": _convex,
    "equilibrium": _equilibrium,
    "decrease": partial(_derivative, strictly=True),
    "decay": partial(_derivative, strictly=False),
    "invariant": _invariant,
    "closed": _closed,
}
DYNAMIC = {"equilibrium", "decrease", "decay", "invariant"}
