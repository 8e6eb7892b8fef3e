"""Sublevel sets of V: how far they reach, whether they are closed, and the largest one on which a claim holds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import floor, log10
from typing import Any

import torch
from torch import Tensor

from analysis.evidence.falsifier import falsify
from analysis.evidence.judge import Effort
from analysis.evidence.regions import Ball, Region, Sublevel
from analysis.evidence.sampling import directions
from analysis.findings import Finding, Verdict, short
from analysis.user_function.function import ForeignFunction
from analysis.user_function.sentences import sentence
from analysis.user_function.subject import Subject
from stabdeq.errors import ConfigError
from stabdeq.lyapunov.claims import Violation

RAYS, DESCENTS = 1024, 32
STEPS, DESCENT_STEPS = 64, 80
# Levels are told apart to this part of themselves, and none is sought below this part of the largest closed one.
RESOLUTION, SMALLEST = 4e-3, 1e-9
QUICK = Effort(samples=1024, starts=16, steps=25)


def boundary_of(region: Region) -> Sublevel:
    """Return the boundary {V = level} of a sublevel set."""
    assert isinstance(region, Sublevel)
    return replace(region, on_boundary=True)


def low_rays(value: Callable[[Tensor], Tensor], centre: Tensor, radius: float, seed: int) -> Tensor:
    """Return unit vectors (1056, n): 1024 drawn ones, and those on which V at ``radius`` is least, sought by descent."""
    generator = torch.Generator().manual_seed(seed)
    drawn = directions(RAYS, len(centre), generator)
    with torch.no_grad():
        lowest = value(centre + radius * drawn).argsort()[:DESCENTS]

    def onto_sphere(states: Tensor) -> Tensor:
        offset = states - centre
        distance = offset.norm(dim=1, keepdim=True)
        return centre + offset * (radius / torch.where(distance == 0, 1, distance))

    def depth(states: Tensor) -> Violation:
        found = value(states)
        return Violation(-found, torch.ones_like(found))

    descended = falsify(
        depth,
        centre + radius * drawn[lowest],
        onto_sphere,
        first_step=torch.full((DESCENTS,), 0.25 * radius, dtype=torch.float64),
        generator=generator,
        steps=60,
    )
    return torch.cat([drawn, (descended.states - centre) / radius])


def open_ray(boundary: Sublevel, seed: int) -> Tensor | None:
    """Return a unit vector (n,) along which V is still within its level at the region's radius, if one is found."""
    rays = low_rays(boundary.value, boundary.centre, boundary.radius, seed)
    is_open = (boundary.reach(rays) >= (1 - 1e-9) * boundary.radius).squeeze(1)
    return rays[int(is_open.nonzero()[0])] if bool(is_open.any()) else None


def sublevel_radius(value: ForeignFunction, centre: Tensor, level: float) -> float:
    """Return a distance at which V exceeds ``level`` in all directions tried; raise ConfigError where none is found."""
    for exponent in range(-10, 21):
        radius = 2.0**exponent
        with torch.no_grad():
            is_outside = bool((value(centre + radius * directions(256, len(centre), _generator())) > level).all())
            if is_outside and bool((value(centre + radius * low_rays(value, centre, radius, 0)) > level).all()):
                return 2 * radius
    raise ConfigError(
        f"V stays at most {level:g} as far as 1e6 from the centre: give --radius to bound the search, or a smaller --sublevel"
    )


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@dataclass(frozen=True)
class LevelSearch:
    """What a bisection over levels found within ``radius``.

    The claim is not refuted up to ``supported`` above V(c), 0 where no level was found; ``refuted`` is the finding at the
    least level ``refuted_level`` at which it failed, None where it failed at none up to the largest closed level.
    """

    subject: Subject
    radius: float
    supported: float
    refuted: Finding | None
    refuted_level: float


def search_levels(subject: Subject, radius: float, judge: Callable[[Subject], Finding]) -> LevelSearch:
    """Bisect for the largest level on whose set within ``radius`` the claim that ``judge`` judges is not refuted.

    A witness z bounds the level by V(z) at once. ``judge`` is called with little effort here.
    """
    base, closed = _closed_level(subject, radius)
    low, high = 0.0, closed - base
    refuted, estimate = None, 0.0
    trial = high * (1 - RESOLUTION)
    while trial > SMALLEST * (closed - base):
        finding = judge(at_level(replace(subject, effort=QUICK), radius, base + trial))
        if finding.verdict is Verdict.SUPPORTED:
            low = trial
        else:
            refuted, high = finding, min(trial, level_of(subject, finding, base + trial) - base)
            low = low if low < high else 0.0
            estimate = _least_level(subject, finding) - base
        if refuted is None or high - low <= RESOLUTION * high:
            break
        middle = (low + high) / 2 if low else high / 4
        # Just above the estimate, to see the claim fail there, then just below, to see it hold.
        near = [estimate * (1 + part * RESOLUTION) for part in (0.5, -0.5)]
        trial = next((level for level in near if low < level < high * (1 - RESOLUTION / 4)), middle)
    return LevelSearch(subject, radius, low, refuted, base + high)


