"""Claims about every state of a region: V is positive, convex, and falls along the dynamics."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from analysis.evidence.claim import Claim
from analysis.evidence.constrained import Constrained
from analysis.evidence.judge import judge
from analysis.evidence.noise import NOISE_MARGIN
from analysis.evidence.regions import Pairs, Region
from analysis.evidence.sublevel import Sublevel
from analysis.findings import Finding, Verdict, short
from analysis.user_function.certainty import Certainty
from analysis.user_function.function import ForeignFunction
from analysis.user_function.levels import boundary_of, open_edge
from analysis.user_function.on_a_set import judge_on_set, on_set, on_true_states
from analysis.user_function.sentences import OFF_CENTRE
from analysis.user_function.subject import Subject
from stabdeq.lyapunov import claims
from stabdeq.lyapunov.claims import Floored, Violation


def is_strict(subject: Subject, name: str) -> bool:
    """Return whether equality refutes the claim ``name``."""
    return name in ("positive", "unsafe") or (name == "decrease" and not (subject.in_steps and subject.rate))


def certain_sign(subject: Subject, name: str) -> Callable[[Tensor], tuple[int | None, float]] | None:
    """Return what tells the sign of the excess of the claim ``name`` at a state for certain; None where nothing does."""
    if subject.certainty is None:
        return None
    certainty: Certainty = subject.certainty
    region = subject.region
    if isinstance(region, Constrained):
        region = replace(region, on_boundary=name == "invariant" and not subject.in_steps)
        certainty = on_true_states(certainty, region)
    rate = (subject.rate or 0.0) if name == "decay" or subject.in_steps else 0.0
    special: dict[str, Callable[[Tensor], tuple[int | None, float]]] = {
        "positive": lambda state: _negated(*certainty.of_value(state)),
        "convex": certainty.of_bulge,
    }
    if subject.in_steps:
        special["invariant"] = lambda state: certainty.of_leaving(state, subject.base, subject.level)
    found = special.get(name, lambda state: certainty.of_excess(state, rate))
    if isinstance(region, Constrained):
        off_centre = name in OFF_CENTRE
        where = region if off_centre else replace(region, lower=-math.inf)
        return lambda state: on_set(certainty, where, subject.hole if off_centre else 0.0, state, found)
    if not isinstance(region, Sublevel):
        return found
    if name == "invariant" and not subject.in_steps:
        return lambda state: certainty.of_excess_on_level(state, region.centre, region.level)
    lower, level = region.lower if name in OFF_CENTRE else -math.inf, region.level

    def within(state: Tensor) -> tuple[int | None, float]:
        sign, number = found(state)
        if sign is None or sign < 0:
            return sign, number
        parts = state.chunk(2) if name == "convex" else [state]
        # A state that is beyond a level, if only by rounding, is no counterexample.
        return sign if all(certainty.is_between(one, lower, level) for one in parts) else None, number

    return within


def positive(subject: Subject) -> Finding:
    """V > 0 off the centre."""
    floor = NOISE_MARGIN * subject.value_noise / subject.tolerance

    def violation(states: Tensor) -> Violation:
        value = subject.value(states)
        plain = claims.positive(value, torch.zeros_like(value))
        # V relative to itself is 1 everywhere: only a typical growth shows the climb where V is small for its distance. It
        # is kept from hiding a V that truly grows more slowly, such as x^8.
        growth = subject.typical_curvature * (states - subject.centre).square().sum(1)
        return Floored(plain.excess, plain.scale + floor + torch.minimum(growth, 1e9 * value.abs()), plain.scale)

    claim = Claim(
        check="positive",
        name="positive",
        sentence=subject.sentence("positive"),
        violation=violation,
        tolerance=subject.tolerance,
        strict=True,
        describe=lambda state: {"value": _number(subject.value, state)},
        certain=certain_sign(subject, "positive"),
    )
    return _judge(subject, claim, subject.claimed_region)


def convex(subject: Subject) -> Finding:
    """V((a + b) / 2) <= (V(a) + V(b)) / 2."""
    floor = NOISE_MARGIN * subject.value_noise / subject.tolerance

    def violation(pairs: Tensor) -> Violation:
        a, b = pairs.chunk(2, 1)
        plain = claims.convex(subject.value((a + b) / 2), subject.value(a), subject.value(b))
        return Floored(plain.excess, plain.scale + floor, plain.scale)

    def describe(pair: Tensor) -> dict[str, Any]:
        a, b = pair.chunk(2)
        middle = (a + b) / 2
        named = {"state": middle, "a": a, "b": b}
        values = {"value": middle, "value_a": a, "value_b": b}
        return {key: state.tolist() for key, state in named.items()} | {
            key: _number(subject.value, state) for key, state in values.items()
        }

    claim = Claim(
        check="convex",
        name="convex",
        sentence=subject.sentence("convex"),
        violation=violation,
        tolerance=subject.tolerance,
        describe=describe,
        certain=certain_sign(subject, "convex"),
    )
    return judge(claim, Pairs(subject.whole_region), seed=subject.seed, effort=subject.effort)


def decrease(subject: Subject) -> Finding:
    """V-dot < 0 off the centre; V(z+) < V(z), or <= (1 - kappa) V(z), in steps."""
    if subject.in_steps:
        return _judge_step(subject)
    claim = derivative_claim(subject, "decrease", 0.0, strict=True)
    return _judge(subject, claim, subject.judged_region)


def decay(subject: Subject) -> Finding:
    """V-dot <= -alpha V."""
    assert subject.rate is not None
    claim = derivative_claim(subject, "decay", subject.rate)
    return _judge(subject, claim, subject.judged_region)


def invariant(subject: Subject) -> Finding:
    """V-dot <= 0 on the boundary of the sublevel set: where it is 0, trajectories run along the boundary. No step leaves the region."""
    if subject.in_steps:
        return _judge_stay(subject)
    boundary = boundary_of(subject.region)
    if isinstance(boundary, Constrained):
        return _judge_boundary_on_set(subject, boundary)
    edge = open_edge(boundary, subject.seed)
    if edge is None:
        claim = derivative_claim(subject, "invariant", 0.0)
        return judge(claim, boundary, seed=subject.seed, effort=subject.effort)
    reason = (
        f"V is still at most {boundary.level:g} where {boundary.base.words} ends, at {short(edge.tolist())}: the set is not closed there, "
        "so its boundary was not seen. Give a larger region or a smaller --sublevel."
    )
    witness = {"state": edge.tolist()}
    return subject.finding("invariant", Verdict.INCONCLUSIVE, reason, witness=witness)


def _judge_boundary_on_set(subject: Subject, boundary: Constrained) -> Finding:
    if len(boundary.anchors):
        return judge_on_set(subject, derivative_claim(subject, "invariant", 0.0), boundary)
    reason = f"No state was found of {boundary.words}: nothing is said of trajectories that leave it. Give another --sublevel."
    return subject.finding("invariant", Verdict.INCONCLUSIVE, reason)


def derivative_claim(subject: Subject, name: str, alpha: float, *, strict: bool = False) -> Claim:
    """Return the claim V-dot <= -``alpha`` V, or V-dot < -``alpha`` V where ``strict``."""
    tolerance = subject.derivative_tolerance
    differentiation = subject.differentiation

    def measured(states: Tensor, *, by_second_path: bool) -> Violation:
        value, gradient = differentiation.gradient(states)
        velocity = subject.flow(states)
        # V counts where alpha is 0, too: autograd gives a slope to some V that are NaN.
        plain = claims.decay(gradient, velocity, value, alpha)
        noise = subject.derivative_noise(gradient, velocity) + alpha * subject.value_noise
        excess = plain.excess
        if by_second_path:
            excess = differentiation.along(states, velocity.detach()) + alpha * value
        return Floored(excess, plain.scale + NOISE_MARGIN / tolerance * noise, plain.scale)

    def describe(state: Tensor) -> dict[str, Any]:
        value, gradient = differentiation.gradient(state[None])
        velocity = subject.flow(state[None])
        return {
            "value": float(value.detach()),
            "velocity": velocity.detach()[0].tolist(),
            "derivative": float((gradient * velocity).sum().detach()),
        }

    return Claim(
        check=name,
        name=name,
        sentence=subject.sentence(name),
        violation=lambda states: measured(states, by_second_path=False),
        tolerance=tolerance,
        replay=lambda states: measured(states, by_second_path=True),
        replayed_by=differentiation.second_path,
        strict=strict,
        describe=describe,
        note=differentiation.note,
        certain=certain_sign(subject, name),
    )


def _judge_step(subject: Subject) -> Finding:
    """Judge V(z+) < V(z), or V(z+) <= (1 - kappa) V(z)."""
    rate = subject.rate or 0.0

    def difference(states: Tensor) -> Tensor:
        return subject.value(subject.flow(states)) - (1 - rate) * subject.value(states)

    floor = NOISE_MARGIN * subject.noise(difference) / subject.tolerance

    def violation(states: Tensor) -> Violation:
        before, after = subject.value(states), subject.value(subject.flow(states))
        scale = before.abs() + after.abs()
        return Floored(after - (1 - rate) * before, scale + floor, scale)

    def describe(state: Tensor) -> dict[str, Any]:
        with torch.no_grad():
            after = subject.flow(state[None])
        return {
            "value": _number(subject.value, state),
            "next": after[0].tolist(),
            "next_value": float(subject.value(after)),
        }

    claim = Claim(
        check="decrease",
        name="decrease",
        sentence=subject.sentence("decrease"),
        violation=violation,
        tolerance=subject.tolerance,
        strict=is_strict(subject, "decrease"),
        describe=describe,
        certain=certain_sign(subject, "decrease"),
    )
    return _judge(subject, claim, subject.judged_region)


def _judge_stay(subject: Subject) -> Finding:
    """Judge that the next state of each state of the region is one of the region: in its base, and V at most its level there."""
    base, level = subject.base, subject.level

    def violation(states: Tensor) -> Violation:
        after = subject.flow(states)
        excess = base.beyond(after)
        if level < torch.inf:
            value = subject.value(after)
            excess = torch.maximum(excess, (value - level) / (value.abs() + abs(level)))
        return Violation(excess, torch.ones_like(excess))

    claim = Claim(
        check="invariant",
        name="invariant",
        sentence=subject.sentence("invariant"),
        violation=violation,
        tolerance=subject.tolerance,
        describe=lambda state: {"next": subject.flow(state[None]).detach()[0].tolist()},
        certain=certain_sign(subject, "invariant"),
    )
    return _judge(subject, claim, subject.whole_region)


def _judge(subject: Subject, claim: Claim, region: Region) -> Finding:
    if subject.constraint is not None:
        return judge_on_set(subject, claim, region)
    return judge(claim, region, seed=subject.seed, effort=subject.effort)


def _negated(sign: int | None, number: float) -> tuple[int | None, float]:
    return None if sign is None else -sign, -number


def _number(function: ForeignFunction, state: Tensor) -> float:
    with torch.no_grad():
        return float(function(state[None]))
