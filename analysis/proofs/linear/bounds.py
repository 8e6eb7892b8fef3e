"""Planes below and above a function over boxes of states: its graph, read as linear functions of the state with an error."""

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from analysis.proofs.intervals.interval import ROUNDOFF, Interval
from analysis.proofs.intervals.operations import UnboundedError
from analysis.proofs.linear.forms import HUGE, Boxes
from analysis.proofs.linear.frames import Frames, Placed
from analysis.proofs.linear.rules import program_of
from analysis.proofs.linear.steps import Matrix, Product, States, Weighted
from analysis.proofs.linear.tilting import extent, tilted
from analysis.proofs.linear.walk import Charge, Walk

# Boxes whose numbers stay in a processor's cache.
BOXES_AT_ONCE = 512
# The coordinates may be as large as this, so that what underflows is as small as taken into account.
LARGEST = 1e15
# A sum of so many terms is worth a second look.
MANY = 4


@dataclass(frozen=True, eq=False)
class Planes:
    """Bounds of w over boxes: ``lower`` . z + ``lower_offset`` <= w(z) <= ``upper`` . z + ``upper_offset`` for every z in a box.

    The slopes are (B, n), the offsets (B,), all float64, and what they say holds in real arithmetic. ``value`` (B,) bounds w over the
    box. NaN where nothing is known. ``doubt`` (B, n) is about how much each side's length adds to the gap between the planes: unlike a
    slope, which bounds follow, it is what halving the side takes away. ``bend`` (B, n, n), of turned boxes alone: for short vectors r,
    r' bend r is about what the gap of a box grows by that is as long as r. Both are 0 where they were not asked for.
    """

    lower: Tensor
    lower_offset: Tensor
    upper: Tensor
    upper_offset: Tensor
    value: Interval
    doubt: Tensor
    bend: Tensor | None = None

    def picked(self, places: Tensor) -> "Planes":
        """Return the planes over some of the boxes."""
        lower, upper = (self.lower[places], self.lower_offset[places]), (self.upper[places], self.upper_offset[places])
        value, bend = self.value.moved(lambda bound: bound[places]), None if self.bend is None else self.bend[places]
        return Planes(*lower, *upper, value, self.doubt[places], bend)


class LinearBounds:
    """Linear bounds of a function w(z), one number, over boxes, from its ``graph`` of one state (1, n) (``analysis.proofs.tracing``).

    Raises UnboundedError where an operation of the graph has no bounds.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        builder, found = program_of(graph)
        if found.shape.numel() != 1:
            raise UnboundedError(f"expected one number of a state, got {found.shape.numel()}")
        needed = {found.place}
        for place in reversed(range(len(builder.steps))):
            if place in needed:
                needed.update(builder.steps[place].sources)
        self._result = found.place
        self._steps = {place: builder.steps[place] for place in sorted(needed)}
        self._narrow = {place for place in needed if place != found.place and self._is_narrow(place)}
        self._narrow |= self._factors()
        # In units of the last place, more than the terms of any sum that is made, and the uses of any number, and a few operations.
        self._rounding = (sum(step.size for step in self._steps.values()) + builder.steps[0].size + 32) * ROUNDOFF

    def _is_narrow(self, place: int) -> bool:
        """Return whether a step makes few numbers of many, such as a gradient: a whole vector, and no more than a state has."""
        step = self._steps[place]
        many = isinstance(step, Matrix) and self._steps[step.sources[0]].size >= MANY * step.size
        return many and 1 < step.size <= self._steps[0].size

    def _factors(self) -> set[int]:
        """Return the places of sums that are made of narrow steps, of no more numbers than a state has, and are factors of a product."""
        made = set(self._narrow)
        for place, step in self._steps.items():
            if not made.isdisjoint(step.sources):
                made.add(place)
        products = [step for step in self._steps.values() if isinstance(step, Product)]
        factors = {
            self._scaled(source) for step in products if step.size <= self._steps[0].size for source in step.sources
        }
        return {place for place in made & factors if self._is_sum(place)}

    def _scaled(self, place: int) -> int:
        """Return what a step is a multiple of, or else itself."""
        step = self._steps[place]
        return self._scaled(step.sources[0]) if isinstance(step, Weighted) and len(step.sources) == 1 else place

    def _is_sum(self, place: int) -> bool:
        step = self._steps[place]
        return isinstance(step, Matrix) or (isinstance(step, Weighted) and len(step.sources) > 1)

    def __call__(self, boxes: Interval, frames: Frames | None = None, *, doubts: bool = True) -> Planes:
        """Return the planes over ``boxes`` (B, n), B >= 1, of states, or of coordinates in ``frames``, as the planes then are.

        Without ``doubts``, what each side adds to the gap is left out.
        """
        parts = [
            self._planes(
                Boxes(boxes.low[part].mT.contiguous(), boxes.high[part].mT.contiguous()),
                frames and frames[part],
                doubts,
            )
            for start in range(0, len(boxes.low), BOXES_AT_ONCE)
            for part in [slice(start, start + BOXES_AT_ONCE)]
        ]
        lower, low, upper, high, value_low, value_high, doubt, bend = (
            torch.cat(pieces) for pieces in zip(*parts, strict=True)
        )
        bend = None if frames is None else bend
        return Planes(lower, low, upper, high, Interval(value_low, value_high), doubt, bend)

    def _planes(self, boxes: Boxes, frames: Frames | None, doubts: bool) -> tuple[Tensor, ...]:
        known = (boxes.low.abs() <= LARGEST).all(0) & (boxes.high.abs() <= LARGEST).all(0)
        dim, count = boxes.centre.shape
        steps = self._steps
        if frames is not None:
            steps = {-1: States(dim, ()), 0: Placed(dim, (-1,), frames), **{s: steps[s] for s in steps if s}}
        walk = Walk(steps, boxes, self._rounding)
        for place in steps:
            form = walk.forward(place)
            known &= (form.size <= (HUGE if place > 0 else LARGEST)).all(0)
            if place in self._narrow:
                walk.sharpen(place)
        slope, offset, error, charges, concave = walk.backward(self._result)
        slope, offset = slope[0].masked_fill(~known, torch.nan), offset[0].masked_fill(~known, torch.nan)
        low, high = (
            (offset - error[0]) - ROUNDOFF * (offset - error[0]).abs(),
            (offset + error[0]) + ROUNDOFF * (offset + error[0]).abs(),
        )
        upper, high = tilted(slope, high, concave, boxes)
        own = walk.forms[self._result].range.moved(lambda bound: bound[0])
        spread = Interval(extent(slope, low, boxes)[0], extent(upper, high, boxes)[1])
        value = spread.intersected(own.where_known(known))
        doubt = torch.zeros_like(boxes.centre)
        bend = torch.zeros(dim if frames else 0, dim, count, dtype=torch.float64)
        for charge in charges if doubts else ():
            _add(charge, doubt, bend)
        return slope.mT, low, upper.mT, high, value.low, value.high, doubt.mT, bend.permute(2, 0, 1)


def _add(charge: Charge, doubt: Tensor, bend: Tensor) -> None:
    """Add to ``doubt`` (n, B) and ``bend`` (n, n, B), or (0, n, B), what numbers' spread over the boxes makes of their error."""
    share = charge.error / charge.radius.clamp(min=1e-300)
    for side in range(len(doubt)):
        doubt[side] += (share * charge.slopes[:, side].abs()).sum(0)
    curvature = share / charge.radius.clamp(min=1e-300)
    for side, row in enumerate(bend):
        row += ((curvature * charge.slopes[:, side])[:, None] * charge.slopes).sum(0)
