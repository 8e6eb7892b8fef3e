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
        low, high, outside, _ = self._within(box, None)
        return self._examined(Interval(low, high), outside | self.search.is_outside(box), points.low, None)[0]

    def turned(self, cells: Cells, points: Tensor) -> tuple[Examined, Planes, Tensor]:
        """Examine boxes in coordinates of their own, with states ``points`` (B, n) near them, and return the planes of w over them too.

        The third result (B,) says of which V is known to be within the levels: it is asked of none whose ``inside`` says so.
        """
        low, high, outside, inside = *cells.box.ends, torch.zeros_like(cells.inside), cells.inside.clone()
        asked = (~inside).nonzero().squeeze(1)
        if len(asked):
            found = self._within(Interval(low[asked], high[asked]), cells.frames[asked])
            low, high = low.clone(), high.clone()
            low[asked], high[asked], outside[asked], inside[asked] = found
        outside = outside | self.search.is_outside(cells.frames.states(cells.box))
        return *self._examined(Interval(low, high), outside, points, cells.frames), inside

    def _within(self, box: Interval, frames: Frames | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the part (B, n), (B, n) of each box where V may be within the levels, and where it is nowhere, and everywhere (B,)."""
        region, low, high = self.search.region, box.low, box.high
        if not isinstance(region, Sublevel):
            nowhere = torch.zeros(len(low), dtype=torch.bool)
            return low, high, nowhere, ~nowhere
        value = self.of_value(box, frames, doubts=False)
        nowhere = (value.value.low > region.level) | (value.value.high < region.lower)
        everywhere = (value.value.high <= region.level) & (value.value.low >= region.lower)
        for slope, offset, bound in (
            (-value.lower, region.level - value.lower_offset, region.level),
            (value.upper, value.upper_offset - region.lower, region.lower),
        ):
            if abs(bound) < math.inf:
                low, high, empty = contracted(low, high, slope, torch.nextafter(offset, offset.new_tensor(math.inf)))
                nowhere = nowhere | empty
        return low, high, nowhere, everywhere

    def _examined(
        self, box: Interval, outside: Tensor, points: Tensor, frames: Frames | None
    ) -> tuple[Examined, Planes]:
        """Examine boxes, of coordinates in ``frames`` where given, that may not be ``outside`` (B,); ``points`` (B, n) are some states."""
        low, high = box.low, box.high
        excess = self.of_excess(box, frames)
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
        places = places[_about(self.excess, points[places]) >= 0]
        if isinstance(self.search.region, Sublevel) and len(places):
            # Where V is off the levels, bounds that tell of rounding are not worth their time.
            value = _about(self.search.value.graph, points[places])
            places = places[(value <= self.search.region.level) & (value >= self.search.region.lower)]
        if len(places):
            at = Interval.point(points[places])
            excess, value = self.of_excess(at).value, self.of_value(at).value
            fails = excess.low >= 0 if self.strictly else excess.low > 0
            violated[places] = fails & self.search.is_inside(at, value)
        return violated


def _about(graph: fx.GraphModule, points: Tensor) -> Tensor:
    """Return what the graph gives (B,) at ``points`` (B, n), as rounded."""
    with torch.no_grad():
        return torch.func.vmap(graph)(points[:, None]).flatten()


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
