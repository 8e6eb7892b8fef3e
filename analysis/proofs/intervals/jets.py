"""A function's value, gradient and Hessian over boxes of states, as intervals: rules of differentiation in interval arithmetic.

The gradient holds every generalised (Clarke) gradient over the box, so the mean-value theorem applies across kinks. Across a
kink the Hessian has a singular part besides, of one sign where the kink is that of a maximum or of a minimum: a jet says
which may be there. A jump has no gradient: nothing is known of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate

import torch
from torch import Tensor

from analysis.proofs.intervals.interval import Interval, choose

Rule = Callable[[Interval], Interval]


@dataclass(frozen=True, eq=False)
class Jet:
    """Bounds over boxes of a tensor-valued function of the state, with derivatives up to ``order``.

    ``value`` (boxes, *shape), ``gradient`` (n, boxes, *shape), ``hessian`` (n, n, boxes, *shape); an absent derivative is 0
    up to the order asked for, and a dimension of boxes may be 1 for all. ``bends_up``, ``bends_down`` (boxes, *shape): the
    Hessian may have a singular part in some direction upwards (as that of |x|), downwards.
    """

    value: Interval
    gradient: Interval | None
    hessian: Interval | None
    bends_up: Tensor
    bends_down: Tensor
    order: int
    dim: int

    @classmethod
    def constant(cls, value: Tensor) -> "Jet":
        """Return the jet of a tensor (*shape) that does not depend on the state."""
        return cls.flat(Interval.point(value[None]))

    @classmethod
    def flat(cls, value: Interval) -> "Jet":
        """Return the jet of a function that is locally constant."""
        smooth = torch.zeros_like(value.low, dtype=torch.bool)
        return cls(value, None, None, smooth, smooth, 0, 0)

    @classmethod
    def states(cls, box: Interval, order: int) -> "Jet":
        """Return the jet of the states themselves, (boxes, n), as a batch of one state: shape (1, n)."""
        dim = box.shape[-1]
        value = box.moved(lambda bound: bound[:, None])
        smooth = torch.zeros_like(value.low, dtype=torch.bool)
        gradient = Interval.point(torch.eye(dim, dtype=box.low.dtype, device=box.low.device)[:, None, None])
        return cls(value, gradient if order else None, None, smooth, smooth, order, dim)

    @property
    def shape(self) -> torch.Size:
        """The shape of the function's result."""
        return self.value.shape[1:]

    def bounds(self, states: torch.Size, order: int) -> "Bounds":
        """Return the bounds with nothing absent and nothing shared, for ``states`` (boxes, n)."""
        boxes, dim = states

        def full(part: Interval | None, degree: int) -> Interval:
            if part is None:
                part = Interval.point(self.value.low.new_tensor(0 if degree <= order else torch.nan))
            shape = [dim] * degree + [boxes, *self.shape]
            return part.moved(lambda bound: bound.expand(shape))

        value, gradient, hessian = full(self.value, 0), full(self.gradient, 1), full(self.hessian, 2)
        return Bounds(value, gradient, hessian, *(flag.expand(value.shape) for flag in self._flags))

    def linear(self, function: Rule) -> "Jet":
        """Return the jet after a linear function that acts on the last dimensions alone and weighs by non-negative numbers."""
        gradient, hessian = (part and function(part) for part in (self.gradient, self.hessian))
        up, down = (function(Interval.point(flag.to(self.value.low.dtype))).high > 0 for flag in self._flags)
        return Jet(function(self.value), gradient, hessian, up, down, self.order, self.dim)

    def chained(self, value: Interval, slope: Rule, curvature: Rule) -> "Jet":
        """Return the jet of a function of this one, given its ``value`` and its derivatives as functions of an interval."""
        if self.gradient is None:
            return Jet.flat(value)
        known = ~(value.low.isnan() | value.high.isnan())
        first = slope(self.value).where_known(known)
        hessian = None
        if self.order == 2:
            second = curvature(self.value).where_known(known)
            hessian = _total(_times(first, self.hessian), second * _outer(self.gradient))
        rises, falls = ~(first.high <= 0), ~(first.low >= 0)
        return Jet(
            value,
            first * self.gradient,
            hessian,
            (self.bends_up & rises) | (self.bends_down & falls),
            (self.bends_down & rises) | (self.bends_up & falls),
            self.order,
            self.dim,
        )

    def square(self) -> "Jet":
        return self.chained(self.value.square(), lambda u: u.scaled(2), lambda u: _like(u, 2))

    def __neg__(self) -> "Jet":
        gradient, hessian = (part and -part for part in (self.gradient, self.hessian))
        return Jet(-self.value, gradient, hessian, self.bends_down, self.bends_up, self.order, self.dim)

    def __add__(self, other: "Jet") -> "Jet":
        first, second = aligned(self, other)
        return _joined(
            first,
            second,
            first.value + second.value,
            _total(first.gradient, second.gradient),
            _total(first.hessian, second.hessian),
            (first.bends_up | second.bends_up, first.bends_down | second.bends_down),
        )

    def __sub__(self, other: "Jet") -> "Jet":
        return self + -other

    def __mul__(self, other: "Jet") -> "Jet":
        first, second = aligned(self, other)
        return first._product(second, Interval.__mul__, torch.Tensor.__and__)

    def __truediv__(self, other: "Jet") -> "Jet":
        return self * other.chained(
            other.value.reciprocal(),
            lambda u: -u.square().reciprocal(),
            lambda u: u.power(3).reciprocal().scaled(2),
        )

    def matmul(self, other: "Jet") -> "Jet":
        """Return the matrix product of two jets of matrices."""
        return self._product(other, Interval.matmul, lambda a, b: (a.float() @ b.float()) > 0)

    def _product(
        self,
        other: "Jet",
        times: Callable[[Interval, Interval], Interval],
        meet: Callable[[Tensor, Tensor], Tensor],
    ) -> "Jet":
        """Return a bilinear product; ``meet`` says whether a pair of flags meets in it."""
        a, b = self, other
        hessian = None
        if max(a.order, b.order) == 2:
            cross = None
            if a.gradient is not None and b.gradient is not None:
                cross = times(a.gradient.moved(lambda g: g[:, None]), b.gradient.moved(lambda g: g[None]))
                cross = cross + cross.moved(lambda c: c.transpose(0, 1))
            hessian = _total(_times(a.hessian, b.value, times), _times(a.value, b.hessian, times), cross)
        (a_plus, a_minus), (b_plus, b_minus) = ((~(jet.value.high <= 0), ~(jet.value.low >= 0)) for jet in (a, b))
        up = [(a_plus, b.bends_up), (a_minus, b.bends_down), (a.bends_up, b_plus), (a.bends_down, b_minus)]
        down = [(a_plus, b.bends_down), (a_minus, b.bends_up), (a.bends_down, b_plus), (a.bends_up, b_minus)]
        flags = tuple(reduce(torch.logical_or, [meet(p, q) for p, q in pairs]) for pairs in (up, down))
        gradient = _total(_times(a.gradient, b.value, times), _times(a.value, b.gradient, times))
        return _joined(a, b, times(a.value, b.value), gradient, hessian, (flags[0], flags[1]))

    def maximum(self, other: "Jet") -> "Jet":
        """Return the larger of two, whose kinks are convex."""
        a, b = aligned(self, other)
        value = Interval(torch.maximum(a.value.low, b.value.low), torch.maximum(a.value.high, b.value.high))
        a_only, b_only = a.value.low > b.value.high, b.value.low > a.value.high
        kinked = ~(a_only | b_only)

        def merged(first: Interval | None, second: Interval | None) -> Interval | None:
            if first is None and second is None:
                return None
            first, second = (part if part is not None else _like(value, 0) for part in (first, second))
            return choose(a_only, first, choose(b_only, second, first.hull(second)))

        up = (a.bends_up & ~b_only) | (b.bends_up & ~a_only)
        if a.gradient is not None or b.gradient is not None:
            up = up | kinked
        down = (a.bends_down & ~b_only) | (b.bends_down & ~a_only)
        return _joined(a, b, value, merged(a.gradient, b.gradient), merged(a.hessian, b.hessian), (up, down))

    def minimum(self, other: "Jet") -> "Jet":
        return -(-self).maximum(-other)

    def abs(self) -> "Jet":
        larger = self.maximum(-self)
        value = Interval(larger.value.low.clamp(min=0), larger.value.high)
        return Jet(value, larger.gradient, larger.hessian, larger.bends_up, larger.bends_down, self.order, self.dim)

    @property
    def _flags(self) -> tuple[Tensor, Tensor]:
        return self.bends_up, self.bends_down


