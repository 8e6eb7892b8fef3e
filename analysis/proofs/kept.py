"""Do the dynamics keep a set {h = 0}? In rational arithmetic: Dh f, or h(z+), is a combination of the components of h.

With Dh f = A h, A made of quotients whose divisors are positive on the set, h' = A h along a trajectory, of which h = 0 is the only
solution that begins at 0.
"""

from flint import fmpq
from torch import fx

from analysis.evidence.regions import Ball, Box
from analysis.proofs.box_search import Proof, Unproved
from analysis.proofs.polynomials.polynomial import BeyondSquaresError, Quotient
from analysis.proofs.polynomials.question import Question
from analysis.proofs.polynomials.reading import Unread, quotients


def prove_kept(
    constraint: fx.GraphModule, motion: fx.GraphModule, base: Ball | Box, *, in_steps: bool
) -> Proof | Unproved:
    """Try to prove that h, ``constraint`` (1, n) -> (1, *), stays 0 along the velocity, or the next state, ``motion`` (1, n) -> (1, n).

    It is shown of the states of ``base`` with h = 0. h must be made of polynomials, and the components of the dynamics that it feels of
    quotients of polynomials.
    """
    question = Question(constraint, motion, base)
    symbol = "h(z+)" if in_steps else "Dh f"
    try:
        parts = list(quotients(constraint, question.states).reshape(-1))
        if any(part.powers for part in parts):
            return Unproved("h is no polynomial.")
        moved = list(quotients(motion, question.states, leave_unread=True).reshape(-1))
        after = list(quotients(constraint, moved).reshape(-1)) if in_steps else [_along(one, moved) for one in parts]
        if any(isinstance(one, Unread) for one in after):
            return Unproved(f"{symbol} depends on a component of the dynamics that is no quotient of polynomials.")
        if not all(_is_combination(one, parts) for one in after):
            return Unproved(f"{symbol} is not seen to be a combination of the components of h.")
        for place in {place for one in after for place in one.powers}:
            if question.positive_divisor(question.ring.divisors[place], parts) is None:
                return Unproved(
                    f"no sum of squares was found that shows that no divisor of {symbol} is 0 on the set in {base.words}."
                )
    except BeyondSquaresError as error:
        return Unproved(f"h and the dynamics are not read as polynomials: {error}.")
    identity = "is 0 identically" if all(one.numerator.is_zero() for one in after) else "is a multiple of h"
    return Proof(f"{symbol} {identity}, by exact arithmetic on polynomials.", 0)


def _along(part: Quotient, velocity: list[Quotient]) -> Quotient:
    """Return the derivative of a polynomial along the velocity; components that it does not depend on may be unread."""
    slopes = [part.derivative(place) for place in range(len(velocity))]
    terms = [a * b for a, b in zip(slopes, velocity, strict=True) if not a.numerator.is_zero()]
    return part.ring.sum([*terms, part.ring.constant(fmpq(0))])


def _is_combination(quotient: Quotient, parts: list[Quotient]) -> bool:
    """Return whether the numerator is seen to be a combination of the ``parts``: division by one after the other leaves nothing."""
    left = quotient.numerator
    for part in parts:
        if not part.numerator.is_zero():
            left = divmod(left, part.numerator)[1]
    return left.is_zero()
