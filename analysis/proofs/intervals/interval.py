"""Interval arithmetic on tensors: every operation rounds outwards, so that the results hold in real arithmetic.

An operation of IEEE arithmetic errs by half a unit in the last place; the elementary functions of PyTorch are taken to err
by at most 4 units. NaN bounds mean that nothing is known, an undefined value included, and every later result inherits
them. What is exact and seen to be stays exact: a sum or a product without an error, exp(0), cos(0).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

# One more than half a unit in the last place, relative to the result; the smallest normal number covers underflow.
ROUNDOFF = 2.0**-52
UNDERFLOW = 2.0**-1022
# Four units in the last place, and as much again for the rounding of the widening itself.
FUNCTION_ERROR = 8 * ROUNDOFF
# Sums of at most so many terms are added one after the other, with each addition's own error.
SHORT_SUM = 8
# The error of a larger product does not underflow.
SMALLEST_SPLIT = 2.0**-900
# Beyond this, the reduction of an angle by its period is not trusted.
LARGEST_ANGLE = 1e5


@dataclass(frozen=True, eq=False)
class Interval:
    """The numbers between ``low`` and ``high``, float64 tensors of one shape; one tensor as both is a number known exactly."""

    low: Tensor
    high: Tensor

    @classmethod
    def point(cls, value: Tensor) -> "Interval":
        return cls(value, value)

    @property
    def is_point(self) -> bool:
        return self.low is self.high

    @property
    def shape(self) -> torch.Size:
        return self.low.shape

    @property
    def ends(self) -> tuple[Tensor, ...]:
        return (self.low,) if self.is_point else (self.low, self.high)

    @property
    def magnitude(self) -> Tensor:
        """The largest absolute value."""
        return torch.maximum(self.low.abs(), self.high.abs())

    @property
    def holds_zero(self) -> Tensor:
        """Whether 0 may be among the numbers; true where nothing is known."""
        return ~((self.low > 0) | (self.high < 0))

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Interval":
        """Return the interval with ``move``, which only moves numbers, applied to its bounds."""
        low = move(self.low)
        return Interval(low, low if self.is_point else move(self.high))

    def __neg__(self) -> "Interval":
        negative = -self.high
        return Interval(negative, negative if self.is_point else -self.low)

    def __add__(self, other: "Interval") -> "Interval":
        low, below = _sum_and_error(self.low, other.low)
        high, above = _sum_and_error(self.high, other.high)
        # Where the error is NaN the sum has overflowed, and widening makes the bound unknown.
        return Interval(
            low - (low.abs() * ROUNDOFF).masked_fill(below >= 0, 0),
            high + (high.abs() * ROUNDOFF).masked_fill(above <= 0, 0),
        )

    def __sub__(self, other: "Interval") -> "Interval":
        return self + -other

    def __mul__(self, other: "Interval") -> "Interval":
        products = [_product(a, b) for a in self.ends for b in other.ends]
        lows, highs = zip(*products, strict=True)
        return Interval(reduce(torch.minimum, lows), reduce(torch.maximum, highs))

    def scaled(self, factor: float) -> "Interval":
        if factor == 2:
            return self + self
        return self * Interval.point(self.low.new_tensor(factor))

    def square(self) -> "Interval":
        low, high = _product(self.low, self.low), _product(self.high, self.high)
        nearest = torch.minimum(low[0], high[0]).clamp(min=0)
        inside = (self.low <= 0) & (self.high >= 0)
        return Interval(torch.where(inside, 0, nearest), torch.maximum(low[1], high[1]))

    def reciprocal(self) -> "Interval":
        """Return 1 / x; nothing is known where 0 may be among the numbers."""
        low, high = 1 / self.high, 1 / self.low
        unknown = self.holds_zero
        return Interval(
            (low - (low.abs() * ROUNDOFF + UNDERFLOW)).masked_fill(unknown, math.nan),
            (high + (high.abs() * ROUNDOFF + UNDERFLOW)).masked_fill(unknown, math.nan),
        )

    def sum(self, dims: list[int], keepdim: bool = False) -> "Interval":
        """Return the sum over ``dims``, counted from the last; short sums are exact where every addition is."""
        count = math.prod(self.shape[dim] for dim in dims)
        if not dims:
            return self
        if len(dims) == 1 and 0 < count <= SHORT_SUM:
            slices = [self.moved(lambda bound, index=index: bound.narrow(dims[0], index, 1)) for index in range(count)]
            total = reduce(Interval.__add__, slices)
            return total if keepdim else total.moved(lambda bound: bound.squeeze(dims[0]))
        low, high = (bound.sum(dims, keepdim) for bound in (self.low, self.high))
        # Higham 2002, section 4.2: (count - 1) half units of the terms' magnitudes, in whatever order they are added.
        error = count * ROUNDOFF
        return Interval(
            low - error * self.low.abs().sum(dims, keepdim), high + error * self.high.abs().sum(dims, keepdim)
        )

    def matmul(self, other: "Interval") -> "Interval":
        """Return the matrix product (..., i, k) x (..., k, j)."""
        if other.shape[-2] == 1:
            return self * other
        is_small = max(other.shape[-2:]) <= SHORT_SUM
        if other.is_point and not is_small:
            return _times_matrix(self, other.low)
        if self.is_point and not is_small:
            return _times_matrix(other.moved(lambda bound: bound.mT), self.low.mT).moved(lambda bound: bound.mT)
        return (self.moved(lambda bound: bound[..., None]) * other.moved(lambda bound: bound[..., None, :, :])).sum(
            [-2]
        )

    def power(self, exponent: float) -> "Interval":
        """Return x to a fixed power; an exponent that is no integer takes x >= 0 alone."""
        if exponent < 0:
            return self.power(-exponent).reciprocal()
        if exponent == 0:
            return Interval.point(torch.ones_like(self.low)).where_known(~self.low.isnan() & ~self.high.isnan())
        if exponent == 1:
            return self
        if exponent == 2:
            return self.square()
        if exponent == 0.5:
            return self.sqrt()
        if exponent != int(exponent):
            return monotone(lambda x: x**exponent, self, exact_at=(0.0, 1.0)).where_known(self.low >= 0)
        if exponent % 2:
            return monotone(lambda x: x.sign() * x.abs() ** exponent, self, exact_at=(0.0, 1.0))
        return monotone(lambda x: x**exponent, self.absolute(), exact_at=(0.0, 1.0))

    def absolute(self) -> "Interval":
        inside = (self.low <= 0) & (self.high >= 0)
        return Interval(torch.where(inside, 0, torch.minimum(self.low.abs(), self.high.abs())), self.magnitude)

    def sqrt(self) -> "Interval":
        return monotone(torch.sqrt, self, exact_at=(0.0, 1.0)).where_known(self.low >= 0)

    def exp(self) -> "Interval":
        return _positive(monotone(torch.exp, self, exact_at=(0.0,)))

    def expm1(self) -> "Interval":
        return monotone(torch.expm1, self, exact_at=(0.0,))

    def log(self) -> "Interval":
        return monotone(torch.log, self, exact_at=(1.0,)).where_known(self.low > 0)

    def log1p(self) -> "Interval":
        return monotone(torch.log1p, self, exact_at=(0.0,)).where_known(self.low > -1)

    def tanh(self) -> "Interval":
        return monotone(torch.tanh, self, exact_at=(0.0,)).within(-1, 1)

    def sigmoid(self) -> "Interval":
        return monotone(torch.sigmoid, self, exact_at=()).within(0, 1)

    def atan(self) -> "Interval":
        return monotone(torch.atan, self, exact_at=(0.0,))

    def tan(self) -> "Interval":
        return monotone(torch.tan, self, exact_at=(0.0,)).where_known(~_meets(self, math.pi / 2, math.pi))

    def sin(self) -> "Interval":
        return _wave(torch.sin, self, top=math.pi / 2, exact_at=(0.0,))

    def cos(self) -> "Interval":
        return _wave(torch.cos, self, top=0.0, exact_at=(0.0,))

    def within(self, least: float, most: float) -> "Interval":
        """Return the numbers that lie in [least, most], where all are known to."""
        return Interval(self.low.clamp(min=least), self.high.clamp(max=most))

    def where_known(self, known: Tensor) -> "Interval":
        """Return the interval where ``known``, and elsewhere that nothing is known."""
        return Interval(self.low.masked_fill(~known, math.nan), self.high.masked_fill(~known, math.nan))

    def hull(self, other: "Interval") -> "Interval":
        """Return the smallest interval that holds both."""
        return Interval(torch.minimum(self.low, other.low), torch.maximum(self.high, other.high))

    def intersected(self, other: "Interval") -> "Interval":
        """Return the numbers in both, which hold the same quantity; one of which nothing is known gives way."""
        return Interval(torch.fmax(self.low, other.low), torch.fmin(self.high, other.high))


def choose(condition: Tensor, first: Interval, second: Interval) -> Interval:
    """Return ``first`` where ``condition``, else ``second``."""
    return Interval(
        torch.where(condition, first.low, second.low),
        torch.where(condition, first.high, second.high),
    )


def _sum_and_error(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a + b as rounded, and the exact sum less that, itself exact (Knuth's TwoSum)."""
    total = a + b
    second = total - a
    return total, (a - (total - second)) + (b - second)


