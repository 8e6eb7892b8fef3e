"""Properties of V alone: 0 at the centre, positive elsewhere, convex."""

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.lyapunov import claims
from stabdeq.lyapunov.claims import Violation
from stabdeq.testing.functions import Value, origin_of, require_states, rounding, value_of
from stabdeq.testing.judgement import judge
from stabdeq.testing.literals import literal, name
from stabdeq.testing.tensors import require_non_negative, require_positive

__tracebackhide__ = True  # pytest: a failure is shown at the caller's line


def assert_zero_at_centre(V: Value, centre: Tensor, *, reference: float = 1.0) -> None:
    """Assert that V, (B, n) -> (B,), is 0 at ``centre`` (n,), to rounding of terms of size ``reference``.

    Raises AssertionError where the claim fails, ConfigError where an argument or V's result is malformed; so does every
    property here.
    """
    if centre.dim() != 1:
        raise ConfigError(f"expected a centre of shape (n,), got {tuple(centre.shape)}")
    require_states(centre[None])
    require_positive("reference", reference)

    def measure(centres: Tensor) -> tuple[Violation, float]:
        value = value_of(V, centres)
        return claims.zero(value, torch.full_like(value, reference)), rounding(centres, value)

    def line(_: Tensor) -> str:
        return f"assert_zero_at_centre({name(V, 'V')}, {literal(centre)}, reference={float(reference)!r})"

    judge("V(c) = 0", (centre[None],), measure, line)


def assert_positive_definite(
    V: Value, states: Tensor, *, centre: Tensor | None = None, eta: float = 0.0, reference: float = 0.0
) -> None:
    """Assert V > 0, and V >= ``eta`` ||z - c||^2, at ``states`` (B, n) other than ``centre`` (n,), by default 0.

    ``reference`` is the size of the terms that V is summed from, such as 1 in 1 - cos(x): next to the centre such a V is 0
    by rounding, which then counts as positive.
    """
    origin = origin_of(states, centre)
    require_non_negative("eta", eta)
    require_non_negative("reference", reference)

    def measure(states: Tensor) -> tuple[Violation, float]:
        value = value_of(V, states)
        square = (states - origin).square().sum(1)
        violation = claims.positive(value, eta * square)
        # 0 off the centre violates the strict claim, though a square may underflow to it.
        is_flat = (value == 0) & (square > 0) & (reference == 0)
        excess = torch.where(is_flat, 1, violation.excess)
        scale = torch.where(is_flat, 1, violation.scale + reference)
        return Violation(excess, scale), rounding(states, value)

    def line(states: Tensor) -> str:
        given = f", centre={literal(centre)}" if centre is not None else ""
        given += f", eta={float(eta)!r}" if eta else ""
        given += f", reference={float(reference)!r}" if reference else ""
        return f"assert_positive_definite({name(V, 'V')}, {literal(states)}{given})"

    claim = f"V > 0 and V >= {eta:g} ||z - c||^2" if eta else "V > 0"
    judge(claim, (states,), measure, line)


def assert_convex(V: Value, a: Tensor, b: Tensor) -> None:
    """Assert V((a + b) / 2) <= (V(a) + V(b)) / 2 for the pairs of states ``a``, ``b`` (B, n)."""
    require_states(a)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ConfigError(f"expected a and b alike, got {tuple(a.shape)} {a.dtype} and {tuple(b.shape)} {b.dtype}")

    def measure(a: Tensor, b: Tensor) -> tuple[Violation, float]:
        middle, first, second = value_of(V, (a + b) / 2), value_of(V, a), value_of(V, b)
        return claims.convex(middle, first, second), rounding(a, middle)

    def line(a: Tensor, b: Tensor) -> str:
        return f"assert_convex({name(V, 'V')}, {literal(a)}, {literal(b)})"

    judge("V((a + b) / 2) <= (V(a) + V(b)) / 2", (a, b), measure, line)
