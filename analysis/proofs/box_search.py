"""The search for a proof on boxes: what is to be proved about, its bounds on a box, and the cover of the region."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from analysis.evidence.regions import Ball, Box, Sublevel
from analysis.findings import exactly
from analysis.proofs.intervals.branch_and_bound import Examined, cover, middle
from analysis.proofs.intervals.graph import FunctionEnclosure, UnboundedError
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.intervals.jets import Bounds

# Boxes around the centre are tried from the whole region's size down to a billionth of it.
HALVINGS = 30
COMPARED = 4096  # states at which a function is held against its graph


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


@dataclass(frozen=True)
class Search:
    """What is to be proved about, and the means to bound it on boxes."""

    value_function: Callable[[Tensor], Tensor]
    velocity_function: Callable[[Tensor], Tensor] | None
    region: Ball | Box | Sublevel
    alpha: float | None
    max_boxes: int
    deadline: float
    inner: float = 0.0

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
        return self.region.sample(COMPARED, torch.Generator().manual_seed(0))

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

    @cached_property
    def squared_inner(self) -> Interval:
        return Interval.point(torch.tensor(self.inner, dtype=torch.float64)).square()

    def is_outside(self, box: Interval, value: Interval | None = None) -> Tensor:
        """Return (B,): whether no state of a box is in the region, as far as its shape and the bounds of V (B,) tell."""
        within = self.squared_distance(box).high < self.squared_inner.low
        if isinstance(self.region, Box):
            return within
        beyond = self.squared_distance(box).low > self.squared_radius.high
        above = isinstance(self.region, Sublevel) and value is not None and value.low > self.region.level
        return within | beyond | above

    def is_inside(self, points: Interval, value: Interval) -> Tensor:
        """Return (B,): whether a point, where V is ``value`` (B,), surely belongs to the states that the proof is about."""
        apart = self.squared_distance(points).low >= self.squared_inner.high
        if isinstance(self.region, Box):
            return apart
        within = apart & (self.squared_distance(points).high <= self.squared_radius.low)
        return within & (value.high <= self.region.level) if isinstance(self.region, Sublevel) else within

    def value_on(self, box: Interval, points: Interval, over_box: Bounds) -> tuple[Interval, Interval]:
        """Return bounds (B,) of V on boxes, by the mean value too, and at ``points`` within them."""
        at_points = self.value(points, 0).value
        return over_box.value.intersected(mean_value(at_points, over_box.gradient, box - points)), at_points

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
        return over_box.intersected(mean_value(at_points, gradient, box - points)), at_points, gradient

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
        boxes = (low[None], high[None]) if hole is None else around(hole, (low, high))
        found = cover(
            *boxes,
            lambda low, high: self.agreed(examine, Interval(low, high), middle(low, high)),
            max_boxes=self.max_boxes,
            deadline=self.deadline,
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

    def agreed(self, examine: Callable[[Interval, Interval], Examined], box: Interval, points: Tensor) -> Examined:
        """Return what ``examine`` finds on boxes, once the functions give at ``points`` (B, n) in them what their graphs do.

        Raises UnboundedError where one does not: what is proved of its graph is not proved of it.
        """
        for graph in (self.value, self.__dict__.get("velocity")):
            if graph is not None and not graph.agrees_at(points):
                raise UnboundedError("its values at a box's middle are not those of its operations")
        return examine(box, Interval.point(points))

    @property
    def covers(self) -> str:
        if isinstance(self.region, Sublevel):
            words = f"all of V <= {exactly(self.region.level)} within {exactly(self.region.radius)} of the centre"
        else:
            words = self.region.words
        return f"{words}, further than {exactly(self.inner)} from the centre" if self.inner else words


def mean_value(at_points: Interval, gradient: Interval, offset: Interval) -> Interval:
    """Return bounds (B,) by the mean-value theorem: ``gradient`` (n, B) over the boxes, ``offset`` (B, n) from the points."""
    return at_points + (gradient * offset.moved(lambda bound: bound.mT)).sum([-2])


def around(hole: tuple[Tensor, Tensor], corners: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
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