def _product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds of a b, exact where the product is."""
    product = a * b
    a_high, b_high = _leading(a), _leading(b)
    a_low, b_low = a - a_high, b - b_high
    # Dekker's TwoProduct: the exact product less the rounded one, itself exact unless it underflows.
    error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    trusted = (product.abs() > SMALLEST_SPLIT) | (a == 0) | (b == 0)
    width = product.abs() * ROUNDOFF + UNDERFLOW
    return (
        product - width.masked_fill(trusted & (error >= 0), 0),
        product + width.masked_fill(trusted & (error <= 0), 0),
    )


def _leading(a: Tensor) -> Tensor:
    """Return the leading half of the digits (Veltkamp's splitting); NaN where that overflows."""
    scaled = a * (2.0**27 + 1)
    return scaled - (scaled - a)


def _times_matrix(interval: Interval, matrix: Tensor) -> Interval:
    """Return interval (..., i, k) times ``matrix`` (..., k, j), by middle and radius (Rump, BIT 39, 1999)."""
    terms = matrix.shape[-2]
    if matrix.numel() == terms * matrix.shape[-1]:
        # One matrix for all is one large product, where a broadcast one would be many small ones.
        matrix = matrix.reshape(matrix.shape[-2:])
    middle = interval.low / 2 + interval.high / 2
    radius = torch.maximum(interval.high - middle, middle - interval.low)
    reach = (radius * (1 + 4 * ROUNDOFF) + (terms + 2) * ROUNDOFF * middle.abs()) @ matrix.abs()
    is_zero = ((interval.low == 0) & (interval.high == 0)).all(-1, keepdim=True)
    reach = reach * (1 + (terms + 4) * ROUNDOFF) + (~is_zero).to(reach.dtype) * (terms * UNDERFLOW)
    product = middle @ matrix
    return Interval(product - reach, product + reach)


def monotone(function: Callable[[Tensor], Tensor], x: Interval, exact_at: tuple[float, ...]) -> Interval:
    """Return a non-decreasing elementary function of an interval, exact at the numbers ``exact_at``."""

    def bound(end: Tensor, sign: int) -> Tensor:
        result = function(end)
        error = result.abs() * FUNCTION_ERROR + UNDERFLOW
        exact = [end == number for number in exact_at]
        if exact:
            error = error.masked_fill(reduce(torch.logical_or, exact), 0)
        return result + sign * error

    return Interval(bound(x.low, -1), bound(x.high, 1))


def _positive(x: Interval) -> Interval:
    return Interval(x.low.clamp(min=0), x.high)


def _wave(function: Callable[[Tensor], Tensor], x: Interval, top: float, exact_at: tuple[float, ...]) -> Interval:
    """Return sin or cos of an interval; ``top`` is where it is 1."""
    at_ends = [monotone(function, Interval.point(end), exact_at) for end in x.ends]
    low, high = reduce(Interval.hull, at_ends).ends
    low = torch.where(_meets(x, top + math.pi, 2 * math.pi), -1.0, low)
    high = torch.where(_meets(x, top, 2 * math.pi), 1.0, high)
    return Interval(low, high).within(-1, 1).where_known(x.low.isfinite() & x.high.isfinite())


def _meets(x: Interval, offset: float, period: float) -> Tensor:
    """Return whether some offset + k period may be among the numbers."""
    slack = 1e-9
    first = ((x.low - offset) / period - slack).ceil()
    last = ((x.high - offset) / period + slack).floor()
    return (first <= last) | (x.magnitude > LARGEST_ANGLE)
