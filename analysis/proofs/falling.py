"""Boxes on which a function of the state is below 0, by linear bounds: its own, and those of V, which say what is outside of the levels."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from analysis.evidence.sublevel import Sublevel
from analysis.proofs.box_search import Search
from analysis.proofs.intervals.branch_and_bound import Examined
from analysis.proofs.intervals.graph import UnboundedError
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.lie_derivative import lie_derivative, without_last_increase
from analysis.proofs.linear import Frames, LinearBounds, Planes, contracted
from analysis.proofs.tracing import TraceError, trace
from analysis.proofs.turned_boxes import Cells


@dataclass(frozen=True)
class Falling:
    """The claim w < 0 on a search's region, or w <= 0 where not ``strictly``, by the ``excess`` w as a graph of one state (1, n)."""

    search: Search
    excess: fx.GraphModule
    of_excess: LinearBounds
    of_value: LinearBounds
    strictly: bool

    def __call__(self, box: Interval, points: Interval) -> Examined:
        """Examine the boxes (B, n); what is left of one is where V may be within the levels and w may be 0 or more."""
        return self._examined(box, box, points.low, None)[0]

    def turned(self, cells: Cells, points: Tensor) -> tuple[Examined, Planes]:
        """Examine boxes in coordinates of their own, with states ``points`` (B, n) near them, and return the planes of w over them too."""
        return self._examined(cells.box, cells.frames.states(cells.box), points, cells.frames)

    def _examined(
        self, box: Interval, states: Interval, points: Tensor, frames: Frames | None
    ) -> tuple[Examined, Planes]:
        """Examine boxes, of coordinates in ``frames`` where given; ``states`` bound what lies in them, ``points`` (B, n) are some of it."""
        search, region = self.search, self.search.region
        low, high, outside = box.low, box.high, search.is_outside(states)
        if isinstance(region, Sublevel):
            value = self.of_value(box, frames)
            outside = search.is_outside(states, value.value)
            for slope, offset, bound in (
                (-value.lower, region.level - value.lower_offset, region.level),
                (value.upper, value.upper_offset - region.lower, region.lower),
            ):
                if abs(bound) < math.inf:
                    low, high, empty = contracted(
                        low, high, slope, torch.nextafter(offset, offset.new_tensor(math.inf))
                    )
                    outside = outside | empty
        excess = self.of_excess(Interval(low, high), frames)
        holds = excess.value.high < 0 if self.strictly else excess.value.high <= 0
        low, high, empty = contracted(low, high, excess.upper, excess.upper_offset)
        closed = outside | holds | empty
        return Examined(closed, self._violated(points, ~closed), excess.doubt, (low, high)), excess

    def _violated(self, points: Tensor, is_open: Tensor) -> Tensor:
        """Return (B,): at which of the ``points`` (B, n) in boxes left open the claim surely fails."""
        violated = torch.zeros_like(is_open)
        places = (is_open & (points != self.search.centre).any(1)).nonzero().squeeze(1)
        if not len(places):
            return violated
        with torch.no_grad():
            about = torch.func.vmap(self.excess)(points[places][:, None]).flatten()
        places = places[about >= 0]
        if len(places):
            at = Interval.point(points[places])
            excess, value = self.of_excess(at).value, self.of_value(at).value
            fails = excess.low >= 0 if self.strictly else excess.low > 0
            violated[places] = fails & self.search.is_inside(at, value)
        return violated


def along_the_flow(search: Search, *, strictly: bool) -> Falling | None:
    """Return the examination of V-dot, or of V-dot + alpha V; None where V or the dynamics have no linear bounds."""
    value, rate, state = search.value.graph, search.rate, search.centre[None]

    def excess() -> fx.GraphModule:
        if not rate:
            return lie_derivative(without_last_increase(value), search.motion.graph, state)
        derivative = lie_derivative(value, search.motion.graph, state)
        return trace(lambda states: derivative(states) + rate * value(states), state)

    return examination(search, excess, strictly=strictly)


def along_steps(search: Search, excess: Callable[[], fx.GraphModule], *, strictly: bool) -> Falling | None:
    """Return the examination of V(z+) - (1 - kappa) V(z), the ``excess``; None where V or the step have no linear bounds."""
    return examination(search, excess, strictly=strictly)


def below_zero(search: Search, *, strictly: bool) -> Falling | None:
    """Return the examination of -V, for the claim V > 0; None where V has no linear bounds."""
    value = search.value.graph
    return examination(search, lambda: trace(lambda states: -value(states), search.centre[None]), strictly=strictly)


def examination(search: Search, excess: Callable[[], fx.GraphModule], *, strictly: bool) -> Falling | None:
    try:
        graph = excess()
        return Falling(search, graph, LinearBounds(graph), LinearBounds(search.value.graph), strictly)
    except (UnboundedError, TraceError):
        return None
