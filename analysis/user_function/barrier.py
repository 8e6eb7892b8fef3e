"""Barrier certificates: B <= 0 on an initial set, B > 0 on an unsafe one, and B-dot < 0 where B = 0.

What starts in the initial set then has B <= 0 as long as it stays in the region, for at the last time with B <= 0 before one with B > 0
it would have B = 0 and B-dot < 0. So it does not reach the unsafe set (Prajna and Jadbabaie, Safety verification of hybrid systems using
barrier certificates, 2004). In steps, B(z+) <= 0 wherever B(z) <= 0 says the same. So does B-dot <= -alpha B at all states, the claim
"decay", which an energy keeps that never rises but rests where the speed is 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from flint import arb, ctx
from torch import Tensor

from analysis.evidence.claim import Claim
from analysis.evidence.judge import judge
from analysis.evidence.membership import surely_contains
from analysis.evidence.regions import Ball, Box
from analysis.evidence.zero_set import DRAWN, ZeroSet, extreme, find_zero_set
from analysis.findings import Finding, Verdict, short
from analysis.proofs.balls import evaluate, exact
from analysis.proofs.barriers import prove_barrier, prove_on_set
from analysis.proofs.box_search import Proof, Unproved
from analysis.user_function.at_centre import NOISE_MARGIN
from analysis.user_function.function import ForeignFunction, load_function
from analysis.user_function.in_region import derivative_claim
from analysis.user_function.subject import Subject
from stabdeq.errors import ConfigError, EvaluationError
from stabdeq.lyapunov.claims import Violation, tolerance

BITS = 128  # to which a segment is told apart from its ends
LENGTHENED, TIMES = 16, 8
CLEAR = 1e-9  # of the typical size of g: what no rounding puts into a set
Signed = tuple[int | None, float]


def load_set(given: str | Callable[[Any], Any], dim: int, role: str, trial: Tensor) -> ForeignFunction:
    """Return the function g (B, dim) -> (B,) of the set {g <= 0}, called the ``role`` set, after a try at the states ``trial`` (B, dim).

    Raises ConfigError where it is no such function, or returns truths.
    """
    try:
        function = load_function(given, dim, "value", trial=trial, unnamed="g")
    except ConfigError as error:
        raise ConfigError(f"the {role} set: {error}") from error
    if function.raw(trial).dtype == torch.bool:
        raise ConfigError(
            f"the {role} set: {function.name} returns truths; expected numbers that are at most 0 in the set and positive outside, such as "
            "(z**2).sum(1) - 1 in place of (z**2).sum(1) <= 1"
        )
    return function


def require_apart(initial: ForeignFunction, unsafe: ForeignFunction, base: Ball | Box, seed: int) -> None:
    """Raise ConfigError where a state of ``base`` is seen to be in both sets: B cannot be both <= 0 and > 0 there."""
    generator = torch.Generator().manual_seed(seed)
    drawn = base.sample(DRAWN, generator)

    def farther(states: Tensor) -> Tensor:
        return torch.maximum(initial(states) / sizes[0], unsafe(states) / sizes[1])

    try:
        with torch.no_grad():
            sizes = [_size(function(drawn)) for function in (initial, unsafe)]
        state = extreme(base, farther, drawn, -1, generator)[:1]
        with torch.no_grad():
            depth, of_initial, of_unsafe = (float(function(state)) for function in (farther, initial, unsafe))
    except EvaluationError:
        return  # the finding on that set says so
    if depth < -CLEAR:
        raise ConfigError(
            f"the initial and the unsafe set meet: at {short(state[0].tolist())}, where {initial.name} of the initial set is "
            f"{of_initial:.3g} and {unsafe.name} of the unsafe one {of_unsafe:.3g}, B would have to be <= 0 and > 0; give sets "
            "{g <= 0} without a common state"
        )


@dataclass(frozen=True)
class WithinSet(Violation):
    """A violation of a claim about a set: ``inside`` (B,) is positive in it and negative elsewhere, relative to a typical size."""

    inside: Tensor

    @property
    def relative(self) -> Tensor:
        """(B,) positive where a state of the set violates; of another state, how far it is from being one that does."""
        return torch.minimum(super().relative, self.inside)


@dataclass(frozen=True)
class OnSet:
    """An inequality on a set {g <= 0}: that ``excess`` (B, n) -> (B,) is <= 0 there, < 0 where it is ``strict``.

    ``bound`` is g. ``sign_of_excess`` and ``sign_of_bound`` tell their signs at a state for certain; None where nothing does.
    """

    excess: Callable[[Tensor], Tensor]
    bound: ForeignFunction
    sign_of_excess: Callable[[Tensor], Signed] | None
    sign_of_bound: Callable[[Tensor], Signed] | None
    strict: bool
    set_words: str

    @property
    def certain(self) -> Callable[[Tensor], Signed] | None:
        """The sign of the excess in the set; a state outside of it satisfies the claim by how far it is outside."""
        of_excess, of_bound = self.sign_of_excess, self.sign_of_bound
        if of_excess is None or of_bound is None:
            return None

        def sign(state: Tensor) -> Signed:
            found, excess = of_excess(state)
            side, bound = of_bound(state)
            if side == 1:
                return -1, -abs(bound)
            fails = found is None or found > 0 or (found == 0 and self.strict)
            return (None, excess) if fails and side is None else (found, excess)

        return sign


def on_set(subject: Subject, name: str) -> OnSet:
    """Return the inequality of "initial" or "unsafe", or of "barrier" in steps."""
    value = subject.value
    bound = value if name == "barrier" else subject.sets[name]
    alone = replace(subject, motion=None).certainty
    of_set = alone if name == "barrier" else replace(subject, value=bound, motion=None).certainty
    of_bound = None if of_set is None else of_set.of_value
    if name == "initial":
        return OnSet(value, bound, None if alone is None else alone.of_value, of_bound, False, "the initial set")
    if name == "unsafe":
        sign = None if alone is None else lambda state: _negated(*alone.of_value(state))
        return OnSet(lambda states: -value(states), bound, sign, of_bound, True, "the unsafe set")
    moved = subject.certainty
    # B(z+) is B(z+) - (1 - kappa) B(z) with kappa 1.
    sign = None if moved is None else lambda state: moved.of_excess(state, 1.0)
    return OnSet(lambda states: value(subject.flow(states)), bound, sign, of_bound, False, "{B <= 0}")


def initial(subject: Subject) -> Finding:
    """B <= 0 on the initial set."""
    return _judge_on_set(subject, "initial")


def unsafe(subject: Subject) -> Finding:
    """B > 0 on the unsafe set."""
    return _judge_on_set(subject, "unsafe")


def barrier(subject: Subject) -> Finding:
    """B-dot < 0 where B = 0; in steps, B(z+) <= 0 where B(z) <= 0."""
    if subject.in_steps:
        return _judge_on_set(subject, "barrier")
    differentiation = subject.differentiation
    zeros = find_zero_set(
        subject.base,
        subject.value,
        lambda states: differentiation.gradient(states)[1],
        subject.typical_value,
        inner=differentiation.hole,
        seed=subject.seed,
    )
    if not isinstance(zeros, ZeroSet):
        state, value = zeros
        reason = (
            f"B has one sign at all states tried of {subject.base.words}: nearest to 0, at {short(state.tolist())}, it is {value:.3g}. "
            "With no state where B = 0, the claim says nothing; give a larger region, or another level of B."
        )
        return subject.finding("barrier", Verdict.INCONCLUSIVE, reason, samples=DRAWN)
    claim = replace(
        derivative_claim(subject, "barrier", 0.0, strict=True),
        certain=None if subject.certainty is None else lambda state: sign_where_zero(subject, state),
    )
    found = judge(claim, zeros, seed=subject.seed, effort=subject.effort)
    if found.witness is not None and found.verdict is Verdict.REFUTED and subject.certainty is not None:
        sign, _ = subject.certainty.of_value(torch.tensor(found.witness["state"], dtype=torch.float64))
        return found if sign == 0 else replace(found, evidence=f"{found.evidence} {_SEGMENT}")
    if found.verdict is Verdict.SUPPORTED and found.margin is not None and found.margin <= claim.tolerance:
        reason = (
            f"Where B = 0, B-dot is as large as {0.0 - found.margin:.3g} of its terms' size, and not shown to be negative or otherwise: "
            "a state where B is exactly 0 need not be a machine number. If B never rises, as an energy, the claim decay with alpha 0 shows "
            "the same."
        )
        return replace(found, verdict=Verdict.INCONCLUSIVE, margin=None, evidence=f"{reason} {found.evidence}")
    return found


_SEGMENT = (
    "That state has B = 0 to rounding: on a segment through it, on which B changes its sign for certain, B-dot has the sign given "
    "throughout, so a state with B = 0 violates."
)


def certain_sign(subject: Subject, name: str) -> Callable[[Tensor], Signed] | None:
    """Return what tells the sign of the excess of a claim on a set at a state for certain; None where nothing does."""
    return on_set(subject, name).certain if name != "barrier" or subject.in_steps else None


def sign_where_zero(subject: Subject, state: Tensor) -> Signed:
    """Return the sign of B-dot at a state with B = 0 next to ``state`` (n,), None where it is open, and about what B-dot is.

    At ``state`` itself, if B is 0 there; else on a segment of the region along the slope of B, from a state where B is negative for
    certain to one where it is positive. B-dot is bounded on a box that holds the segment; where B has a slope all over it, B is continuous
    there, and 0 on the way.
    """
    certainty, base = subject.certainty, subject.base
    assert certainty is not None
    assert certainty.motion is not None
    at_state = certainty.of_excess(state, 0.0)
    sign, value = certainty.of_value(state)
    if sign == 0:
        return at_state
    gradient = subject.differentiation.gradient(state[None])[1][0].detach()
    steepness = float(gradient.norm())
    if not 0 < steepness < torch.inf:
        return None, at_state[1]
    half = 4 * abs(value) / steepness + torch.finfo(torch.float64).eps * (float(state.norm()) + base.radius)
    for _ in range(TIMES):
        ends = base.project(torch.stack([state - half * gradient / steepness, state + half * gradient / steepness]))
        signs = {certainty.of_value(end)[0] for end in ends}
        if signs >= {-1, 1} and all(surely_contains(base, end) for end in ends):
            with ctx.workprec(BITS):
                hull = exact(ends[0])
                hull[:] = [a.union(b) for a, b in zip(hull, exact(ends[1]), strict=True)]
                along = evaluate(certainty.value, hull, evaluate(certainty.motion, hull).value).slope
                slope = arb(0) if along is None else along.reshape(-1)[0]
                found = 1 if slope > 0 else -1 if slope < 0 else None
            return (found, float(slope.mid())) if found else (None, at_state[1])
        half *= LENGTHENED
    return None, at_state[1]


def prove_of_barrier(subject: Subject, name: str) -> Proof | Unproved:
    """Return the proof on boxes of a claim about a barrier, or why there is none."""
    limits = {"max_boxes": subject.boxes, "deadline": subject.deadline}
    if name != "barrier":
        bound = subject.sets[name]
        if bound.is_numpy:
            return Unproved(bound.why_unread)
        words = "B <= 0 on the initial set" if name == "initial" else "B > 0 on the unsafe set"
        is_positive = name == "unsafe"
        return prove_on_set(subject.value, bound, subject.base, words, strictly_positive=is_positive, **limits)
    if not subject.in_steps:
        return prove_barrier(subject.value, subject.flow, subject.base, **limits)
    words = "B(z+) <= 0 wherever B(z) <= 0"

    def after(states: Tensor) -> Tensor:
        return subject.value(subject.flow(states))

    return prove_on_set(after, subject.value, subject.base, words, strictly_positive=False, **limits)


def with_consequence(subject: Subject, findings: list[Finding]) -> list[Finding]:
    """Return the findings, with what follows where the claims about the two sets are proved, and "barrier", or "decay" of all states."""
    proved = {finding.check for finding in findings if finding.verdict is Verdict.PROVED}
    if not proved >= {"initial", "unsafe"}:
        return findings
    follows = (
        f"Nothing that starts in the initial set reaches the unsafe set before it leaves {subject.base.words}, as the three claims say "
        "together."
    )
    keeping = proved & ({"barrier"} if subject.hole else {"barrier", "decay"})
    return [
        replace(finding, evidence=f"{follows} {finding.evidence}") if finding.check in keeping else finding
        for finding in findings
    ]


def _judge_on_set(subject: Subject, name: str) -> Finding:
    """Judge an inequality on a set; INCONCLUSIVE where no state of the set is found."""
    inequality, base = on_set(subject, name), subject.base
    bound, excess_of = inequality.bound, inequality.excess
    generator = torch.Generator().manual_seed(subject.seed)
    drawn = base.sample(DRAWN, generator)
    with torch.no_grad():
        typical = _size(bound(drawn))
        deepest = extreme(base, bound, drawn, -1, generator)[0]
        least = float(bound(deepest[None]))
    if not least <= 0:
        reason = (
            f"No state of {inequality.set_words} was found in {base.words}: {bound.name} is at least {least:.3g} there, at "
            f"{short(deepest.tolist())}, and the set is where it is at most 0. The claim would say nothing; give a larger region, or "
            "mend the function."
        )
        return subject.finding(name, Verdict.INCONCLUSIVE, reason, samples=DRAWN)
    size = subject.typical_value + NOISE_MARGIN * subject.noise(excess_of) / subject.tolerance

    def violation(states: Tensor) -> WithinSet:
        excess, g = excess_of(states), bound(states)
        inside = -g / (g.abs() + typical)
        # Outside of the set the way into it counts, in units of B.
        drawn_in = torch.where(g > 0, torch.minimum(excess, size * inside), excess)
        return WithinSet(drawn_in, excess.abs() + size, inside)

    def describe(state: Tensor) -> dict[str, Any]:
        with torch.no_grad():
            of_value, of_set = float(subject.value(state[None])), float(bound(state[None]))
            next_state = {"next": subject.flow(state[None])[0].tolist()} if name == "barrier" else {}
        return {"value": of_value, "set": of_set} | next_state

    # What can be read is seen to be in float64.
    unread = inequality.certain is None
    claim = Claim(
        check=name,
        name=name,
        sentence=subject.sentence(name),
        violation=violation,
        tolerance=max(subject.tolerance, tolerance(bound.dtype, len(base.centre))) if unread else subject.tolerance,
        strict=inequality.strict,
        describe=describe,
        certain=inequality.certain,
    )
    return judge(claim, base, seed=subject.seed, effort=subject.effort)


def _size(numbers: Tensor) -> float:
    """Return the median of |``numbers``|, 1 where that is 0."""
    return float(numbers.abs().nan_to_num(nan=0.0, posinf=0.0).median()) or 1.0


def _negated(sign: int | None, number: float) -> Signed:
    return None if sign is None else -sign, -number
