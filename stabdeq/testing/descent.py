"""Properties of V along the velocity F: rest at the centre, decrease, decay at a rate, sublevel sets that keep their states."""

from collections.abc import Callable

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.lyapunov import claims
from stabdeq.lyapunov.claims import Violation
from stabdeq.testing.functions import (
    Field,
    Value,
    origin_of,
    require_states,
    rounding,
    value_and_gradient_of,
    value_of,
    velocity_of,
)
from stabdeq.testing.hole import Hole
from stabdeq.testing.judgement import judge, where
from stabdeq.testing.literals import literal, name
from stabdeq.testing.rays import beyond, leaving
from stabdeq.testing.tensors import require_non_negative, require_positive

__tracebackhide__ = True  # pytest: a failure is shown at the caller's line


def assert_equilibrium(F: Field, centre: Tensor, *, reference: float = 1.0) -> None:
    """Assert that F, (B, n) -> (B, n), is 0 at ``centre`` (n,), to rounding of terms of size ``reference``."""
    if centre.dim() != 1:
        raise ConfigError(f"expected a centre of shape (n,), got {tuple(centre.shape)}")
    require_states(centre[None])
    require_positive("reference", reference)

    def measure(centres: Tensor) -> tuple[Violation, float]:
        velocity = velocity_of(F, centres)
        return claims.equilibrium(velocity, velocity.new_full((1,), reference)), rounding(centres, velocity)

    def line(_: Tensor) -> str:
        return f"assert_equilibrium({name(F, 'F')}, {literal(centre)}, reference={float(reference)!r})"

    judge("F(c) = 0", (centre[None],), measure, line)


def assert_decay(V: Value, F: Field, states: Tensor, *, alpha: float) -> None:
    """Assert V-dot = grad V . F <= -``alpha`` V at ``states`` (B, n); ``alpha`` = 0 asks that V does not grow.

    V is (B, n) -> (B,), differentiable by autograd; F is (B, n) -> (B, n), the velocity.
    """
    require_states(states)
    require_non_negative("alpha", alpha)

    def measure(states: Tensor) -> tuple[Violation, float]:
        value, gradient = value_and_gradient_of(V, states)
        velocity = velocity_of(F, states)
        return claims.decay(gradient, velocity, value, alpha), rounding(states, value, velocity)

    def line(states: Tensor) -> str:
        return f"assert_decay({name(V, 'V')}, {name(F, 'F')}, {literal(states)}, alpha={float(alpha)!r})"

    judge(f"V-dot <= -{alpha:g} V", (states,), measure, line)


def assert_decrease(
    V: Value,
    F: Field,
    states: Tensor,
    *,
    centre: Tensor | None = None,
    inner_radius: float = 0.0,
    from_level: float | None = None,
) -> None:
    """Assert V-dot < 0, strictly, at ``states`` (B, n) other than ``centre`` (n,), by default 0.

    A V-dot of 0 to within rounding fails too: V of a rotation does not decrease, whatever the sign of its last digit.
    States within ``inner_radius`` of the centre, and those where V < ``from_level``, claim nothing.
    """
    origin_of(states, centre)
    hole = Hole(centre, inner_radius, from_level)

    def line(states: Tensor) -> str:
        return f"assert_decrease({name(V, 'V')}, {name(F, 'F')}, {literal(states)}{hole})"

    judge("V-dot < 0", (states,), _decrease(V, F, hole), line)


def assert_invariant(V: Value, F: Field, states: Tensor, *, level: float, centre: Tensor | None = None) -> None:
    """Assert that no trajectory leaves {V <= ``level``} next to ``states`` (B, n): V-dot < 0 on its boundary.

    Each state is moved along its ray from ``centre`` (n,), by default 0, to where V = ``level``; one at the centre has no
    ray and claims nothing. A ray along which V never exceeds the level fails. Raises ConfigError where V(c) > level.
    """
    origin = origin_of(states, centre)
    at_centre = float(value_of(V, origin[None]))
    if not at_centre <= level < torch.inf:
        raise ConfigError(f"expected a finite level of at least V at the centre, {at_centre:g}, got {level:g}")

    def line(states: Tensor) -> str:
        given = f", centre={literal(centre)}" if centre is not None else ""
        return f"assert_invariant({name(V, 'V')}, {name(F, 'F')}, {literal(states)}, level={float(level)!r}{given})"

    rays = states[(states != origin).any(1)]
    if not len(rays):
        return

    def closed(rays: Tensor) -> tuple[Violation, float]:
        value = value_of(V, beyond(V, rays, origin, level))
        return claims.positive(value, torch.full_like(value, level)), 0.0

    judge(f"V >= {level:g} somewhere along the ray", (rays,), closed, line)
    boundary = leaving(V, beyond(V, rays, origin, level), origin, level)
    judge(f"V-dot < 0 where V = {level:g}", (boundary,), _decrease(V, F, Hole(centre)), line)


def _decrease(V: Value, F: Field, hole: Hole) -> Callable[[Tensor], tuple[Violation, float]]:
    def measure(states: Tensor) -> tuple[Violation, float]:
        value, gradient = value_and_gradient_of(V, states)
        velocity = velocity_of(F, states)
        # V itself counts: autograd gives a slope to some V that are NaN.
        violation = claims.decay(gradient, velocity, value, 0.0)
        # The claim is strict: what rounding could have made negative does not pass.
        return where(hole.leaves(states, value), violation), -rounding(states, value, velocity)

    return measure
