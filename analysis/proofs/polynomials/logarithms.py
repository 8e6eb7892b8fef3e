"""Quotients of polynomials plus logarithms of some: the slopes of such a sum are quotients again, and so are bounds of it.

For u > 0, log u <= g(u) = (u - 1) - 2/3 (u - 1)^2 / (u + 1), and equal at u = 1 alone: g(1) = 0, and the slope of g(u) - log u is
(u - 1) (u^2 / 3 + 1) / (u (u + 1)^2), which has the sign of u - 1. From below, log u = -log(1/u) >= -g(1/u).
"""

from dataclasses import dataclass

from flint import arb, fmpq

from analysis.proofs.polynomials.polynomial import BeyondSquaresError, Quotient


@dataclass(frozen=True, eq=False)
class WithLogarithms:
    """``plain`` + sum_i a_i log u_i, ``logarithms`` being the pairs of a_i and u_i, which is 1 at the centre.

    Every u_i is a divisor of the ring: what is computed with it is true where all of these are positive.
    """

    plain: Quotient
    logarithms: tuple[tuple[fmpq, Quotient], ...]

    @staticmethod
    def of(argument: Quotient) -> "WithLogarithms":
        """Return log u of the ``argument`` u; raise BeyondSquaresError where that is not 1 at the centre."""
        if argument.at_centre != 1:
            raise BeyondSquaresError("it is a logarithm of what is not 1 at the centre")
        argument.reciprocal()  # which has it shown to be positive, as a divisor
        return WithLogarithms(argument.ring.constant(fmpq(0)), ((fmpq(1), argument),))

    @property
    def at_centre(self) -> fmpq:
        return self.plain.at_centre

    def __add__(self, other: "Quotient | WithLogarithms") -> "WithLogarithms":
        if isinstance(other, Quotient):
            return WithLogarithms(self.plain + other, self.logarithms)
        return WithLogarithms(self.plain + other.plain, self.logarithms + other.logarithms)

    __radd__ = __add__

    def __mul__(self, other: "Quotient | WithLogarithms") -> "WithLogarithms":
        if not isinstance(other, Quotient) or other.powers or not other.numerator.is_constant():
            raise BeyondSquaresError("it multiplies a logarithm by what is no number")
        scaled = tuple((other.at_centre * factor, argument) for factor, argument in self.logarithms)
        return WithLogarithms(self.plain * other, scaled)

    __rmul__ = __mul__

    def __neg__(self) -> "WithLogarithms":
        return self * self.plain.ring.constant(fmpq(-1))

    def __sub__(self, other: "Quotient | WithLogarithms") -> "WithLogarithms":
        return self + -other

    def __rsub__(self, other: Quotient) -> "WithLogarithms":
        return -self + other

    def __truediv__(self, other: "Quotient | WithLogarithms") -> "WithLogarithms":
        return self * other.reciprocal()

    def __rtruediv__(self, other: Quotient) -> "WithLogarithms":
        return self.reciprocal()

    def __pow__(self, exponent: int) -> "WithLogarithms":
        if exponent != 1:
            raise BeyondSquaresError("it is a power of a logarithm")
        return self

    def reciprocal(self) -> "WithLogarithms":
        raise BeyondSquaresError("it divides by a logarithm")

    def derivative(self, coordinate: int) -> Quotient:
        slopes = [argument.derivative(coordinate) / argument * _number(argument, a) for a, argument in self.logarithms]
        return self.plain.ring.sum([self.plain.derivative(coordinate), *slopes])

    @property
    def at_most(self) -> Quotient:
        """An upper bound, equal to the value where every u_i is 1."""
        bounds = [
            (_above_logarithm(argument) if a > 0 else -_above_logarithm(argument.reciprocal())) * _number(argument, a)
            for a, argument in self.logarithms
        ]
        return self.plain.ring.sum([self.plain, *bounds])


def at_most(value: Quotient | WithLogarithms) -> Quotient:
    """Return an upper bound of a value, itself where it is a quotient."""
    return value if isinstance(value, Quotient) else value.at_most


def below(value: Quotient | WithLogarithms, level: Quotient) -> Quotient:
    """Return what is >= 0 wherever the ``value`` is at most a constant ``level``, so that it exceeds the level where this is < 0."""
    edge = _edge(value, level)
    return at_most(level - value) if edge is None else edge[0]


def above(value: Quotient | WithLogarithms, level: Quotient) -> Quotient:
    """Return what is >= 0 wherever the ``value`` is at least a constant ``level``, so that it is at most the level where this is <= 0."""
    edge = _edge(value, level)
    return at_most(value - level) if edge is None else edge[1]


def _edge(value: Quotient | WithLogarithms, level: Quotient) -> tuple[Quotient, Quotient] | None:
    """Return both of b + a log u with numbers a > 0 and b, from a <= log u <= b as exp(a) <= u <= exp(b); None of another value."""
    if isinstance(value, Quotient) or len(value.logarithms) != 1 or not value.plain.numerator.is_constant():
        return None
    ((factor, argument),) = value.logarithms
    if value.plain.powers or factor <= 0:
        return None
    ends = arb((level.at_centre - value.plain.at_centre) / factor).exp()
    return _number(argument, ends.upper().fmpq()) - argument, argument - _number(argument, ends.lower().fmpq())


def _above_logarithm(argument: Quotient) -> Quotient:
    """Return g(u), at least log u for u > 0."""
    one = _number(argument, fmpq(1))
    over = argument - one
    return over - over**2 / (argument + one) * _number(argument, fmpq(2, 3))


def _number(of: Quotient, number: fmpq) -> Quotient:
    return of.ring.constant(number)
