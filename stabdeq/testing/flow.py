"""The property that V decays along trajectories, which needs no gradient of V: only values on the way."""

import torch
from torch import Tensor

from stabdeq.lyapunov.claims import Violation
from stabdeq.testing.functions import Field, Value, require_states, value_of
from stabdeq.testing.judgement import judge, where, worst_of
from stabdeq.testing.literals import literal, name
from stabdeq.testing.runge_kutta import integrate
from stabdeq.testing.tensors import require_non_negative, require_positive

__tracebackhide__ = True  # pytest: a failure is shown at the caller's line

MOMENTS = 8
FINEST = 512  # steps from one moment to the next


def assert_flow_decays(
    V: Value, F: Field, states: Tensor, *, alpha: float, time: float = 1.0, tolerance: float = 1e-3
) -> None:
    """Assert V(z(t)) <= (1 + ``tolerance``) exp(-``alpha`` t) V(z(0)) at eight moments until ``time``, from ``states`` (B, n).

    z' = F(z) is integrated by Runge-Kutta steps that are halved until V changes by less than a quarter of the tolerance;
    where 4096 steps do not suffice the assertion fails, and says so. A state with V = 0 claims nothing.
    """
    require_states(states)
    require_non_negative("alpha", alpha)
    require_positive("time", time)
    require_positive("tolerance", tolerance)

    def bound(states: Tensor) -> Tensor:
        moments = torch.arange(1, MOMENTS + 1, dtype=states.dtype, device=states.device)[:, None]
        return torch.exp(-alpha * time * moments / MOMENTS) * value_of(V, states)

    def resolved(states: Tensor) -> tuple[Violation, float]:
        scale = bound(states).abs()
        change = _settled(V, F, states, time, scale, tolerance)[1]
        return where(value_of(V, states) != 0, worst_of(change, scale)), tolerance / 4

    def decays(states: Tensor) -> tuple[Violation, float]:
        allowed = bound(states)
        values = _settled(V, F, states, time, allowed.abs(), tolerance)[0]
        return where(value_of(V, states) != 0, worst_of(values - allowed, allowed.abs())), tolerance

    def line(states: Tensor) -> str:
        given = f"alpha={float(alpha)!r}, time={float(time)!r}, tolerance={float(tolerance)!r}"
        return f"assert_flow_decays({name(V, 'V')}, {name(F, 'F')}, {literal(states)}, {given})"

    judge(f"Resolving the trajectory by {MOMENTS * FINEST} steps", (states,), resolved, line)
    judge(f"V(z(t)) <= exp(-{alpha:g} t) V(z(0)) until t = {time:g}", (states,), decays, line)


def _settled(V: Value, F: Field, states: Tensor, time: float, scale: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return V at the moments (8, B), and its change at the last halving of the step, beside ``scale`` (8, B)."""
    steps, values = 1, _values(V, F, states, time, 1)
    while True:
        steps, coarse = 2 * steps, values
        values = _values(V, F, states, time, steps)
        # A trajectory that left the finite numbers twice is resolved: it leaves them.
        lost = ~values.isfinite() & ~coarse.isfinite()
        change = torch.where(lost, 0, (values - coarse).abs())
        if steps == FINEST or bool((Violation(change, scale).relative <= tolerance / 4).all()):
            return values, change


def _values(V: Value, F: Field, states: Tensor, time: float, steps: int) -> Tensor:
    values = []
    for _ in range(MOMENTS):
        states = integrate(F, states, time / MOMENTS / steps, steps)
        values.append(value_of(V, states))
    return torch.stack(values)
