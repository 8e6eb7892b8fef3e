"""The search for a proof on boxes: what is to be proved about, its bounds on a box, and the cover of the region."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, fx

from analysis.evidence.constrained import Constrained
from analysis.evidence.regions import Ball, Box, product
from analysis.evidence.sublevel import Sublevel
from analysis.findings import exactly
from analysis.proofs.constraint_bounds import ConstraintBounds
from analysis.proofs.intervals.branch_and_bound import BOXES_AT_ONCE, Cover, Examined, cover, middle, spent
from analysis.proofs.intervals.graph import FunctionEnclosure, UnboundedError
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.intervals.jets import Bounds
from analysis.proofs.turned_boxes import Cells, Examination, Found, principal_axes, turned, turned_cover, upright

# Boxes around the centre are tried from the whole region's size down to a billionth of it.
HALVINGS = 30
LINEAR_AT_ONCE = 4096
UPRIGHT_BOXES = 2**14  # boxes along the axes, before turned ones are tried
COARSE, FEW_BOXES = 3, 1024  # dimensions beyond which jets are coarse, and the boxes they are tried on then
MOST_PARTS = 64  # in which the disturbances are cut around the centre
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
    """A claim was not proved; ``reason`` is one sentence. That says nothing of its truth, unless it ``fails_at`` a state (n,).

    A search on boxes was left ``open_at`` a state (n,).
    """

    reason: str
    fails_at: tuple[float, ...] | None = None
    open_at: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Search:
    """What is to be proved about, and the means to bound it on boxes."""

    value_function: Callable[[Tensor], Tensor]
    motion_function: Callable[[Tensor], Tensor] | None
    region: Ball | Box | Sublevel
    rate: float | None
    max_boxes: int
    deadline: float
    inner: float = 0.0
    enclosures: list[FunctionEnclosure] = field(default_factory=list)

    def __post_init__(self) -> None:
        # What lies outside of the levels is told by the bounds of this V: those of another function would close any box.
        region = self.region
        if isinstance(region, Sublevel) and region.has_levels and region.value != self.value_function:
            raise ValueError("expected the levels of the region to be those of V, got levels of another function")

    @cached_property
    def value(self) -> FunctionEnclosure:
        return self.enclosure(self.value_function)

    @cached_property
    def motion(self) -> FunctionEnclosure:
        if self.motion_function is None:
            raise ValueError("expected the dynamics, got None: a claim about V-dot needs them")
        return self.enclosure(self.motion_function)

    def enclosure(self, function: Callable[[Tensor], Tensor], graph: fx.GraphModule | None = None) -> FunctionEnclosure:
        """Return the bounds of ``function`` over boxes; it is held against its graph at the middle of each box that is examined."""
        self.enclosures.append(FunctionEnclosure(function, self._trial, graph))
        return self.enclosures[-1]

    @cached_property
    def _trial(self) -> Tensor:
        return self.base.sample(COMPARED, torch.Generator().manual_seed(0))

    @cached_property
    def constraint(self) -> ConstraintBounds | None:
        """The set {h = 0} that the region lies on, where it lies on one."""
        if not isinstance(self.region, Constrained):
            return None
        return ConstraintBounds.of(self.region.constraint, self.centre, self.enclosure)

    @property
    def centre(self) -> Tensor:
        return self.region.centre

    @property
    def base(self) -> Ball | Box:
        """The ball or the box that the region lies in."""
        return self.region.base if isinstance(self.region, Sublevel) else self.region

    @cached_property
    def corners(self) -> tuple[Tensor, Tensor]:
        """(n,), (n,): a box that holds the region."""
        if isinstance(self.base, Box):
            return self.base.low, self.base.high
        reach = Interval.point(torch.full_like(self.centre, self.base.radius))
        centre = Interval.point(self.centre)
        return (centre - reach).low, (centre + reach).high

    def squared_distance(self, box: Interval) -> Interval:
        """Return bounds (B,) of the squared distance from the centre."""
        return (box - Interval.point(self.centre[None])).square().sum([-1])

    @cached_property
    def squared_radius(self) -> Interval:
        return Interval.point(torch.tensor(self.base.radius, dtype=torch.float64)).square()

    @cached_property
    def squared_inner(self) -> Interval:
        return Interval.point(torch.tensor(self.inner, dtype=torch.float64)).square()

    def is_outside(self, box: Interval, value: Interval | None = None) -> Tensor:
        """Return (B,): whether no state of a box is in the region, as far as its shape and the bounds of V (B,) tell."""
        distance = self.squared_distance(box)
        outside = distance.high < self.squared_inner.low
        if isinstance(self.base, Ball):
            outside = outside | (distance.low > self.squared_radius.high)
        if isinstance(self.region, Sublevel) and value is not None:
            outside = outside | (value.low > self.region.level) | (value.high < self.region.lower)
        return outside

    def is_inside(self, points: Interval, value: Interval) -> Tensor:
        """Return (B,): whether a point, where V is ``value`` (B,), surely belongs to the states that the proof is about."""
        distance = self.squared_distance(points)
        # That a state is on a set {h = 0} cannot be seen at a machine number: none is said to be.
        inside = (distance.low >= self.squared_inner.high) & (self.constraint is None)
        if isinstance(self.base, Ball):
            inside = inside & (distance.high <= self.squared_radius.low)
        if isinstance(self.region, Sublevel):
            inside = inside & (value.high <= self.region.level) & (value.low >= self.region.lower)
        return inside

    def is_below(self, value: Interval) -> bool:
        """Return whether V, with these bounds at the centre, is below the lower level there, so that nothing is to be shown around it."""
        return isinstance(self.region, Sublevel) and bool((value.high < self.region.lower).all())

    def slack(self, constant: Tensor | float, slope: Tensor | float) -> Tensor | float:
        """Return s with e0 + e1 |d| <= s |d|^2 / 2 outside of the inner ball, e0 being ``constant`` and e1 ``slope``, upper bounds.

        It is 0 where both are, and infinite where there is no such ball.
        """
        if not bool(torch.as_tensor(constant).any()) and not bool(torch.as_tensor(slope).any()):
            return 0.0
        if not self.inner:
            return math.inf
        return 2 * (constant / self.inner**2 + slope / self.inner) * (1 + 1e-9)  # the factor covers the roundings

    def is_interior(self, box: Interval) -> Tensor:
        """Return (B,): whether a box has no state where the base of the region ends."""
        if isinstance(self.base, Ball):
            return self.squared_distance(box).high < self.squared_radius.low
        inner = (box.low > self.base.low) & (box.high < self.base.high)
        return inner[:, : self.base.moving].all(1)

    @property
    def edge(self) -> str:
        """Where the base of the region ends, in words."""
        if isinstance(self.base, Ball):
            return f"at distance {exactly(self.base.radius)} of the centre"
        return f"on the faces of {self.base.words}"

    def value_on(self, box: Interval, points: Interval, over_box: Bounds) -> tuple[Interval, Interval]:
        """Return bounds (B,) of V on boxes, by the mean value too, and at ``points`` within them."""
        at_points = self.value(points, 0).value
        return over_box.value.intersected(mean_value(at_points, over_box.gradient, box - points)), at_points

    def excess(self, value: Bounds, velocity: Bounds) -> Interval:
        """Return bounds (B,) of w = V-dot + alpha V."""
        derivative = (value.gradient * velocity.value.moved(lambda bound: bound.mT)).sum([-2])
        return derivative if self.rate is None else derivative + value.value.scaled(self.rate)

    def excess_gradient(self, value: Bounds, velocity: Bounds) -> Interval:
        """Return bounds (n, B) of grad w = H f + J' grad V + alpha grad V, unknown where V's Hessian has a singular part."""
        along = (value.hessian * velocity.value.moved(lambda bound: bound.mT[:, None])).sum([-3])
        across = (velocity.gradient * value.gradient.moved(lambda bound: bound.mT[None])).sum([-1])
        total = along + across
        total = total if self.rate is None else total + value.gradient.scaled(self.rate)
        return total.where_known(~(value.bends_up | value.bends_down))

    def excess_on(
        self, box: Interval, points: Interval, value: Bounds, velocity: Bounds
    ) -> tuple[Interval, Interval, Interval]:
        """Return bounds of w (B,) on boxes, by the mean value too, (B,) at ``points`` within them, and (n, B) of grad w."""
        gradient = self.excess_gradient(value, velocity)
        at_points = self.excess(self.value(points, 1), self.motion(points, 0))
        over_box = self.excess(value, velocity)
        return over_box.intersected(mean_value(at_points, gradient, box - points)), at_points, gradient

    def closed_at_centre(self, proves: Callable[[Interval], Tensor]) -> tuple[Tensor, Tensor] | None:
        """Return the corners (n,) of the largest box tried around the centre that ``proves`` says is closed, if any is.

        Of coordinates that rest it holds all.
        """
        shares = 2.0 ** -torch.arange(HALVINGS + 1, dtype=torch.float64)[:, None].repeat(1, len(self.centre))
        shares[:, self.base.moving :] = 1
        low, high = (
            torch.minimum(
                torch.maximum(self.centre + shares * (corner - self.centre), self.corners[0]), self.corners[1]
            )
            for corner in self.corners
        )
        low[:, self.base.moving :], high[:, self.base.moving :] = (end[self.base.moving :] for end in self.corners)
        closed = proves(self.cut(Interval(low, high))).unflatten(0, (len(low), -1)).all(1).nonzero()
        return (low[closed[0, 0]], high[closed[0, 0]]) if len(closed) else None

    def cut(self, box: Interval) -> Interval:
        """Return the parts (B P, n) of boxes (B, n), cut along the coordinates that rest; the boxes themselves where none does."""
        resting = range(self.base.moving, len(self.centre))
        parts = int(MOST_PARTS ** (1 / max(1, len(resting))))
        for place in resting:
            low, high = (end[:, None].repeat(1, parts, 1) for end in (box.low, box.high))
            between = low[:, 1:, place] + torch.arange(1, parts) / parts * (high - low)[:, 1:, place]
            low[:, 1:, place] = high[:, :-1, place] = between
            box = Interval(low.flatten(0, 1), high.flatten(0, 1))
        return box

    def covered(
        self,
        examine: Callable[[Interval, Interval], Examined],
        words: str,
        hole: tuple[Tensor, Tensor] | None = None,
        inside: str = "",
        linear: Examination | None = None,
    ) -> Proof | Unproved:
        """Return the proof that ``examine``, of boxes and points within them, closes the region but for a box ``hole``.

        ``words`` say what was shown of the boxes, ``inside`` what of the hole. ``linear`` examines them by linear bounds, which close
        larger boxes in less time but none on which equality holds: it is tried first, with as many boxes again, which are turned if
        they are many. In many dimensions jets close no box that it leaves, and are tried on few.
        """
        found, by = None, "interval arithmetic"
        if linear is not None:
            found, by = self._by_planes(linear, hole), "linear bounds"
        if found is None or (found.fault and not found.fails):
            is_coarse = found is not None and len(self.centre) > COARSE
            by_jets = self._cover(examine, hole, BOXES_AT_ONCE, FEW_BOXES if is_coarse else self.max_boxes)
            if found is None or not is_coarse or not by_jets.fault or by_jets.fails:
                found, by = by_jets, "interval arithmetic"
        if found.fault:
            state = ", ".join(f"{coordinate:.6g}" for coordinate in found.state)
            where = found.state if found.fails else None
            return Unproved(f"after {found.boxes} boxes {found.fault}, around the state [{state}].", where, found.state)
        examined = found.boxes + (hole is not None)
        if hole is not None:
            sides = [f"[{float(a):.6g}, {float(b):.6g}]" for a, b in zip(*hole, strict=True)]
            words = f"{inside} on {product(sides)}" + (f", and {words} elsewhere" if found.boxes else "")
        some = ", some of them turned," if found.turned else ""
        count = "one box that covers" if examined == 1 else f"{examined} boxes{some} that cover"
        return Proof(f"{words}: by {by} on {count} {self.covers}. {ASSUMPTION}", examined)

    def _cover(
        self,
        examine: Callable[[Interval, Interval], Examined],
        hole: tuple[Tensor, Tensor] | None,
        at_once: int,
        most: int,
    ) -> Cover:
        return cover(
            *self._boxes(hole),
            lambda low, high: self._examined(examine, low, high),
            max_boxes=min(most, self.max_boxes),
            deadline=self.deadline,
            at_once=at_once,
        )

    def _by_planes(self, linear: Examination, hole: tuple[Tensor, Tensor] | None) -> Cover:
        """Return how the search by linear bounds ends: on boxes along the axes, and on turned ones if those are many."""
        if self.constraint is not None or len(self.centre) == 1:
            return self._cover(linear, hole, LINEAR_AT_ONCE, self.max_boxes)
        first = self._cover(linear, hole, LINEAR_AT_ONCE, UPRIGHT_BOXES)
        ended = first.boxes < UPRIGHT_BOXES or spent(first.boxes, 1, self.max_boxes, self.deadline)
        if not first.fault or first.fails or ended:
            return first
        cells = upright(*self._boxes(hole))
        axes = principal_axes(self.region) if isinstance(self.region, Sublevel) else None
        if axes is not None:
            cells = turned(cells, axes.expand(len(cells.low), -1, -1), self.base)

        def inside(states: Tensor) -> Tensor:
            return torch.minimum(torch.maximum(states, self.corners[0]), self.corners[1])

        def examine(cells: Cells) -> Found:
            points = inside(cells.middles)
            self.agree_at(points)
            return Found(*linear.turned(cells, points), points)

        effort = {"count": first.boxes, "max_boxes": self.max_boxes, "deadline": self.deadline}
        found = turned_cover(cells, examine, self.base, **effort)
        if not found.fault:
            return found
        return replace(found, state=tuple(inside(torch.tensor(found.state, dtype=torch.float64)).tolist()))

    def _boxes(self, hole: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Return the boxes (B, n), (B, n) that the region lies in but for a ``hole``."""
        low, high = self.corners
        return (low[None], high[None]) if hole is None else around(hole, (low, high))

    def _examined(self, examine: Callable[[Interval, Interval], Examined], low: Tensor, high: Tensor) -> Examined:
        """Return what ``examine`` finds of boxes, of which no more is kept than where h may be 0, for a region on a set {h = 0}."""
        if self.constraint is None:
            return self.agreed(examine, Interval(low, high), middle(low, high))
        low, high, empty = self.constraint.within(Interval(low, high))
        found = self.agreed(examine, Interval(low, high), middle(low, high))
        within = (low, high) if found.within is None else found.within
        return replace(found, closed=found.closed | empty, within=within)

    def agreed(self, examine: Callable[[Interval, Interval], Examined], box: Interval, points: Tensor) -> Examined:
        """Return what ``examine`` finds on boxes, once the functions give at ``points`` (B, n) in them what their graphs do.

        Raises UnboundedError where one does not: what is proved of its graph is not proved of it.
        """
        self.agree_at(points)
        return examine(box, Interval.point(points))

    def agree_at(self, points: Tensor) -> None:
        """Raise UnboundedError where a function does not give at ``points`` (B, n) what its graph does."""
        if not all(graph.agrees_at(points) for graph in self.enclosures):
            raise UnboundedError("its values at a box's middle are not those of its operations")

    @property
    def covers(self) -> str:
        region = self.region
        words = region.words
        if isinstance(region, Sublevel) and region.has_levels:
            words = f"all of {region.condition} within {self.base.within}"
        return f"{words}, further than {exactly(self.inner)} from the centre" if self.inner else words


def falling(rate: float | None) -> str:
    """Return what is to be below 0 where V falls at the ``rate``, in symbols.

    >>> falling(None), falling(0.0), falling(0.5)
    ('V-dot', 'V-dot', 'V-dot + 0.5 V')
    """
    return f"V-dot + {exactly(rate)} V" if rate else "V-dot"


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
