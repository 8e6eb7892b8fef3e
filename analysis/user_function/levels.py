"""Sublevel sets of V: how far they reach, whether they are closed, and the largest one on which a claim holds."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, log10
from typing import Any

import torch
from torch import Tensor

from analysis.evidence.effort import Effort
from analysis.evidence.falsifier import falsify
from analysis.evidence.regions import Ball, Box, Region, polar
from analysis.evidence.sampling import directions
from analysis.evidence.sublevel import Sublevel
from analysis.findings import Finding, Verdict, short
from analysis.user_function.function import ForeignFunction
from analysis.user_function.sentences import sentence
from analysis.user_function.subject import Subject
from stabdeq.errors import ConfigError, EvaluationError
from stabdeq.lyapunov.claims import Violation

RAYS, DESCENTS = 1024, 32
STEPS, DESCENT_STEPS = 64, 80
# Levels are told apart to this part of themselves, and none is sought below this part of the largest closed one.
RESOLUTION, SMALLEST = 4e-3, 1e-9
# Levels tried at most with little effort, for each claim within one ball or box.
TRIALS = 32
# Full judgements at most. Each that refutes lowers the next level by four times the part of the one before, the first by RESOLUTION;
# one that does not ends the search where no more than the part COARSE lies between.
JUDGEMENTS, COARSE = 5, 0.016
QUICK = Effort(samples=1024, starts=16, steps=25)


def boundary_of(region: Region) -> Sublevel:
    """Return the boundary {V = level} of a sublevel set."""
    assert isinstance(region, Sublevel)
    return replace(region, lower=-inf, on_boundary=True)


def low_rays(value: Callable[[Tensor], Tensor], base: Ball | Box, seed: int) -> Tensor:
    """Return unit vectors (1056, n): 1024 drawn ones, and those on which V where ``base`` ends is least, sought by descent."""
    generator, centre = torch.Generator().manual_seed(seed), base.centre
    drawn = directions(RAYS, len(centre), generator)

    def at_edge(rays: Tensor) -> Tensor:
        return centre + base.exit(rays) * rays

    with torch.no_grad():
        lowest = value(at_edge(drawn)).argsort()[:DESCENTS]

    def depth(states: Tensor) -> Violation:
        found = value(states)
        return Violation(-found, torch.ones_like(found))

    descended = falsify(
        depth,
        at_edge(drawn[lowest]),
        lambda states: at_edge(polar(states, centre)[1]),
        first_step=0.25 * base.exit(drawn[lowest]).squeeze(1),
        generator=generator,
        steps=60,
    )
    return torch.cat([drawn, polar(descended.states, centre)[1]])


def open_edge(boundary: Sublevel, seed: int) -> Tensor | None:
    """Return a state (n,) at which the region's base ends and V is still within the level all along the ray to it, if one is found."""
    base = boundary.base
    rays = low_rays(boundary.value, base, seed)
    is_open = (boundary.reach(rays) >= (1 - 1e-9) * base.exit(rays)).squeeze(1)
    edges = base.centre + base.exit(rays) * rays
    if isinstance(base, Box):
        slack = 1e-9 * (base.high - base.low)
        at_face = (edges <= base.low + slack) | (edges >= base.high - slack)
        is_open &= at_face[:, : base.moving].any(1)
    return edges[is_open][0] if bool(is_open.any()) else None


def sublevel_radius(value: ForeignFunction, centre: Tensor, level: float) -> float:
    """Return a distance at which V exceeds ``level`` in all directions tried; raise ConfigError where none is found."""
    for exponent in range(-10, 21):
        radius = 2.0**exponent
        with torch.no_grad():
            is_outside = bool((value(centre + radius * directions(256, len(centre), _generator())) > level).all())
            if is_outside and bool((value(centre + radius * low_rays(value, Ball(centre, radius), 0)) > level).all()):
                return 2 * radius
    raise ConfigError(
        f"V stays at most {level:g} as far as 1e6 from the centre: give --radius to bound the search, or a smaller --sublevel"
    )


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@dataclass(frozen=True)
class LevelSearch:
    """What a bisection over levels found within ``base``.

    Sets begin at ``floor``, V(c) or the lower level that is given. The claim is not refuted up to ``supported`` above it, 0 where no
    level was found; ``refuted`` is the finding at the least level ``refuted_level`` at which it failed, None where it failed at none
    up to the largest closed level. ``tried`` counts the levels.
    """

    subject: Subject
    base: Ball | Box
    floor: float
    supported: float
    refuted: Finding | None
    refuted_level: float
    tried: int