@dataclass(frozen=True, eq=False)
class Bounds:
    """What a jet says of a function over boxes: as there, but with nothing absent; NaN where a derivative was not asked for."""

    value: Interval
    gradient: Interval
    hessian: Interval
    bends_up: Tensor
    bends_down: Tensor


@dataclass(frozen=True, eq=False)
class Truth:
    """Whether a condition on the state holds over boxes: surely everywhere, possibly somewhere; both (boxes, *shape) bool."""

    sure: Tensor
    possible: Tensor
    order: int = 0
    dim: int = 0

    @classmethod
    def constant(cls, value: Tensor) -> "Truth":
        return cls(value[None], value[None])

    def __invert__(self) -> "Truth":
        return Truth(~self.possible, ~self.sure, self.order, self.dim)

    def __and__(self, other: "Truth") -> "Truth":
        return Truth(
            self.sure & other.sure,
            self.possible & other.possible,
            max(self.order, other.order),
            max(self.dim, other.dim),
        )


def exceeds(first: Jet, second: Jet) -> Truth:
    """Return whether ``first`` > ``second``."""
    a, b = aligned(first, second)
    sure, possible = a.value.low > b.value.high, ~(a.value.high <= b.value.low)
    return Truth(sure, possible, max(a.order, b.order), max(a.dim, b.dim))


