"""Properties of a map z+ = step(z): V falls by a step, a region keeps its states, the centre is at rest."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.lyapunov import claims
from stabdeq.lyapunov.claims import Violation
from stabdeq.solvers import norm
from stabdeq.testing.functions import Step, Value, next_of, origin_of, require_states, rounding, value_of
from stabdeq.testing.hole import Hole
from stabdeq.testing.judgement import judge, where, worst_of
from stabdeq.testing.literals import literal, name
from stabdeq.testing.tensors import ranges_of, require_positive

__tracebackhide__ = True  # pytest: a failure is shown at the caller's line


def assert_step_rests(step: Step, centre: Tensor, *, reference: float = 1.0) -> None:
    """Assert that ``step``, (B, n) -> (B, n), maps ``centre`` (n,) to itself, to rounding of terms of size ``reference``."""
    if centre.dim() != 1:
        raise ConfigError(f"expected a centre of shape (n,), got {tuple(centre.shape)}")
    require_states(centre[None])
    require_positive("reference", reference)

    def measure(centres: Tensor) -> tuple[Violation, float]:
        after = next_of(step, centres)
        return claims.equilibrium(after - centres, reference + norm(centres)), rounding(centres, after)

    def line(_: Tensor) -> str:
        return f"assert_step_rests({name(step, 'step')}, {literal(centre)}, reference={float(reference)!r})"

    judge("z+ = z", (centre[None],), measure, line)


def assert_step_decrease(
    V: Value,
    step: Step,
    states: Tensor,
    *,
    kappa: float = 0.0,
    centre: Tensor | None = None,
    inner_radius: float = 0.0,
    from_level: float | None = None,
) -> None:
    """Assert V(z+) <= (1 - ``kappa``) V(z) at ``states`` (B, n) other than ``centre`` (n,), by default 0, where z+ = step(z).

    With ``kappa`` = 0 the claim is strict, V(z+) < V(z), and a fall within rounding fails; with more, up to 1, a rise within
    rounding passes. Rounding is that of V, and V's change where a coordinate of z+ moves by a unit of roundoff. States
    within ``inner_radius`` of the centre, and those where V < ``from_level``, claim nothing. V is (B, n) -> (B,), and needs no
    gradient; step is (B, n) -> (B, n).
    """
    origin_of(states, centre)
    if not 0 <= kappa < 1:
        raise ConfigError(f"kappa must be at least 0 and less than 1, got {kappa}")
    hole = Hole(centre, inner_radius, from_level)

    def measure(states: Tensor) -> tuple[Violation, float]:
        before, after = value_of(V, states), next_of(step, states)
        value = value_of(V, after)
        violation = Violation(value - (1 - kappa) * before, before.abs() + _scale(V, states, after, value))
        allowed = rounding(states, before, after)
        return where(hole.leaves(states, before), violation), allowed if kappa else -allowed

    def line(states: Tensor) -> str:
        given = f", kappa={float(kappa)!r}" if kappa else ""
        return f"assert_step_decrease({name(V, 'V')}, {name(step, 'step')}, {literal(states)}{given}{hole})"

    claim = f"V(z+) <= (1 - {kappa:g}) V(z)" if kappa else "V(z+) < V(z)"
    judge(claim, (states,), measure, line)


def assert_step_invariant(
    step: Step,
    states: Tensor,
    *,
    low: float | Sequence[float] | None = None,
    high: float | Sequence[float] | None = None,
    V: Value | None = None,
    level: float | None = None,
) -> None:
    """Assert that no step leaves the region: z+ = step(z) is one of its states at those of ``states`` (B, n) that are.

    The region is the box from ``low`` to ``high``, each a number for all coordinates or as many as there are; {V <= ``level``},
    V being (B, n) -> (B,); or what they have in common, where both are given. States outside claim nothing. A z+ on the
    boundary, to rounding, passes. Raises ConfigError where half of a box, or V or its level alone, is given, or nothing.
    """
    require_states(states)
    if (low is None) != (high is None) or (V is None) != (level is None) or (low is None and V is None):
        raise ConfigError("expected a region: low and high of a box, V and its level, or all four")
    if level is not None and not abs(level) < torch.inf:
        raise ConfigError(f"level must be finite, got {level}")
    box = None
    if low is not None and high is not None:
        box = states.new_tensor(ranges_of(states.shape[1], low, high)).T

    def measure(states: Tensor) -> tuple[Violation, float]:
        after = next_of(step, states)
        outside = torch.zeros_like(states[:, 0], dtype=torch.bool)
        excesses, scales, results = [], [], [after]
        if box is not None:
            lowest, highest = box
            outside |= ((states < lowest) | (states > highest)).any(1)
            excesses += [*(after - highest).T, *(lowest - after).T]
            size = states.abs() + after.abs()
            scales += [*(size + highest.abs()).T, *(size + lowest.abs()).T]
        if V is not None and level is not None:
            before, value = value_of(V, states), value_of(V, after)
            outside |= before > level
            excesses.append(value - level)
            scales.append(abs(level) + _scale(V, states, after, value))
            results.append(value)
        violation = worst_of(torch.stack(excesses), torch.stack(scales))
        return where(~outside, violation), rounding(states, *results)

    def line(states: Tensor) -> str:
        given = f", low={_numbers(low)}, high={_numbers(high)}" if low is not None and high is not None else ""
        given += f", V={name(V, 'V')}, level={float(level)!r}" if V is not None and level is not None else ""
        return f"assert_step_invariant({name(step, 'step')}, {literal(states)}{given})"

    judge("z+ stays in the region", (states,), measure, line)


def _scale(V: Value, states: Tensor, after: Tensor, value: Tensor) -> Tensor:
    """Return (B,): what rounding of V = ``value`` (B,) at the next states ``after`` (B, n) is relative to.

    A next state's coordinates are rounded in the last digit of what they are summed from, of the size of that coordinate before
    and after: where V is steep, or the centre far from 0, V feels that more than its own rounding.
    """
    eps = max(torch.finfo(tensor.dtype).eps for tensor in (states, after, value))
    nudge = eps * (states.abs() + after.abs())
    scale = value.abs()
    for column in range(after.shape[1]):
        moved = after.clone()
        moved[:, column] += nudge[:, column]
        scale = scale + (value_of(V, moved) - value).abs() / eps
    return scale


def _numbers(given: float | Sequence[float]) -> str:
    return repr(float(given) if isinstance(given, int | float) else [float(number) for number in given])
