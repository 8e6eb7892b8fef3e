"""A set {h = 0} on boxes: the part of a box that may hold states of it, by linear bounds of h."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, fx

from analysis.proofs.intervals.graph import FunctionEnclosure, UnboundedError
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.linear import LinearBounds, contracted
from analysis.proofs.tracing import TraceError
from stabdeq.constraint import Constraint, columns


@dataclass(frozen=True)
class ConstraintBounds:
    """The set by the components of h, each as an enclosure, and with linear bounds where it has any."""

    components: tuple[FunctionEnclosure, ...]
    planes: tuple[LinearBounds | None, ...]

    @classmethod
    def of(
        cls, constraint: Constraint, centre: Tensor, enclosure: Callable[[Constraint], FunctionEnclosure]
    ) -> "ConstraintBounds":
        """Return the set of h, ``constraint`` (B, n) -> (B,) or (B, k); ``enclosure`` gives bounds of a function (B, n) -> (B,)."""
        with torch.no_grad():
            count = columns(constraint(centre[None])).shape[1]
        components = tuple(enclosure(partial(_component, constraint, part)) for part in range(count))
        return cls(components, tuple(_planes(one.graph) for one in components))

    def within(self, box: Interval) -> tuple[Tensor, Tensor, Tensor]:
        """Return corners (B, n), (B, n) of the part of each box outside which h is not 0, and where there is no such part, (B,)."""
        low, high = box.low, box.high
        empty = torch.zeros(len(low), dtype=torch.bool)
        for component, planes in zip(self.components, self.planes, strict=True):
            part = Interval(low, high)
            empty = empty | ~component(part, 0).value.holds_zero
            if planes is None:
                continue
            found = planes(part)
            for slope, offset in ((-found.lower, -found.lower_offset), (found.upper, found.upper_offset)):
                low, high, none = contracted(low, high, slope, torch.nextafter(offset, offset.new_tensor(math.inf)))
                empty = empty | none
        return low, high, empty


def _component(constraint: Constraint, part: int, states: Tensor) -> Tensor:
    return columns(constraint(states))[:, part]


def _planes(graph: fx.GraphModule) -> LinearBounds | None:
    try:
        return LinearBounds(graph)
    except (UnboundedError, TraceError):
        return None
