"""Do the dynamics keep a set {h = 0}? In rational arithmetic: Dh f, or h(z+), is a combination of the components of h.

With Dh f = A h, A made of polynomials, h' = A h along a trajectory, of which h = 0 is the only solution that begins at 0.
"""

from flint import fmpq
from torch import fx

from analysis.proofs.box_search import Proof, Unproved
from analysis.proofs.polynomials.polynomial import BeyondSquaresError, Quotient, Ring
from analysis.proofs.polynomials.reading import Unread, quotients


def prove_kept(constraint: fx.GraphModule, motion: fx.GraphModule, dim: int, *, in_steps: bool) -> Proof | Unproved:
    """Try to prove that h, ``constraint`` (1, n) -> (1, *), stays 0 along the velocity, or the next state, ``motion`` (1, n) -> (1, n).

    h must be made of polynomials, and the components of the dynamics that it feels of quotients of polynomials.
    """
    ring = Ring(dim)
    states = ring.coordinates
    try:
        parts = list(quotients(constraint, states).reshape(-1))
        moved = list(quotients(motion, states, leave_unread=True).reshape(-1))
        if any(part.powers for part in parts):
            return Unproved("h is no polynomial.")
        after = list(quotients(constraint, moved).reshape(-1)) if in_steps else [_along(one, moved) for one in parts]
    except BeyondSquaresError as error:
        return Unproved(f"h and the dynamics are not read as polynomials: {error}.")
    symbol = "h(z+)" if in_steps else "Dh f"
    if any(isinstance(one, Unread) for one in after):
        return Unproved(f"{symbol} depends on a component of the dynamics that is no quotient of polynomials.")
    left = [_remainder(one, parts) for one in after]
    if not all(left):
        return Unproved(f"{symbol} is not seen to be a combination of the components of h.")
    identity = "is 0 identically" if all(one.numerator.is_zero() for one in after) else "is a multiple of h"
    return Proof(f"{symbol} {identity}, by exact arithmetic on polynomials.", 0)


def _along(part: Quotient, velocity: list[Quotient]) -> Quotient:
    """Return the derivative of a polynomial along the velocity; components that it does not depend on may be unread."""
    slopes = [part.derivative(place) for place in range(len(velocity))]
    terms = [a * b for a, b in zip(slopes, velocity, strict=True) if not a.numerator.is_zero()]
    return part.ring.sum([*terms, part.ring.constant(fmpq(0))])


def _remainder(quotient: Quotient, parts: list[Quotient]) -> bool:
    """Return whether the numerator is seen to be a combination of the ``parts``: division by one after the other leaves nothing."""
    left = quotient.numerator
    for part in parts:
        if not part.numerator.is_zero():
            left = divmod(left, part.numerator)[1]
    return left.is_zero()
