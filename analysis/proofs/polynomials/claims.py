"""Which claims about polynomial V and dynamics are proved how: each is that some polynomials are positive on some sets."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace

from flint import fmpq
from torch import fx

from analysis.evidence.regions import Ball, Box
from analysis.findings import exactly
from analysis.proofs.box_search import Proof, Unproved, falling
from analysis.proofs.polynomials.logarithms import WithLogarithms, above, at_most
from analysis.proofs.polynomials.monomials import Problem
from analysis.proofs.polynomials.polynomial import BeyondSquaresError, Quotient
from analysis.proofs.polynomials.question import Question, in_units, power_of_two

# Of V with coefficients of about 1, the factors 2^k of |z - c|^2 by which V is shown to grow.
SLOPES = (0, -6, -12)


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
    None. "closed" is that V exceeds the level where the base ends; "convex" is of the whole base, "proper" and "global" of the whole
    space. Nothing is proved of dynamics that are no quotients of polynomials, nor of such a V, to which logarithms may be added.
    Raises ValueError where a claim lacks its dynamics or its rate.
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


def _zero(question: Question) -> Proof | Unproved:
    return _vanishing("V(c)", [question.value])


def _equilibrium(question: Question) -> Proof | Unproved:
    if question.in_steps:
        return _vanishing("z+ - c at z = c", list(map(operator.sub, question.motion, question.states)))
    return _vanishing("f(c)", question.motion)


def _vanishing(symbol: str, found: Sequence[Quotient | WithLogarithms]) -> Proof | Unproved:
    if all(one.at_centre == 0 for one in found):
        return Proof(f"{symbol} is 0 in rational arithmetic.", 0)
    return Unproved(f"{symbol} is not 0 in rational arithmetic.")


def _positive(question: Question) -> Proof | Unproved:
    problem = question.problem(-at_most(-question.value), question.constraints)
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
        kept += [] if level == math.inf else [-above(question.value_at(question.motion), question.constant(level))]
        problems = [question.problem(one, question.constraints) for one in kept]
        return question.proved(f"z+ stays in {question.covers}", problems, strictly=False)
    if level == math.inf or question.below.at_centre == 0:
        return Unproved(_no_boundary(question))
    if isinstance(question.value, Quotient):
        falling = question.problem(-question.excess, question.within, [question.below])
    else:
        ends = [question.below, above(question.value, question.constant(level))]
        falling = question.problem(-question.excess, [*question.within, *ends])
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


def _everywhere(question: Question) -> Question:
    return replace(question, level=math.inf, lower=-math.inf, inner=0.0, rate=None, everywhere=True)


def _proper(question: Question) -> Proof | Unproved:
    """Prove V + K >= e |z - c|^2 everywhere, with numbers K and e > 0; or what is enough of logarithms.

    V = p + sum_i a_i log u_i, with p >= 0, a_i > 0 and u_i >= 1, is unbounded where p + sum_i a_i (u_i - 1) is: else p and every u_i
    were bounded.
    """
    whole = _everywhere(question)
    grows, terms = whole.value, list[Quotient]()
    if isinstance(grows, WithLogarithms):
        factors = [factor for factor, _ in grows.logarithms]
        terms = [grows.plain, *(argument - whole.ring.constant(fmpq(1)) for _, argument in grows.logarithms)]
        if min(factors) <= 0:
            return Unproved("V has a logarithm with a factor that is not positive.")
        grows = whole.ring.sum(list(map(operator.mul, terms, map(whole.ring.constant, [fmpq(1), *factors]))))
    size = max(map(abs, in_units(grows.numerator, whole.units).values()), default=fmpq(0))
    if size == 0:
        return Unproved("V is 0.")
    scales = [whole.ring.constant(power_of_two(-2 * unit)) for unit in whole.units]
    distance = whole.ring.sum([one**2 * scale for one, scale in zip(whole.ring.coordinates, scales, strict=True)])
    found: Proof | Unproved = Unproved("no slope was tried.")
    for exponent in SLOPES:
        slope = whole.ring.constant(size * power_of_two(exponent))
        problems = [whole.problem(one, []) for one in (*terms, grows + whole.ring.constant(size) - slope * distance)]
        found = whole.proved("V grows without bound with the distance from the centre", problems, strictly=False)
        if isinstance(found, Proof):
            break
    return found


def _global(question: Question) -> Proof | Unproved:
    """Prove that V falls off the centre and is proper: then every trajectory is bounded, and tends to the centre (LaSalle)."""
    whole = _everywhere(question)
    words = f"{'V(z+) < V(z)' if question.in_steps else 'V-dot < 0'} off the centre in {whole.where}"
    falls = whole.proved(words, [whole.problem(-whole.excess, [])], strictly=True)
    parts = [falls, _proper(question), _equilibrium(whole)]
    open_part = next((one for one in parts if isinstance(one, Unproved)), None)
    if open_part is not None:
        return open_part
    return Proof(" ".join(one.words for one in parts if isinstance(one, Proof)), 0)


PROOFS: dict[str, Callable[[Question], Proof | Unproved]] = {
    "zero": _zero,
    "positive": _positive,
    "convex": _convex,
    "equilibrium": _equilibrium,
    "decrease": _decrease,
    "decay": _decay,
    "invariant": _invariant,
    "closed": _closed,
    "proper": _proper,
    "global": _global,
}
DYNAMIC = {"equilibrium", "decrease", "decay", "invariant", "global"}