def search_levels(subject: Subject, within: Ball | Box, judge: Callable[[Subject], Finding]) -> LevelSearch:
    """Bisect for the largest level on whose set ``within`` a ball or a box the claim that ``judge`` judges is not refuted.

    A witness z bounds the level by V(z) at once. ``judge`` is called with little effort here, ``TRIALS`` times at most, and no more
    after the subject's deadline.
    """
    at_centre, closed = _closed_level(subject, within)
    floor = max(at_centre, _lower(subject))
    low, high = 0.0, closed - floor
    refuted, estimate, tried = None, 0.0, 0
    trial = high * (1 - RESOLUTION)
    while trial > SMALLEST * (closed - floor) and tried < TRIALS and time.monotonic() < subject.deadline:
        finding, tried = judge(at_level(replace(subject, effort=QUICK), within, floor + trial)), tried + 1
        if finding.verdict is Verdict.SUPPORTED:
            low = trial
        else:
            refuted, high = finding, min(trial, level_of(subject, finding, floor + trial) - floor)
            low = low if low < high else 0.0
            estimate = _least_level(subject, finding, within) - floor
        if refuted is None or high - low <= RESOLUTION * high:
            break
        middle = (low + high) / 2 if low else high / 4
        # Just above the estimate, to see the claim fail there, then just below, to see it hold.
        near = [estimate * (1 + part * RESOLUTION) for part in (0.5, -0.5)]
        trial = next((level for level in near if low < level < high * (1 - RESOLUTION / 4)), middle)
    return LevelSearch(subject, within, floor, low, refuted, floor + high, tried)


def _lower(subject: Subject) -> float:
    return subject.region.lower if isinstance(subject.region, Sublevel) else -inf


def _least_level(subject: Subject, finding: Finding, within: Ball | Box) -> float:
    """Return about the least V at which a state fails ``within`` a ball or a box, sought from the witness of ``finding``."""
    if finding.witness is None:
        return -torch.inf
    generator = torch.Generator().manual_seed(subject.seed)
    states = torch.tensor(finding.witness["state"], dtype=torch.float64).expand(DESCENTS, -1)
    best = torch.full((DESCENTS,), torch.inf, dtype=torch.float64)
    length = 0.1 * (states - subject.centre).norm(dim=1)
    for step in range(DESCENT_STEPS):
        moved = states + length[:, None] * directions(DESCENTS, states.shape[1], generator) if step else states
        moved = within.project(moved)  # where it ends, V may be least of all that a step takes out
        try:
            value, excess = _value_and_excess(subject, finding.check, moved, within)
        except EvaluationError:
            break
        fails = (excess >= 0) & (value >= _lower(subject))
        fails &= (moved - subject.centre).norm(dim=1) >= subject.inner
        better = (fails & (value < best)).detach()
        states, best = torch.where(better[:, None], moved, states).detach(), torch.where(better, value, best).detach()
        length = length * torch.where(better, 1.5, 0.8)
    return float(best.min())


def _value_and_excess(subject: Subject, name: str, states: Tensor, within: Ball | Box) -> tuple[Tensor, Tensor]:
    """Return V (B,), and (B,) what is 0 or more where the claim ``name`` fails on {V <= V(z)}.

    That is V-dot + alpha V, or in steps V(z+) - (1 - kappa) V(z), and where none is to leave the set, how far z+ lies out of it.
    """
    rate = (subject.rate or 0.0) if name == "decay" or (subject.in_steps and name == "decrease") else 0.0
    if not subject.in_steps:
        value, gradient = subject.differentiation.gradient(states)
        return value, (gradient * subject.flow(states)).sum(1) + rate * value
    value, after = subject.value(states), subject.flow(states)
    excess = subject.value(after) - (1 - rate) * value
    return value, excess if name == "decrease" else torch.maximum(excess, within.beyond(after))


def largest_level(search: LevelSearch, name: str, judge: Callable[[Subject], Finding]) -> Finding:
    """Return the finding on the largest sublevel set that a full judgement does not refute, ``search`` being where to begin.

    ``judge`` is called once, and where it refutes, ``JUDGEMENTS`` times at most, but not again after the subject's deadline.
    """
    subject, within, floor = search.subject, search.base, search.floor
    trial, held, low, retreat = search.supported, None, 0.0, RESOLUTION
    for _ in range(JUDGEMENTS):
        if trial <= 0:
            break
        level = _rounded_down(floor + trial, floor)
        finding = judge(at_level(subject, within, level))
        search = replace(search, tried=search.tried + 1)
        if finding.verdict in (Verdict.SUPPORTED, Verdict.PROVED):
            held, low = (finding, level), level - floor
        else:
            failed = min(level, level_of(subject, finding, level))
            search = replace(search, refuted=finding, refuted_level=failed)
            if failed - floor <= low:  # a witness that was missed before
                held, low = None, 0.0
        high = search.refuted_level - floor
        if held is None:
            least = _least_level(subject, finding, within) - floor
            # So far below the witness, what was met is more likely rounding than the end of what fails.
            trial = min(high * (1 - retreat), least * (1 - RESOLUTION / 2) if least > high / 2 else high)
            retreat = min(4 * retreat, 0.9)
        elif search.refuted is None or high - low <= COARSE * high:
            break
        else:
            trial = (low + high) / 2
        if time.monotonic() >= subject.deadline:
            break
    return _not_found(search, name) if held is None else _found(*held, search)