def where(condition: Truth, first: Jet, second: Jet) -> Jet:
    """Return ``first`` where the condition holds, else ``second``; where it is open, values alone, since it may jump."""
    rank = max(condition.sure.dim() - 1, len(first.shape), len(second.shape))
    first, second = _padded(first, rank), _padded(second, rank)
    sure, possible = (_pad(flag, flag.dim() - 1, rank) for flag in (condition.sure, condition.possible))
    yes, no = sure, ~possible
    order, dim = (max(getattr(part, name) for part in (condition, first, second)) for name in ("order", "dim"))
    value = choose(yes, first.value, choose(no, second.value, first.value.hull(second.value)))
    unknown = _like(value, torch.nan)

    def merged(a: Interval | None, b: Interval | None, degree: int) -> Interval | None:
        if order < degree or (a is None and b is None and bool((yes | no).all())):
            return None
        a, b = (part if part is not None else _like(value, 0) for part in (a, b))
        parts = choose(yes, a, choose(no, b, unknown))
        lead = parts.shape if parts.low.dim() > value.low.dim() else torch.Size([dim] * degree) + value.shape
        return parts.moved(lambda bound: bound.expand(lead))

    open_question = ~(yes | no)
    flags = (
        (first.bends_up & yes) | (second.bends_up & no) | open_question,
        (first.bends_down & yes) | (second.bends_down & no) | open_question,
    )
    gradient, hessian = merged(first.gradient, second.gradient, 1), merged(first.hessian, second.hessian, 2)
    up, down = (flag.expand(value.shape) for flag in flags)
    return Jet(value, gradient, hessian, up, down, order, dim)


def rearranged(operation: Callable[..., Tensor | list[Tensor]], jets: list[Jet]) -> list[Jet]:
    """Return the results of an operation that only moves elements: ``operation`` takes the tensors (*shape) of ``jets``.

    It is run once on the numbers of the elements, which says where each of the results comes from.
    """
    sizes = [jet.shape.numel() for jet in jets]
    starts = [0, *accumulate(sizes)]
    device = jets[0].value.low.device
    numbers = [
        torch.arange(start, start + size, device=device).reshape(jet.shape)
        for start, size, jet in zip(starts, sizes, jets, strict=False)
    ]
    moved = operation(*numbers)
    results = list(moved) if isinstance(moved, list | tuple) else [moved]
    order, dim = max(jet.order for jet in jets), max(jet.dim for jet in jets)
    boxes = max(len(jet.value.low) for jet in jets)
    value = _flattened([jet.value for jet in jets], jets, torch.Size([boxes]))
    is_constant = all(jet.gradient is None for jet in jets)
    gradient = None if is_constant else _flattened([jet.gradient for jet in jets], jets, torch.Size([dim, boxes]))
    is_flat = all(jet.hessian is None for jet in jets)
    hessian = None if is_flat else _flattened([jet.hessian for jet in jets], jets, torch.Size([dim, dim, boxes]))
    up, down = (
        torch.cat([flag.reshape(len(flag), -1).expand(boxes, -1) for flag in flags], 1)
        for flags in ([jet.bends_up for jet in jets], [jet.bends_down for jet in jets])
    )

    def picked(flat: Tensor, source: Tensor) -> Tensor:
        return flat[..., source.flatten()].reshape(*flat.shape[:-1], *source.shape)

    return [
        Jet(
            value.moved(lambda flat, source=source: picked(flat, source)),
            gradient and gradient.moved(lambda flat, source=source: picked(flat, source)),
            hessian and hessian.moved(lambda flat, source=source: picked(flat, source)),
            picked(up, source),
            picked(down, source),
            order,
            dim,
        )
        for source in results
    ]


