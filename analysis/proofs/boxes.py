"""Proofs of the claims about a user's V and dynamics, by interval bounds on boxes that cover the region.

Around the centre, where V and V-dot vanish and no bound on a box can be strict, Taylor's theorem closes the gap. With
z = c + d in a box around c, V(c) = 0, grad V(c) = 0 and f(c) = 0: V = d' H d / 2, grad V = A d and f = M d, where H and A lie
between the bounds of V's Hessian over the box, M between those of f's Jacobian (A and M are means along the segment from c to
z). So V > 0 where all H are positive definite, and V-dot + alpha V = d' (A M + alpha H / 2) d < 0 where all of these forms are
negative definite. Where V(c), grad V(c) or f(c) is 0 to rounding alone and an inner ball of radius rho is left out, they add at most
e0 + e1 |d| <= (e0 / rho^2 + e1 / rho) |d|^2 outside of it, by which the forms must stay clear of 0. Disturbances are no part of d:
the forms are of the states alone, bounded over all disturbances, for each of which f(c) is to be 0.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from analysis.evidence.regions import Ball, Box, Outside, Region
from analysis.evidence.sublevel import Sublevel
from analysis.findings import exactly
from analysis.proofs import MOST_DIMENSIONS
from analysis.proofs.box_search import ASSUMPTION, Proof, Search, Unproved, falling
from analysis.proofs.falling import along_the_flow, below_zero
from analysis.proofs.intervals.branch_and_bound import Examined
from analysis.proofs.intervals.graph import UnboundedError
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.matrices.definiteness import proves_positive_definite
from analysis.proofs.tracing import TraceError

EXACTLY = (
    "Write g(z) - g(c * torch.ones_like(z)) for g(z) less a number that was computed once, which is 0 at c to rounding alone; "
    "or leave a small ball out, with --inner-radius."
)


def prove_claim(
    name: str,
    value: Callable[[Tensor], Tensor],
    velocity: Callable[[Tensor], Tensor] | None,
    region: Region,
    rate: float | None,
    *,
    max_boxes: int = 200_000,
    deadline: float = math.inf,
) -> Proof | Unproved:
    """Try to prove the claim ``name`` of V, ``value`` (B, n) -> (B,), and the dynamics, ``velocity`` (B, n) -> (B, n).

    The names are those of ``PROOFS``. ``rate`` is alpha of "decay". On a sublevel set the claim is proved of all of
    {V <= level} within its base, of which the region is the part seen along rays from the centre. ``max_boxes``
    bound the search on boxes, and ``deadline``, a time of ``time.monotonic``, stops it. Of a region outside a small ball around the
    centre, states in that ball are left out.
    """
    if name not in PROOFS:
        return Unproved(f"there is no proof on boxes of a claim {name!r}.")
    if name == "decay" and rate is None:
        raise ValueError("expected a rate alpha of the decay, got None")
    rate = rate if name == "decay" else None
    return searched(PROOFS[name], value, velocity, region, rate, max_boxes, deadline)


def searched(
    proof: Callable[[Search], Proof | Unproved],
    value: Callable[[Tensor], Tensor],
    motion: Callable[[Tensor], Tensor] | None,
    region: Region,
    rate: float | None,
    max_boxes: int,
    deadline: float,
) -> Proof | Unproved:
    """Return what ``proof`` makes of the search on ``region``, or why there is none on it."""
    inner = 0.0
    if isinstance(region, Outside):
        region, inner = region.region, region.inner
    if not isinstance(region, Ball | Box | Sublevel):
        return Unproved(f"there is no proof on boxes for {region.words}.")
    if len(region.centre) > MOST_DIMENSIONS:
        return Unproved(f"interval bounds are for at most {MOST_DIMENSIONS} coordinates.")
    try:
        return proof(Search(value, motion, region, rate, max_boxes, deadline, inner))
    except (UnboundedError, TraceError) as error:
        return Unproved(f"{error}.")


def _zero(search: Search) -> Proof | Unproved:
    return vanishing("V", search.value.at(search.centre).value)


def _equilibrium(search: Search) -> Proof | Unproved:
    return vanishing("f", search.motion.at(search.centre).value)


def vanishing(symbol: str, value: Interval) -> Proof | Unproved:
    if is_zero(value):
        return Proof(f"{symbol}(c) = 0 by interval arithmetic at the centre. {ASSUMPTION}", 1)
    low, high = float(value.low.min()), float(value.high.max())
    return Unproved(f"{symbol}(c) is only known to lie between {low:.3g} and {high:.3g}.")


def _positive(search: Search) -> Proof | Unproved:
    def examine(box: Interval, points: Interval) -> Examined:
        over_box = search.value(box, 1)
        value, at_points = search.value_on(box, points, over_box)
        off_centre = (points.low != search.centre).any(1)
        violated = (at_points.high <= 0) & off_centre & search.is_inside(points, at_points)
        return Examined(search.is_outside(box, value) | (value.low > 0), violated, weights(over_box.gradient))

    at_centre = search.value.at(search.centre)
    if search.is_below(at_centre.value) or bool((at_centre.value.low > 0).all()):
        return search.covered(examine, "V > 0", linear=below_zero(search, strictly=True))
    slack = search.slack(size(at_centre.value), size(at_centre.gradient))
    if slack == math.inf:
        return Unproved(
            f"V(c) = 0 and grad V(c) = 0 cannot both be shown exactly, as the states around the centre need. {EXACTLY}"
        )

    def proves(box: Interval) -> Tensor:
        over_box = search.value(box, 2)
        return is_definite(matrices(over_box.hessian), strictly=True, less=slack) & ~over_box.bends_down

    hole = search.closed_at_centre(proves)
    if hole is None and not search.inner:
        return Unproved("V's Hessian is not shown to be positive definite on any box around the centre.")
    facts = "V(c) = 0, grad V(c) = 0 and " if slack == 0 else "V(c) and grad V(c) are nearly 0 and "
    inside = f"{facts}V's Hessian is positive definite"
    return search.covered(examine, "V > 0", hole, inside, below_zero(search, strictly=True))


def _convex(search: Search) -> Proof | Unproved:
    def examine(box: Interval, points: Interval) -> Examined:
        over_box = search.value(box, 2)
        closed = is_definite(matrices(over_box.hessian), strictly=False) & ~over_box.bends_down
        return Examined(closed | search.is_outside(box), torch.zeros_like(closed), torch.ones_like(box.low))

    if isinstance(search.region, Sublevel):
        search = Search(search.value_function, None, search.base, None, search.max_boxes, search.deadline)
    return search.covered(examine, "V's Hessian is positive semidefinite")


def _derivative(search: Search, strictly: bool) -> Proof | Unproved:
    """Prove V-dot < 0, or V-dot + alpha V <= 0 where not ``strictly``, except at the centre."""

    def proves(box: Interval) -> Tensor:
        value, velocity = search.value(box, 2), search.motion(box, 1)
        hessian = matrices(value.hessian).moved(lambda bound: bound[:, :moving, :moving])
        jacobian = velocity.gradient.moved(lambda bound: bound.permute(1, 2, 0)[:, :moving, :moving])
        # Term by term, since sums of few terms are exact where they can be: V-dot = -alpha V must not be lost to rounding.
        terms = hessian.moved(lambda bound: bound[..., None]) * jacobian.moved(lambda bound: bound[:, None])
        product = terms.sum([-2])
        # Twice the form's symmetric part: the factor leaves its sign alone.
        form = product + product.moved(lambda bound: bound.mT)
        form = form if search.rate is None else form + hessian.scaled(search.rate)
        parts = [(sizes(hessian, [-2, -1]), size(speed)), (sizes(jacobian, [-2, -1]), size(at_centre.gradient))]
        # Across a jump a size is unknown, and 0 times it is 0.
        slope = sum(
            (one * other for one, other in parts if other), start=torch.zeros(len(box.low), dtype=torch.float64)
        )
        slack = search.slack(constant, slope + (search.rate or 0.0) * size(at_centre.gradient))
        return is_definite(-form, strictly, less=slack) & ~(value.bends_up | value.bends_down)

    def examine(box: Interval, points: Interval) -> Examined:
        value, velocity = search.value(box, 2), search.motion(box, 1)
        bounds, value_at_points = search.value_on(box, points, value)
        excess, at_points, gradient = search.excess_on(box, points, value, velocity)
        holds = excess.high < 0 if strictly else excess.high <= 0
        fails = at_points.low >= 0 if strictly else at_points.low > 0
        violated = fails & (points.low != search.centre).any(1) & search.is_inside(points, value_at_points)
        return Examined(search.is_outside(box, bounds) | holds, violated, weights(gradient))

    excess = falling(search.rate)
    words = f"{excess} {'<' if strictly else '<='} 0"
    moving, centre = search.base.moving, search.centre
    at_centre, speed = search.value.at(centre), search.motion.at(centre).value
    if search.is_below(at_centre.value):
        return search.covered(examine, words, linear=along_the_flow(search, strictly=strictly))
    if is_resting := moving < len(centre):  # V-dot is 0 at z = c whatever the disturbance, not at one state alone
        low, high = (torch.cat([centre[:moving], end[moving:]])[None] for end in search.corners)
        all_of_them = search.cut(Interval(low, high))
        at_centre, speed = search.value(all_of_them, 1), search.motion(all_of_them, 0).value
    needed = {"grad V(c) = 0": at_centre.gradient, "f(c) = 0": speed}
    needed |= {} if search.rate is None else {"V(c) = 0": at_centre.value}
    for fact, bounds in needed.items():
        if not is_zero(bounds) and (is_resting or not search.inner):
            return Unproved(f"{fact} cannot be shown exactly, as the states around the centre need. {EXACTLY}")
    constant = size(at_centre.gradient) * size(speed) + (search.rate or 0.0) * size(at_centre.value)
    hole = search.closed_at_centre(proves)
    if hole is None and not search.inner:
        return Unproved(f"{excess} is not shown to be a negative definite form on any box around the centre.")
    definite = "negative definite" if strictly else "negative semidefinite"
    facts = ", ".join(needed) if all(map(is_zero, needed.values())) else "f(c) and grad V(c) are nearly 0"
    inside = f"{facts} and {excess} is a {definite} form in z - c"
    return search.covered(examine, words, hole, inside, along_the_flow(search, strictly=strictly))


def _invariant(search: Search) -> Proof | Unproved:
    region = search.region
    if not isinstance(region, Sublevel):
        return Unproved(f"there is no proof on boxes that {region.words} is invariant.")

    def examine(box: Interval, points: Interval) -> Examined:
        value, velocity = search.value(box, 2), search.motion(box, 1)
        bounds, _ = search.value_on(box, points, value)
        excess, _, gradient = search.excess_on(box, points, value, velocity)
        enclosed = search.is_interior(box)
        closed = search.is_outside(box, bounds) | (enclosed & ((bounds.high < region.level) | (excess.high < 0)))
        return Examined(closed, torch.zeros_like(closed), weights(gradient) + weights(value.gradient))

    level = exactly(region.level)
    words = f"V > {level} {search.edge} and V-dot < 0 wherever V = {level} within"
    return search.covered(examine, words)


def _closed(search: Search) -> Proof | Unproved:
    """Prove that the part of {V <= level} within the base is closed there: V exceeds the level where the base ends."""
    region = search.region
    if not isinstance(region, Sublevel):
        return Unproved(f"there is no proof on boxes that {region.words} is closed.")

    def examine(box: Interval, points: Interval) -> Examined:
        value = search.value(box, 1)
        bounds, _ = search.value_on(box, points, value)
        enclosed = search.is_interior(box)
        return Examined(search.is_outside(box, bounds) | enclosed, torch.zeros_like(enclosed), weights(value.gradient))

    return search.covered(examine, f"V > {exactly(region.level)} {search.edge}")


def weights(gradient: Interval) -> Tensor:
    """Return (B, n): the largest slope in each direction, of bounds (n, B)."""
    return gradient.magnitude.mT


def matrices(hessian: Interval) -> Interval:
    """Return the bounds (n, n, B) of symmetric matrices as (B, n, n)."""
    return hessian.moved(lambda bound: bound.permute(2, 0, 1))


def size(bounds: Interval) -> float:
    """Return at least the Euclidean norm of all vectors between ``bounds``, of one state."""
    return float(sizes(bounds, list(range(-bounds.low.dim(), 0))))


def sizes(bounds: Interval, dims: list[int]) -> Tensor:
    """Return at least the Euclidean norms of all that lies between ``bounds``, over ``dims``."""
    return Interval.point(bounds.magnitude).sum(dims).high


def is_definite(matrices: Interval, strictly: bool, less: Tensor | float = 0.0) -> Tensor:
    """Return (B,): whether all symmetric matrices between bounds (B, n, n) are positive definite, or semidefinite.

    So they are ``less`` (B,) >= 0 times the identity.
    """
    less = torch.as_tensor(less, dtype=torch.float64).expand(len(matrices.low))
    if bool((less > 0).any()):
        taken = torch.diag_embed(less[:, None].expand(-1, matrices.low.shape[-1]))
        matrices = matrices - Interval.point(taken)
    low, high = torch.maximum(matrices.low, matrices.low.mT), torch.minimum(matrices.high, matrices.high.mT)
    known = (low.isfinite() & high.isfinite()).all(-1).all(-1)
    low, high = (torch.where(known[:, None, None], bound, 0) for bound in (low, high))
    off_diagonal = 1 - torch.eye(low.shape[-1], dtype=low.dtype)
    middle_matrix = low / 2 + high / 2
    spread = (Interval(low, high) - Interval.point(middle_matrix)).magnitude * off_diagonal
    diagonal = Interval.point(low.diagonal(dim1=-2, dim2=-1))
    # What lies between the bounds exceeds this matrix by a diagonally dominant one.
    least = middle_matrix * off_diagonal + torch.diag_embed((diagonal - Interval.point(spread).sum([-1])).low)
    definite = proves_positive_definite(least)
    if not strictly:
        others = Interval.point(torch.maximum(low.abs(), high.abs()) * off_diagonal).sum([-1])
        definite |= (diagonal.low >= others.high).all(-1)
    return definite & known


def is_zero(value: Interval) -> bool:
    return bool((value.low == 0).all()) and bool((value.high == 0).all())


PROOFS: dict[str, Callable[[Search], Proof | Unproved]] = {
    "zero": _zero,
    "positive": _positive,
    "convex": _convex,
    "equilibrium": _equilibrium,
    "decrease": partial(_derivative, strictly=True),
    "decay": partial(_derivative, strictly=False),
    "invariant": _invariant,
    "closed": _closed,
}
