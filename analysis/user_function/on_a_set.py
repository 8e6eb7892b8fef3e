"""States on a set {h = 0}: h as the user gave it, and signs that are certain at a true state of the set.

A machine number seldom has h = 0. A state that has it to rounding stands for the true zero next to it, which ball arithmetic encloses:
a claim is refuted where it surely fails all over that enclosure.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from flint import arb, ctx
from torch import Tensor

from analysis.evidence.claim import Claim
from analysis.evidence.constrained import DRAWN, Constrained
from analysis.evidence.judge import judge
from analysis.evidence.regions import Ball, Box, Region
from analysis.evidence.sampling import INNERMOST
from analysis.evidence.sublevel import Sublevel
from analysis.findings import Finding, Verdict, short
from analysis.proofs.balls import Balls, evaluate, exact, sign_of
from analysis.proofs.balls.zeros import near
from analysis.user_function.certainty import Certainty
from analysis.user_function.function import ForeignFunction, load_function
from analysis.user_function.subject import Subject
from stabdeq.constraint import columns, onto_set, slopes
from stabdeq.errors import ConfigError

Signed = tuple[int | None, float]
HELD = 64  # states whose enclosures are remembered
CLEAR = 1e-9  # of its terms' size: what a state that is on the set to rounding does not violate a claim by, if no true one does


def load_constraint(given: str | Callable[[Any], Any], dim: int, trial: Tensor) -> ForeignFunction:
    """Return h, (B, dim) -> (B,) or (B, k), of the set {h = 0}, after a try at the states ``trial`` (B, dim).

    Raises ConfigError where it is no such function, returns truths or NaN, or has no slope by autograd.
    """
    try:
        function = load_function(given, dim, "constraint", trial=trial, unnamed="h")
    except ConfigError as error:
        raise ConfigError(f"on: {error}") from error
    result, dtype = function(trial).detach(), function.raw(trial).dtype
    if function.width == 0:
        raise ConfigError(
            f"on: {function.name} returns no numbers, shape {tuple(result.shape)}; expected (B,) or (B, k)"
        )
    if dtype == torch.bool:
        raise ConfigError(
            f"on: {function.name} returns truths; expected numbers that are 0 on the set, such as (z**2).sum(1) - 1 in place of "
            "(z**2).sum(1) == 1"
        )
    if bool(result.isnan().any()):
        state = trial[int(columns(result).isnan().any(1).nonzero()[0])]
        raise ConfigError(
            f"on: {function.name} is NaN at {short(state.tolist())}; give numbers that are 0 on the set alone"
        )
    if function.is_numpy or not function.is_differentiable:
        raise ConfigError(
            f"on: {function.name} has no gradient by autograd, along which the set is found: write it in PyTorch operations"
        )
    if dtype != torch.float64:
        raise ConfigError(
            f"on: {function.name} computes in {str(dtype).removeprefix('torch.')}, in which it is 0 to 1e-7 at best; expected float64, as "
            "the states are: leave out the conversion"
        )
    return function


def constrained(region: Region, constraint: ForeignFunction, value: ForeignFunction) -> Constrained:
    """Return the states of ``region`` with h = 0; raise ConfigError where its centre is none, or no state is found."""
    if isinstance(region, Sublevel):
        found = Constrained(region.base, value, region.level, region.lower, constraint=constraint)
    else:
        assert isinstance(region, Ball | Box)
        found = Constrained(region, value, constraint=constraint)
    whole, centre = replace(found, level=torch.inf, lower=-torch.inf), found.centre[None]
    at_centre = bool(whole.contains(centre)[0])
    if not len(whole.anchors):
        states = onto_set(constraint, whole.base.sample(DRAWN, torch.Generator().manual_seed(0)))
        sizes = columns(constraint(whole.base.project(states)).detach()).abs().amax(1)
        raise ConfigError(
            f"on: no state of {whole.base.words} was found with {constraint.name} = 0: its size is at least "
            f"{float(sizes.min()):.3g} at those tried; give a larger region, or a function that has a slope where it is 0"
        )
    if not at_centre:
        at = short(columns(constraint(centre).detach())[0].tolist())
        raise ConfigError(
            f"on: the centre {short(centre[0].tolist())} is not on the set: {constraint.name} is {at} there, and not 0; give the "
            "equilibrium as centre"
        )
    if not bool(((whole.anchors - centre).norm(dim=1) > INNERMOST * whole.radius).any()):
        raise ConfigError(
            f"on: of {whole.base.words} the centre alone was found with {constraint.name} = 0: there is nothing to judge; give a larger "
            "region, or a function that is 0 elsewhere too, and has a slope there"
        )
    if not len(found.anchors):
        raise ConfigError(f"no state was found of {found.words}: give other levels, or a larger region")
    return found


def on_true_states(certainty: Certainty, region: Constrained) -> Certainty:
    """Return ``certainty`` at the true state of the ``region`` next to a state, or at NaN where none is enclosed."""
    graph = certainty.constraint
    assert graph is not None

    def equations(z: np.ndarray, along: np.ndarray | None) -> list[Balls]:
        found = [evaluate(graph, z, along)]
        if region.on_boundary:
            value = evaluate(certainty.value, z, along)
            found.append(Balls(value.value - arb(region.level), value.slope))
        return found

    @lru_cache(maxsize=HELD)
    def enclosed(state: tuple[float, ...], _: int) -> np.ndarray:
        numbers = torch.tensor(state, dtype=torch.float64)
        jacobian = slopes(region.equations, numbers[None])[1][0]
        return near(equations, numbers, jacobian / jacobian.abs().amax(1, keepdim=True))

    return replace(certainty, place=lambda state: enclosed(tuple(state.tolist()), ctx.prec))


def surely_on(certainty: Certainty, region: Constrained, hole: float, state: Tensor) -> bool:
    """Return whether the true state that ``certainty`` has next to ``state`` surely lies in the region and outside of the ``hole``."""
    base, place = region.base, certainty.place

    def square() -> arb:
        offset = place(state) - exact(region.centre)
        return sum((offset * offset).tolist(), start=arb(0))

    room = [lambda: square() - arb(hole) ** 2]
    if isinstance(base, Ball):
        room.append(lambda: arb(base.radius) ** 2 - square())
    else:
        for side in range(len(state)):
            room.append(lambda side=side: place(state)[side] - arb(float(base.low[side])))
            room.append(lambda side=side: arb(float(base.high[side])) - place(state)[side])
    if not all(sign_of(one) in (0, 1) for one in room):
        return False
    return region.on_boundary or certainty.is_between(state, region.lower, region.level)


def on_set(
    certainty: Certainty, region: Constrained, hole: float, state: Tensor, excess: Callable[[Tensor], Signed]
) -> Signed:
    """Return the sign of the ``excess`` of a claim next to ``state`` (n,), at a true state of the region; None where it is open."""
    sign, number = excess(state)
    if sign is None or sign < 0:
        return sign, number
    return sign if surely_on(certainty, region, hole, state) else None, number


def judge_on_set(subject: Subject, claim: Claim, region: Region) -> Finding:
    """Judge ``claim`` on ``region``, one on a set {h = 0}, whose ``certain`` sign is that at true states of the set."""
    on = subject.region
    assert isinstance(on, Constrained)
    on = region if isinstance(region, Constrained) else on
    violation, describe = claim.violation, claim.describe

    def described(state: Tensor) -> dict[str, Any]:
        h = columns(on.constraint(state[None]).detach())[0].tolist()
        return {**(describe(state) if describe else {}), "h": h}

    claim = replace(claim, violation=lambda states: violation(on.tangent(states)), describe=described)
    found = judge(claim, region, seed=subject.seed, effort=subject.effort)
    if found.verdict is Verdict.REFUTED and found.witness is not None and any(found.witness["h"]):
        return replace(found, evidence=f"{found.evidence} {_TO_ROUNDING if claim.certain is None else _NEXT_TO_IT}")
    least = claim.tolerance if claim.strict else -CLEAR
    if found.verdict is Verdict.SUPPORTED and found.margin is not None and found.margin <= least:
        reason = (
            f"At a state with h = 0 to rounding it fails, or is an equality, by {0.0 - found.margin:.3g} of its terms' size; that it fails "
            "at a true state of the set next to it is not certain."
        )
        return replace(found, verdict=Verdict.INCONCLUSIVE, margin=None, evidence=f"{reason} {found.evidence}")
    return found


_NEXT_TO_IT = (
    "That state has h = 0 to rounding: next to it Krawczyk's operator encloses a true state of the set. "
    "The claim surely fails there."
)
_TO_ROUNDING = "That state has h = 0 to rounding."
