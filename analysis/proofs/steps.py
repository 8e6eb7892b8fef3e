"""Proofs of the claims about V along steps z+ = g(z), by interval bounds on boxes that cover the region.

Around the centre, where V(z+) - (1 - kappa) V(z) vanishes and no bound on a box can be strict, Taylor's theorem closes the gap, as it
does for V > 0 in ``analysis.proofs.boxes``: the difference and its gradient are 0 at c, and its Hessian is negative definite.
"""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor

from analysis.evidence.regions import Ball, Region
from analysis.evidence.sublevel import Sublevel
from analysis.findings import exactly
from analysis.proofs.box_search import Proof, Search, Unproved, mean_value
from analysis.proofs.boxes import EXACTLY, is_definite, matrices, searched, size, vanishing, weights
from analysis.proofs.falling import along_steps
from analysis.proofs.intervals.branch_and_bound import Examined
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.lie_derivative import composed
from analysis.proofs.tracing import trace


def prove_of_steps(
    name: str,
    value: Callable[[Tensor], Tensor],
    step: Callable[[Tensor], Tensor],
    region: Region,
    kappa: float,
    *,
    max_boxes: int,
    deadline: float = math.inf,
) -> Proof | Unproved:
    """Try to prove "equilibrium", "decrease" or "invariant" of V, (B, n) -> (B,), and the next state, ``step`` (B, n) -> (B, n).

    "decrease" is V(z+) <= (1 - ``kappa``) V(z), strict off the centre where ``kappa`` is 0. On a set between levels the claim is proved of
    all of it within its base, of which the region is the part seen along rays from the centre.
    """
    proof = {"equilibrium": _equilibrium, "decrease": _decrease, "invariant": _invariant}[name]
    return searched(proof, value, step, region, kappa, max_boxes, deadline)


def _equilibrium(search: Search) -> Proof | Unproved:
    step = _step(search)
    return vanishing("z+ - c", search.enclosure(lambda states: step(states) - states).at(search.centre).value)


def _decrease(search: Search) -> Proof | Unproved:
    kappa, state = search.rate or 0.0, search.centre[None]
    strictly = not kappa

    def change(value: Callable[[Tensor], Tensor], step: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
        difference = value(step(states)) - value(states)
        return difference if strictly else difference + kappa * value(states)

    graphs = search.value.graph, search.motion.graph
    excess = search.enclosure(
        partial(change, search.value_function, _step(search)), trace(partial(change, *graphs), state)
    )
    linear = along_steps(search, lambda: composed(*graphs, kappa, state), strictly=strictly)

    def examine(box: Interval, points: Interval) -> Examined:
        over_box, value = excess(box, 1), search.value(box, 1)
        at_points = excess(points, 0).value
        difference = over_box.value.intersected(mean_value(at_points, over_box.gradient, box - points))
        bounds, value_at_points = search.value_on(box, points, value)
        holds = difference.high < 0 if strictly else difference.high <= 0
        fails = at_points.low >= 0 if strictly else at_points.low > 0
        violated = fails & (points.low != search.centre).any(1) & search.is_inside(points, value_at_points)
        return Examined(search.is_outside(box, bounds) | holds, violated, weights(over_box.gradient))

    share = "V(z)" if strictly else f"(1 - {exactly(kappa)}) V(z)"
    words, change_words = f"V(z+) {'<' if strictly else '<='} {share}", f"V(z+) - {share}"
    if search.is_below(search.value.at(search.centre).value):
        return search.covered(examine, words, linear=linear)
    at_centre = excess.at(search.centre)
    slack = search.slack(size(at_centre.value), size(at_centre.gradient))
    if slack == math.inf:
        return Unproved(
            f"{change_words} and its gradient cannot both be shown to be exactly 0 at the centre, as the states around it need. "
            f"{EXACTLY}"
        )

    def proves(box: Interval) -> Tensor:
        over_box = excess(box, 2)
        return is_definite(-matrices(over_box.hessian), strictly, less=slack) & ~over_box.bends_up

    hole = search.closed_at_centre(proves)
    if hole is None and not search.inner:
        return Unproved(
            f"the Hessian of {change_words} is not shown to be negative definite on any box around the centre."
        )
    nearly = "" if slack == 0 else "nearly "
    inside = f"{change_words} and its gradient are {nearly}0 at the centre and its Hessian is negative definite"
    return search.covered(examine, words, hole, inside, linear)


def _invariant(search: Search) -> Proof | Unproved:
    base, region = search.base, search.region
    value_of, step = search.value_function, _step(search)
    ends = isinstance(region, Sublevel) and region.level < math.inf
    value_after = search.enclosure(lambda states: value_of(step(states))) if ends else None

    def examine(box: Interval, points: Interval) -> Examined:
        after, value = search.motion(box, 1), search.value(box, 1)
        bounds, value_at_points = search.value_on(box, points, value)
        offset, after_points = box - points, search.motion(points, 0).value
        moved = after.value.intersected(
            after_points + (after.gradient * offset.moved(lambda bound: bound.mT[:, :, None])).sum([-3])
        )
        if isinstance(base, Ball):
            stays = search.squared_distance(moved).high <= search.squared_radius.low
            leaves = search.squared_distance(after_points).low > search.squared_radius.high
        else:
            stays = ((moved.low >= base.low) & (moved.high <= base.high)).all(1)
            leaves = ((after_points.high < base.low) | (after_points.low > base.high)).any(1)
        slopes = after.gradient.magnitude.amax(2).mT
        if value_after is not None and isinstance(region, Sublevel):
            later = value_after(box, 1)
            at_points = value_after(points, 0).value
            stays &= later.value.intersected(mean_value(at_points, later.gradient, offset)).high <= region.level
            leaves = leaves | (at_points.low > region.level)
            slopes = slopes + weights(later.gradient)
        violated = leaves & search.is_inside(points, value_at_points)
        return Examined(search.is_outside(box, bounds) | stays, violated, slopes)

    return search.covered(examine, f"z+ stays in {search.covers}")


def _step(search: Search) -> Callable[[Tensor], Tensor]:
    assert search.motion_function is not None
    return search.motion_function
