"""A claim about every state of a region, and how one state is judged."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from stabdeq.lyapunov.claims import Violation


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim about states, and how to judge it.

    ``violation`` maps states (B, n), float64, to by how much they violate the claim; ``replay`` is the same by an
    independent path, called with one state (1, n); None where the claim has no second path, and then ``violation`` is
    evaluated anew on the witness alone. ``replayed_by`` names that path in words. A relative violation beyond ``tolerance``
    refutes the claim; where the claim is ``strict`` (V > 0, V-dot < 0), so does equality to within it, clear of the centre,
    unless the inequality holds there by what little is left.
    ``describe`` gives what a witness (n,) should show besides; ``note`` closes the evidence.

    ``certain`` returns the sign of the excess at a state (n,), None where it is open, and the excess about. Where it is given it
    alone refutes: a state is a witness only if the inequality surely fails there, and no estimate of noise decides. Without it the
    estimates decide, and the verdict says "to rounding".
    """

    check: str
    name: str
    sentence: str
    violation: Callable[[Tensor], Violation]
    tolerance: float
    replay: Callable[[Tensor], Violation] | None = None
    replayed_by: str = "a second evaluation of the witness alone"
    strict: bool = False
    describe: Callable[[Tensor], dict[str, Any]] | None = None
    certain: Callable[[Tensor], tuple[int | None, float]] | None = None
    note: str = ""

    def surely_fails(self, state: Tensor) -> bool | None:
        """Return whether the inequality surely fails at ``state`` (n,), False where it surely holds, None where that is open."""
        assert self.certain is not None
        sign, _ = self.certain(state)
        if sign is None:
            return None
        return sign > 0 or (self.strict and sign == 0)
