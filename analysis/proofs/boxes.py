"""Proofs of the claims about a user's V and dynamics, by interval bounds on boxes that cover the region.

Around the centre, where V and V-dot vanish and no bound on a box can be strict, Taylor's theorem closes the gap. With
z = c + d in a box around c, V(c) = 0, grad V(c) = 0 and f(c) = 0: V = d' H d / 2, grad V = A d and f = M d, where H and A lie
between the bounds of V's Hessian over the box, M between those of f's Jacobian (A and M are means along the segment from c to
z). So V > 0 where all H are positive definite, and V-dot + alpha V = d' (A M + alpha H / 2) d < 0 where all of these forms are
negative definite.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from analysis.evidence.regions import Ball, Box, Region, Sublevel
from analysis.findings import exactly
from analysis.proofs import MOST_DIMENSIONS
from analysis.proofs.intervals.branch_and_bound import Examined, cover, middle
from analysis.proofs.intervals.graph import FunctionEnclosure, UnboundedError
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.intervals.jets import Bounds
from analysis.proofs.matrices.definiteness import proves_positive_definite

# Boxes around the centre are tried from the whole region's size down to a billionth of it.
HALVINGS = 30
ASSUMPTION = (
    "The proof is of the functions in exact arithmetic, with all rounding accounted for; PyTorch's elementary functions are "
    "taken to err by at most 4 units in the last place."
)


@dataclass(frozen=True)
class Proof:
    """A claim was proved: ``words`` say how, ``boxes`` how many boxes were examined."""

    words: str
    boxes: int


@dataclass(frozen=True)
class Unproved:
    """A claim was not proved; ``reason`` is one sentence. That says nothing of its truth, unless it ``fails_at`` a state (n,)."""

    reason: str
    fails_at: tuple[float, ...] | None = None


def prove_claim(
    name: str,
    value: Callable[[Tensor], Tensor],
    velocity: Callable[[Tensor], Tensor] | None,
    region: Region,
    alpha: float | None,
    *,
    max_boxes: int = 200_000,
    seconds: float = 10,
) -> Proof | Unproved:
    """Try to prove the claim ``name`` of V, ``value`` (B, n) -> (B,), and the dynamics, ``velocity`` (B, n) -> (B, n).

    The names are those of ``PROOFS``. ``alpha`` is the rate of "decay". On a sublevel set the claim is proved of all of
    {V <= level} within the radius, of which the region is the part seen along rays from the centre. ``seconds`` bound the
    search on boxes, which starts once the functions are traced.
    """
    if name not in PROOFS:
        return Unproved(f"there is no proof on boxes of a claim {name!r}.")
    if name == "decay" and alpha is None:
        raise ValueError("expected a rate alpha of the decay, got None")
    if not isinstance(region, Ball | Box | Sublevel):
        return Unproved(f"there is no proof on boxes for {region.words}.")
    if len(region.centre) > MOST_DIMENSIONS:
        return Unproved(f"interval bounds are for at most {MOST_DIMENSIONS} coordinates.")
    search = _Search(value, velocity, region, alpha if name == "decay" else None, max_boxes, seconds)
    try:
        return PROOFS[name](search)
    except UnboundedError as error:
        return Unproved(f"{error}.")


@dataclass(frozen=True)
class _Search:
    """What is to be proved about, and the means to bound it on boxes."""

    value_function: Callable[[Tensor], Tensor]
    velocity_function: Callable[[Tensor], Tensor] | None
    region: Ball | Box | Sublevel
    alpha: float | None
    max_boxes: int
    seconds: float

    @cached_property
    def value(self) -> FunctionEnclosure:
        return FunctionEnclosure(self.value_function, self._trial)

    @cached_property
    def velocity(self) -> FunctionEnclosure:
        if self.velocity_function is None:
            raise ValueError("expected the dynamics, got None: a claim about V-dot needs them")
        return FunctionEnclosure(self.velocity_function, self._trial)

    @cached_property
    def _trial(self) -> Tensor:
        return self.region.sample(2, torch.Generator().manual_seed(0))

    @property
    def centre(self) -> Tensor:
        return self.region.centre

    @cached_property
    def corners(self) -> tuple[Tensor, Tensor]:
        """(n,), (n,): a box that holds the region."""
        if isinstance(self.region, Box):
            return self.region.low, self.region.high
        reach = Interval.point(torch.full_like(self.centre, self.region.radius))
        centre = Interval.point(self.centre)
        return (centre - reach).low, (centre + reach).high

    def squared_distance(self, box: Interval) -> Interval:
        """Return bounds (B,) of the squared distance from the centre."""
        return (box - Interval.point(self.centre[None])).square().sum([-1])

    @cached_property
    def squared_radius(self) -> Interval:
        return Interval.point(torch.tensor(self.region.radius, dtype=torch.float64)).square()

    def is_outside(self, box: Interval, value: Interval | None = None) -> Tensor:
        """Return (B,): whether no state of a box is in the region, as far as its shape and the bounds of V (B,) tell."""
        if isinstance(self.region, Box):
            return torch.zeros(len(box.low), dtype=torch.bool)
        beyond = self.squared_distance(box).low > self.squared_radius.high
        above = isinstance(self.region, Sublevel) and value is not None and value.low > self.region.level
        return beyond | above

    def is_inside(self, points: Interval, value: Interval) -> Tensor:
        """Return (B,): whether a point, where V is ``value`` (B,), surely belongs to the states that the proof is about."""
        if isinstance(self.region, Box):
            return torch.ones(len(points.low), dtype=torch.bool)
        within = self.squared_distance(points).high <= self.squared_radius.low
        return within & (value.high <= self.region.level) if isinstance(self.region, Sublevel) else within

    def value_on(self, box: Interval, points: Interval, over_box: Bounds) -> tuple[Interval, Interval]:
        """Return bounds (B,) of V on boxes, by the mean value too, and at ``points`` within them."""
        at_points = self.value(points, 0).value
        return over_box.value.intersected(_mean_value(at_points, over_box.gradient, box - points)), at_points

    def excess(self, value: Bounds, velocity: Bounds) -> Interval:
        """Return bounds (B,) of w = V-dot + alpha V."""
        derivative = (value.gradient * velocity.value.moved(lambda bound: bound.mT)).sum([-2])
        return derivative if self.alpha is None else derivative + value.value.scaled(self.alpha)

    def excess_gradient(self, value: Bounds, velocity: Bounds) -> Interval:
        """Return bounds (n, B) of grad w = H f + J' grad V + alpha grad V, unknown where V's Hessian has a singular part."""
        along = (value.hessian * velocity.value.moved(lambda bound: bound.mT[:, None])).sum([-3])
        across = (velocity.gradient * value.gradient.moved(lambda bound: bound.mT[None])).sum([-1])
        total = along + across
        total = total if self.alpha is None else total + value.gradient.scaled(self.alpha)
        return total.where_known(~(value.bends_up | value.bends_down))

    def excess_on(
        self, box: Interval, points: Interval, value: Bounds, velocity: Bounds
    ) -> tuple[Interval, Interval, Interval]:
        """Return bounds of w (B,) on boxes, by the mean value too, (B,) at ``points`` within them, and (n, B) of grad w."""
        gradient = self.excess_gradient(value, velocity)
        at_points = self.excess(self.value(points, 1), self.velocity(points, 0))
        over_box = self.excess(value, velocity)
        return over_box.intersected(_mean_value(at_points, gradient, box - points)), at_points, gradient

    def closed_at_centre(self, proves: Callable[[Interval], Tensor]) -> tuple[Tensor, Tensor] | None:
        """Return the corners (n,) of the largest box tried around the centre that ``proves`` says is closed, if any is."""
        shares = 2.0 ** -torch.arange(HALVINGS + 1, dtype=torch.float64)[:, None]
        low, high = (
            torch.minimum(
                torch.maximum(self.centre + shares * (corner - self.centre), self.corners[0]), self.corners[1]
            )
            for corner in self.corners
        )
        closed = proves(Interval(low, high)).nonzero()
        return (low[closed[0, 0]], high[closed[0, 0]]) if len(closed) else None

    def covered(
        self,
        examine: Callable[[Interval, Interval], Examined],
        words: str,
        hole: tuple[Tensor, Tensor] | None = None,
        inside: str = "",
    ) -> Proof | Unproved:
        """Return the proof that ``examine``, of boxes and points within them, closes the region but for a box ``hole``.

        ``words`` say what was shown of the boxes, ``inside`` what of the hole.
        """
        low, high = self.corners
        boxes = (low[None], high[None]) if hole is None else _around(hole, (low, high))
        found = cover(
            *boxes,
            lambda low, high: examine(Interval(low, high), Interval.point(middle(low, high))),
            max_boxes=self.max_boxes,
            deadline=time.monotonic() + self.seconds,
        )
        if found.fault:
            state = ", ".join(f"{coordinate:.6g}" for coordinate in found.state)
            where = found.state if found.fails else None
            return Unproved(f"after {found.boxes} boxes {found.fault}, around the state [{state}].", where)
        examined = found.boxes + (hole is not None)
        if hole is not None:
            sides = " x ".join(f"[{float(a):.6g}, {float(b):.6g}]" for a, b in zip(*hole, strict=True))
            words = f"{inside} on the box {sides}" + (f", and {words} elsewhere" if found.boxes else "")
        count = "one box that covers" if examined == 1 else f"{examined} boxes that cover"
        return Proof(f"{words}: by interval arithmetic on {count} {self.covers}. {ASSUMPTION}", examined)

    @property
    def covers(self) -> str:
        if isinstance(self.region, Sublevel):
            return f"all of V <= {exactly(self.region.level)} within {exactly(self.region.radius)} of the centre"
        return self.region.words


def _zero(search: _Search) -> Proof | Unproved:
    return _vanishing("V", search.value.at(search.centre).value)


def _equilibrium(search: _Search) -> Proof | Unproved:
    return _vanishing("f", search.velocity.at(search.centre).value)


def _vanishing(symbol: str, value: Interval) -> Proof | Unproved:
    if _is_zero(value):
        return Proof(f"{symbol}(c) = 0 by interval arithmetic at the centre. {ASSUMPTION}", 1)
    low, high = float(value.low.min()), float(value.high.max())
    return Unproved(f"{symbol}(c) is only known to lie between {low:.3g} and {high:.3g}.")


def _positive(search: _Search) -> Proof | Unproved:
    def examine(box: Interval, points: Interval) -> Examined:
        over_box = search.value(box, 1)
        value, at_points = search.value_on(box, points, over_box)
        off_centre = (points.low != search.centre).any(1)
        violated = (at_points.high <= 0) & off_centre & search.is_inside(points, at_points)
        return Examined(search.is_outside(box, value) | (value.low > 0), violated, _weights(over_box.gradient))

    at_centre = search.value.at(search.centre)
    if bool((at_centre.value.low > 0).all()):
        return search.covered(examine, "V > 0")
    if not (_is_zero(at_centre.value) and _is_zero(at_centre.gradient)):
        return Unproved(
            "V(c) = 0 and grad V(c) = 0 cannot both be shown exactly, as the states around the centre need."
        )

    def proves(box: Interval) -> Tensor:
        over_box = search.value(box, 2)
        return _is_definite(_matrices(over_box.hessian), strictly=True) & ~over_box.bends_down

    hole = search.closed_at_centre(proves)
    if hole is None:
        return Unproved("V's Hessian is not shown to be positive definite on any box around the centre.")
    return search.covered(examine, "V > 0", hole, "V(c) = 0, grad V(c) = 0 and V's Hessian is positive definite")


def _convex(search: _Search) -> Proof | Unproved:
    def examine(box: Interval, points: Interval) -> Examined:
        over_box = search.value(box, 2)
        closed = _is_definite(_matrices(over_box.hessian), strictly=False) & ~over_box.bends_down
        return Examined(closed | search.is_outside(box), torch.zeros_like(closed), torch.ones_like(box.low))

    if isinstance(search.region, Sublevel):
        ball = Ball(search.centre, search.region.radius)
        search = _Search(search.value_function, None, ball, None, search.max_boxes, search.seconds)
    return search.covered(examine, "V's Hessian is positive semidefinite")


def _derivative(search: _Search, strictly: bool) -> Proof | Unproved:
    """Prove V-dot < 0, or V-dot + alpha V <= 0 where not ``strictly``, except at the centre."""

    def proves(box: Interval) -> Tensor:
        value, velocity = search.value(box, 2), search.velocity(box, 1)
        hessian = _matrices(value.hessian)
        jacobian = velocity.gradient.moved(lambda bound: bound.permute(1, 2, 0))
        # Term by term, since sums of few terms are exact where they can be: V-dot = -alpha V must not be lost to rounding.
        terms = hessian.moved(lambda bound: bound[..., None]) * jacobian.moved(lambda bound: bound[:, None])
        product = terms.sum([-2])
        # Twice the form's symmetric part: the factor leaves its sign alone.
        form = product + product.moved(lambda bound: bound.mT)
        form = form if search.alpha is None else form + hessian.scaled(search.alpha)
        return _is_definite(-form, strictly) & ~(value.bends_up | value.bends_down)

    def examine(box: Interval, points: Interval) -> Examined:
        value, velocity = search.value(box, 2), search.velocity(box, 1)
        bounds, value_at_points = search.value_on(box, points, value)
        excess, at_points, gradient = search.excess_on(box, points, value, velocity)
        holds = excess.high < 0 if strictly else excess.high <= 0
        fails = at_points.low >= 0 if strictly else at_points.low > 0
        violated = fails & (points.low != search.centre).any(1) & search.is_inside(points, value_at_points)
        return Examined(search.is_outside(box, bounds) | holds, violated, _weights(gradient))

    at_centre = search.value.at(search.centre)
    needed = {"grad V(c) = 0": at_centre.gradient, "f(c) = 0": search.velocity.at(search.centre).value}
    needed |= {} if search.alpha is None else {"V(c) = 0": at_centre.value}
    for fact, bounds in needed.items():
        if not _is_zero(bounds):
            return Unproved(f"{fact} cannot be shown exactly, as the states around the centre need.")
    excess = "V-dot" if search.alpha is None else f"V-dot + {exactly(search.alpha)} V"
    hole = search.closed_at_centre(proves)
    if hole is None:
        return Unproved(f"{excess} is not shown to be a negative definite form on any box around the centre.")
    definite = "negative definite" if strictly else "negative semidefinite"
    inside = f"{', '.join(needed)} and {excess} is a {definite} form in z - c"
    return search.covered(examine, f"{excess} {'<' if strictly else '<='} 0", hole, inside)


def _invariant(search: _Search) -> Proof | Unproved:
    region = search.region
    if not isinstance(region, Sublevel):
        return Unproved(f"there is no proof on boxes that {region.words} is invariant.")

    def examine(box: Interval, points: Interval) -> Examined:
        value, velocity = search.value(box, 2), search.velocity(box, 1)
        bounds, _ = search.value_on(box, points, value)
        excess, _, gradient = search.excess_on(box, points, value, velocity)
        enclosed = search.squared_distance(box).high < search.squared_radius.low
        closed = search.is_outside(box, bounds) | (enclosed & ((bounds.high < region.level) | (excess.high < 0)))
        weights = _weights(gradient) + _weights(value.gradient)
        return Examined(closed, torch.zeros_like(closed), weights)

    level, radius = exactly(region.level), exactly(region.radius)
    words = f"V > {level} at distance {radius} of the centre and V-dot < 0 wherever V = {level} within"
    return search.covered(examine, words)


def _mean_value(at_points: Interval, gradient: Interval, offset: Interval) -> Interval:
    """Return bounds (B,) by the mean-value theorem: ``gradient`` (n, B) over the boxes, ``offset`` (B, n) from the points."""
    return at_points + (gradient * offset.moved(lambda bound: bound.mT)).sum([-2])


def _weights(gradient: Interval) -> Tensor:
    """Return (B, n): the largest slope in each direction, of bounds (n, B)."""
    return gradient.magnitude.mT


def _matrices(hessian: Interval) -> Interval:
    """Return the bounds (n, n, B) of symmetric matrices as (B, n, n)."""
    return hessian.moved(lambda bound: bound.permute(2, 0, 1))


def _is_definite(matrices: Interval, strictly: bool) -> Tensor:
    """Return (B,): whether all symmetric matrices between bounds (B, n, n) are positive definite, or semidefinite."""
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


def _is_zero(value: Interval) -> bool:
    return bool((value.low == 0).all()) and bool((value.high == 0).all())


def _around(hole: tuple[Tensor, Tensor], corners: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the boxes (B, n), (B, n) that are left of a box with these ``corners`` without the ``hole`` in it."""
    sides = []
    for low, inner_low, inner_high, high in zip(corners[0], *hole, corners[1], strict=True):
        parts = [(inner_low, inner_high), (low, inner_low), (inner_high, high)]
        sides.append(parts[:1] + [part for part in parts[1:] if bool(part[0] < part[1])])
    # The first is the hole itself.
    boxes = list(itertools.product(*sides))[1:]
    ends = [torch.tensor([[side[end] for side in box] for box in boxes]) for end in (0, 1)]
    low, high = (end.reshape(len(boxes), len(sides)).to(torch.float64) for end in ends)
    return low, high


PROOFS: dict[str, Callable[[_Search], Proof | Unproved]] = {
    "zero": _zero,
    "positive": _positive,
    "convex": _convex,
    "equilibrium": _equilibrium,
    "decrease": partial(_derivative, strictly=True),
    "decay": partial(_derivative, strictly=False),
    "invariant": _invariant,
}