def aligned(first: Jet, second: Jet) -> tuple[Jet, Jet]:
    """Return two jets with as many dimensions each, so that they broadcast against one another."""
    rank = max(len(first.shape), len(second.shape))
    return _padded(first, rank), _padded(second, rank)


def _padded(jet: Jet, rank: int) -> Jet:
    have = len(jet.shape)
    return jet if have == rank else jet.linear(lambda part: part.moved(lambda bound: _pad(bound, have, rank)))


def _pad(bound: Tensor, have: int, rank: int) -> Tensor:
    """Return ``bound`` (*lead, *shape) with ones before a shape of ``have`` dimensions, to make it ``rank``."""
    lead = bound.dim() - have
    return bound.reshape(bound.shape[:lead] + (1,) * (rank - have) + bound.shape[lead:])


def _flattened(parts: list[Interval | None], jets: list[Jet], lead: torch.Size) -> Interval:
    """Return the parts (*lead, elements of all jets), zeros where a part is absent."""

    def flat(part: Interval | None, jet: Jet) -> Interval:
        if part is None:
            return Interval.point(jet.value.low.new_zeros(*lead, jet.shape.numel()))
        start = len(lead)
        return part.moved(lambda bound: bound.flatten(start) if bound.dim() > start else bound[..., None]).moved(
            lambda bound: bound.expand(*lead, -1)
        )

    pieces = [flat(part, jet) for part, jet in zip(parts, jets, strict=True)]
    low = torch.cat([piece.low for piece in pieces], -1)
    if all(piece.is_point for piece in pieces):
        return Interval.point(low)
    return Interval(low, torch.cat([piece.high for piece in pieces], -1))


def _joined(
    a: Jet,
    b: Jet,
    value: Interval,
    gradient: Interval | None,
    hessian: Interval | None,
    flags: tuple[Tensor, Tensor],
) -> Jet:
    def spread(part: Interval | None) -> Interval | None:
        """Return the derivatives in the shape of the value: a sum with a constant of more elements leaves them in theirs."""
        return part and part.moved(lambda bound: bound.expand(*bound.shape[: bound.dim() - rank], *value.shape[1:]))

    rank = value.low.dim() - 1
    return Jet(value, spread(gradient), spread(hessian), *flags, max(a.order, b.order), max(a.dim, b.dim))


def _like(interval: Interval, number: float) -> Interval:
    return Interval.point(torch.full_like(interval.low, number))


def _total(*terms: Interval | None) -> Interval | None:
    """Return the sum, where an absent term is 0."""
    present = [term for term in terms if term is not None]
    return reduce(Interval.__add__, present) if present else None


def _times(
    a: Interval | None, b: Interval | None, times: Callable[[Interval, Interval], Interval] = Interval.__mul__
) -> Interval | None:
    """Return the product, absent (0) where a factor is."""
    return None if a is None or b is None else times(a, b)


def _outer(gradient: Interval) -> Interval:
    """Return g g' (n, n, ...), whose diagonal is a square."""
    outer = gradient.moved(lambda g: g[:, None]) * gradient.moved(lambda g: g[None])
    diagonal = torch.eye(len(gradient.low), dtype=torch.bool, device=gradient.low.device)
    diagonal = diagonal.reshape(diagonal.shape + (1,) * (gradient.low.dim() - 1))
    return Interval(torch.where(diagonal, outer.low.clamp(min=0), outer.low), outer.high)