def _not_found(search: LevelSearch, name: str) -> Finding:
    subject, within, refuted = search.subject, search.base, search.refuted
    if refuted is None:
        claim = sentence(name, "some sublevel set of V around the centre", subject.rate, in_steps=subject.in_steps)
        reason = (
            f"In some direction V does not rise above {_floor_words(search)} within {within.within}, so no sublevel set is closed there: "
            "give another --radius or --box, or mend V."
        )
        if search.refuted_level > search.floor:
            reason = "No level was tried: the time was over."
        return replace(subject.finding(name, Verdict.INCONCLUSIVE, reason), claim=claim)
    # The claim of the finding is of the set that it was judged on, which a witness refutes; of smaller sets it tells nothing.
    known = f"The claim fails at every level tried, down to {search.refuted_level:.4g} ({search.tried} tried): {_way_out(search)}"
    if search.supported > 0:
        known = (
            f"Of {search.tried} levels tried, {search.floor + search.supported:.4g} is the largest not refuted with little effort, and "
            f"{search.refuted_level:.4g} the least at which the claim fails with all of it."
        )
    return replace(refuted, evidence=f"{known} There: {refuted.evidence}")


def _floor_words(search: LevelSearch) -> str:
    return f"{'V(c) =' if _lower(search.subject) == -inf else 'the lower level'} {search.floor:.6g}"


def _way_out(search: LevelSearch) -> str:
    """Return what to do where the claim fails on the smallest sets."""
    if _lower(search.subject) > -inf:
        return f"it fails next to the level {search.floor:.6g}, give a larger --from-level."
    if search.subject.inner:
        return "it fails next to the ball that is left out, give a larger --inner-radius, or --from-level."
    return f"it fails next to the centre, where V is {search.floor:.6g}, give --from-level or --inner-radius."


def at_level(subject: Subject, within: Ball | Box, level: float) -> Subject:
    """Return the subject on {V <= level} within a ball or a box, its lower level kept: of a ball, one that fits the set."""
    whole = Sublevel(within, subject.value, level, _lower(subject))
    if isinstance(within, Ball):
        # Twice the farthest that was seen: what lies between the rays may reach further.
        reach = min(
            within.radius, float(f"{2.1 * float(whole.reach(low_rays(subject.value, within, subject.seed)).max()):.2g}")
        )
        whole = replace(whole, base=Ball(within.centre, reach)) if reach > 0 else whole
    return replace(subject, region=whole)


def level_of(subject: Subject, finding: Finding, otherwise: float) -> float:
    """Return V at the witness of ``finding``, or ``otherwise`` where there is none or V is not finite."""
    if finding.witness is None:
        return otherwise
    state = torch.tensor([finding.witness["state"]], dtype=torch.float64)
    with torch.no_grad():
        value = float(subject.value(state))
    return value if abs(value) < float("inf") else otherwise


@torch.no_grad()
def _closed_level(subject: Subject, within: Ball | Box) -> tuple[float, float]:
    """Return V(c), and the largest level whose set ends before ``within`` does along every ray tried.

    In steps it is the largest V on the rays: no step is to leave ``within``, which may bound the set.
    """
    rays = low_rays(subject.value, within, subject.seed)
    lengths = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)[1:, None, None] * within.exit(rays)
    values = subject.value((subject.centre + lengths * rays).flatten(0, 1)).unflatten(0, (STEPS, len(rays)))
    highest = values.nan_to_num(nan=-torch.inf).amax(0)
    return float(subject.value(subject.centre[None])), float(highest.max() if subject.in_steps else highest.min())


def _rounded_down(level: float, floor: float) -> float:
    """Return the level with four digits, not above itself, a number to give back; with all its digits if four are not above ``floor``."""
    unit = 10.0 ** (math.floor(log10(abs(level))) - 3) if level else 1.0
    short_level = min(float(f"{math.floor(level / unit) * unit:.4g}"), level)
    return short_level if short_level > floor else level


def _found(finding: Finding, level: float, search: LevelSearch) -> Finding:
    refuted, tried = search.refuted, f"{search.tried} level{'s' * (search.tried > 1)} tried"
    if refuted is None:
        within = search.base.within
        end = "V is hardly larger" if search.subject.in_steps else "No larger set is closed"
        limit = f"{end} within {within}: a larger region may give a larger level ({tried})."
        return replace(finding, evidence=f"{limit} {finding.evidence}", witness={"level": level})
    witness: dict[str, Any] = {"level": level, "refuted_level": search.refuted_level, **(refuted.witness or {})}
    at = f" at {short(witness['state'])}" if "state" in witness else ""
    word = "refuted" if refuted.verdict is Verdict.REFUTED else "not settled"
    least = f"{search.refuted_level:.5g} the least at which the claim is {word}{at}"
    limit = f"Of {tried}, {level:.5g} is the largest not refuted, and {least}."
    return replace(finding, evidence=f"{limit} {finding.evidence}", witness=witness)