def _least_level(subject: Subject, finding: Finding) -> float:
    """Return about the least V at which V-dot + alpha V >= 0, sought downwards from the witness of ``finding``."""
    if finding.witness is None:
        return -torch.inf
    rate = (subject.alpha or 0.0) if finding.check == "decay" else 0.0
    generator = torch.Generator().manual_seed(subject.seed)
    states = torch.tensor(finding.witness["state"], dtype=torch.float64).expand(DESCENTS, -1)
    best = torch.full((DESCENTS,), torch.inf, dtype=torch.float64)
    length = 0.1 * (states - subject.centre).norm(dim=1)
    for step in range(DESCENT_STEPS):
        moved = states + length[:, None] * directions(DESCENTS, states.shape[1], generator) if step else states
        value, gradient = subject.differentiation.gradient(moved)
        fails = (gradient * subject.flow(moved)).sum(1) + rate * value >= 0
        better = (fails & (value < best)).detach()
        states, best = torch.where(better[:, None], moved, states).detach(), torch.where(better, value, best).detach()
        length = length * torch.where(better, 1.5, 0.8)
    return float(best.min())


def largest_level(search: LevelSearch, name: str, judge: Callable[[Subject], Finding]) -> Finding:
    """Return the finding on the largest sublevel set that a full judgement does not refute, ``search`` being where to begin."""
    subject, radius = search.subject, search.radius
    base = float(subject.value(subject.centre[None]).detach())
    trial, refuted, refuted_level = search.supported, search.refuted, search.refuted_level
    retreat = RESOLUTION
    while trial > 0:
        level = _rounded_down(base + trial)
        finding = judge(at_level(subject, radius, level))
        if finding.verdict in (Verdict.SUPPORTED, Verdict.PROVED):
            return _found(finding, level, radius, refuted, refuted_level)
        refuted, refuted_level = finding, level_of(subject, finding, level)
        trial, retreat = (min(level, refuted_level) - base) * (1 - retreat), 2 * retreat
        if retreat >= 1:
            break
    claim = sentence(name, "some sublevel set of V around the centre", subject.alpha)
    if refuted is None:
        reason = (
            f"In some direction V does not rise above V(c) = {base:.6g} within {radius:g} of the centre, so no sublevel set is "
            "closed there: give another --radius, or mend V."
        )
        return replace(subject.finding(name, Verdict.INCONCLUSIVE, reason), claim=claim)
    evidence = f"The claim fails at every level tried, down to {refuted_level:.4g}. There: {refuted.evidence}"
    return replace(refuted, claim=claim, evidence=evidence)


def at_level(subject: Subject, radius: float, level: float) -> Subject:
    """Return the subject on {V <= level}, within a distance that fits the set, at most ``radius``."""
    rays = low_rays(subject.value, subject.centre, radius, subject.seed)
    whole = Sublevel(subject.centre, radius, subject.value, level)
    # Twice the farthest that was seen: what lies between the rays may reach further.
    reach = min(radius, 2 * float(whole.reach(rays).max()))
    return replace(subject, region=replace(whole, radius=reach) if reach > 0 else whole)


def level_of(subject: Subject, finding: Finding, otherwise: float) -> float:
    """Return V at the witness of ``finding``, or ``otherwise`` where there is none or V is not finite."""
    if finding.witness is None:
        return otherwise
    state = torch.tensor([finding.witness["state"]], dtype=torch.float64)
    with torch.no_grad():
        value = float(subject.value(state))
    return value if abs(value) < float("inf") else otherwise


def ball_of(search: LevelSearch) -> Ball:
    """Return the ball that was searched."""
    return Ball(search.subject.centre, search.radius)


@torch.no_grad()
def _closed_level(subject: Subject, radius: float) -> tuple[float, float]:
    """Return V(c), and the largest level whose set ends before ``radius`` along every ray tried."""
    rays = low_rays(subject.value, subject.centre, radius, subject.seed)
    lengths = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)[1:, None, None] * radius
    values = subject.value((subject.centre + lengths * rays).flatten(0, 1)).unflatten(0, (STEPS, len(rays)))
    highest = values.nan_to_num(nan=-torch.inf).amax(0)
    return float(subject.value(subject.centre[None])), float(highest.min())


def _rounded_down(level: float) -> float:
    """Return the level with four digits, not above itself: a number that a reader can give back."""
    unit = 10.0 ** (floor(log10(abs(level))) - 3) if level else 1.0
    return min(float(f"{floor(level / unit) * unit:.4g}"), level)


def _found(finding: Finding, level: float, radius: float, refuted: Finding | None, refuted_level: float) -> Finding:
    if refuted is None:
        limit = f"No larger set is closed within {radius:g} of the centre: a larger --radius may give a larger level."
        return replace(finding, evidence=f"{limit} {finding.evidence}")
    witness: dict[str, Any] = {"level": level, "refuted_level": refuted_level, **(refuted.witness or {})}
    at = f" at {short(witness['state'])}" if "state" in witness else ""
    word = "refuted" if refuted.verdict is Verdict.REFUTED else "not settled"
    limit = f"The largest level found by bisection: at {refuted_level:.5g} the claim is {word}{at}."
    return replace(finding, evidence=f"{limit} {finding.evidence}", witness=witness)
