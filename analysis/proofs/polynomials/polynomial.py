"""Sparse polynomials with exact rational coefficients, and quotients of them whose denominators are kept apart.

The polynomials are ``fmpq_mpoly`` of the library FLINT, through python-flint.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import cast

from flint import Ordering, fmpq, fmpq_mpoly, fmpq_mpoly_ctx

# Of what is larger, no sum of squares is sought.
MOST_TERMS, MOST_DEGREE = 5000, 24


class BeyondSquaresError(Exception):
    """A function is no quotient of polynomials with a denominator that is not 0 at the centre, or the question is too large."""


def rational(number: float) -> fmpq:
    """Return a finite float or an integer as it is."""
    return fmpq(*number.as_integer_ratio())


def as_float(number: fmpq | float) -> float:
    """Return the nearest float."""
    return number if isinstance(number, float) else float(Fraction(int(number.p), int(number.q)))


@dataclass(frozen=True)
class Ring:
    """The polynomials in ``dim`` coordinates that are 0 at the centre.

    ``divisors`` are the polynomials that were divided by, each scaled to be 1 at the centre: what is computed with quotients is true
    where all of them are positive.
    """

    dim: int
    divisors: list[fmpq_mpoly] = field(default_factory=list)

    @property
    def coordinates(self) -> list["Quotient"]:
        return [Quotient(self, one) for one in self._context.gens()]

    def constant(self, number: fmpq) -> "Quotient":
        return Quotient(self, self._context.constant(number))

    def sum(self, quotients: Sequence["Quotient"]) -> "Quotient":
        return sum(quotients[1:], quotients[0]) if quotients else self.constant(fmpq(0))

    @property
    def _context(self) -> fmpq_mpoly_ctx:
        return cast(fmpq_mpoly_ctx, fmpq_mpoly_ctx.get([f"u{place}" for place in range(self.dim)], Ordering.lex))

    def place_of(self, divisor: fmpq_mpoly) -> int:
        for place, known in enumerate(self.divisors):
            if known == divisor:
                return place
        self.divisors.append(divisor)
        return len(self.divisors) - 1


@dataclass(frozen=True, eq=False)
class Quotient:
    """``numerator`` over the product of ``ring.divisors``, each to the power >= 1 that ``powers`` gives it by its place.

    Nothing is cancelled, so that where all divisors are positive it has the sign of its numerator.
    """

    ring: Ring
    numerator: fmpq_mpoly
    powers: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.numerator) > MOST_TERMS or self.degree > MOST_DEGREE:
            raise BeyondSquaresError(f"it is a polynomial of degree {self.degree} with {len(self.numerator)} terms")

    @property
    def degree(self) -> int:
        return 0 if self.numerator.is_zero() else int(self.numerator.total_degree())

    @property
    def at_centre(self) -> fmpq:
        """The numerator there, which is the value, since every divisor is 1."""
        return self.numerator[(0,) * self.ring.dim]

    def __add__(self, other: "Quotient") -> "Quotient":
        if not isinstance(other, Quotient):
            return NotImplemented  # what else there is knows how to be computed with quotients
        powers = {
            place: max(self.powers.get(place, 0), other.powers.get(place, 0)) for place in self.powers | other.powers
        }
        return Quotient(self.ring, self._over(powers) + other._over(powers), powers)

    def __neg__(self) -> "Quotient":
        return Quotient(self.ring, -self.numerator, self.powers)

    def __sub__(self, other: "Quotient") -> "Quotient":
        if not isinstance(other, Quotient):
            return NotImplemented
        return self + -other

    def __mul__(self, other: "Quotient") -> "Quotient":
        if not isinstance(other, Quotient):
            return NotImplemented
        powers = {place: self.powers.get(place, 0) + other.powers.get(place, 0) for place in self.powers | other.powers}
        # Refused before it is multiplied out, which may take for ever.
        if self.degree + other.degree > MOST_DEGREE:
            raise BeyondSquaresError(f"it is a polynomial of degree {self.degree + other.degree}")
        return Quotient(self.ring, self.numerator * other.numerator, powers)

    def __truediv__(self, other: "Quotient") -> "Quotient":
        if not isinstance(other, Quotient):
            return NotImplemented
        return self * other.reciprocal()

    def __pow__(self, exponent: int) -> "Quotient":
        if exponent < 0:
            return self.reciprocal() ** -exponent
        result = self.ring.constant(fmpq(1))
        for _ in range(exponent):
            result = result * self
        return result

    def reciprocal(self) -> "Quotient":
        """Return 1 / the quotient, its numerator becoming a divisor unless it is a constant."""
        least = self.at_centre
        if least == 0:
            raise BeyondSquaresError("it divides by what is 0 at the centre")
        # Over no divisor, the product of its own divisors is what they are as a numerator.
        upper = Quotient(self.ring, self.ring.constant(1 / least)._times(self.powers))
        if self.numerator.is_constant():
            return upper
        return Quotient(self.ring, upper.numerator, {self.ring.place_of(self.numerator / least): 1})

    def derivative(self, coordinate: int) -> "Quotient":
        total = Quotient(self.ring, self.numerator.derivative(coordinate), self.powers)
        for place, power in self.powers.items():
            slope = self.ring.divisors[place].derivative(coordinate) * -power
            total = total + Quotient(self.ring, self.numerator * slope, self.powers | {place: power + 1})
        return total

    def _over(self, powers: dict[int, int]) -> fmpq_mpoly:
        """Return the numerator over a common denominator of these powers, none of them smaller."""
        return self._times({place: power - self.powers.get(place, 0) for place, power in powers.items()})

    def _times(self, powers: dict[int, int]) -> fmpq_mpoly:
        product = self.numerator
        for place, power in powers.items():
            product = product * self.ring.divisors[place] ** power
        return product
