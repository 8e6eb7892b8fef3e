"""The property that a projection is the one onto the fields that decrease V."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.lyapunov import claims, project
from stabdeq.lyapunov.claims import Violation
from stabdeq.testing.functions import require_states, rounding
from stabdeq.testing.judgement import judge, where
from stabdeq.testing.literals import literal, name
from stabdeq.testing.tensors import require_positive

__tracebackhide__ = True  # pytest: a failure is shown at the caller's line

Projection = Callable[[Tensor, Tensor, Tensor, float], Tensor]

CLAIMS = (
    "grad V . projected <= -alpha V",
    "a field that decays stays as it is",
    "the projected field is the nearest that decays",
)


def assert_projection(
    field: Tensor, gradient: Tensor, value: Tensor, *, alpha: float, projection: Projection = project
) -> None:
    """Assert that ``projection`` (field, gradient, value, alpha) is that onto the fields with grad V . F <= -alpha V.

    ``field`` and ``gradient`` are (B, n), ``value`` (B,) is V >= 0, all of sizes whose squares the dtype can hold.
    The result decays; it is the field itself where that decays already, or where grad V = 0; elsewhere it differs from
    the field along grad V alone, and no more than is needed.
    """
    require_states(field)
    if gradient.shape != field.shape or value.shape != field.shape[:1]:
        raise ConfigError(
            f"expected field and gradient (B, n) and value (B,), got {tuple(field.shape)}, {tuple(gradient.shape)} and "
            f"{tuple(value.shape)}"
        )
    require_positive("alpha", alpha)

    def line(field: Tensor, gradient: Tensor, value: Tensor) -> str:
        given = "" if projection is project else f", projection={name(projection, 'projection')}"
        states = ", ".join(literal(tensor) for tensor in (field, gradient, value))
        return f"assert_projection({states}, alpha={float(alpha)!r}{given})"

    def measure(index: int, field: Tensor, gradient: Tensor, value: Tensor) -> tuple[Violation, float]:
        projected = projection(field, gradient, value, alpha).detach()
        if projected.shape != field.shape:
            raise ConfigError(f"the projection must return shape {tuple(field.shape)}, got {tuple(projected.shape)}")
        return _violations(projected, field, gradient, value, alpha)[index], rounding(field, projected)

    for index, claim in enumerate(CLAIMS):
        judge(claim, (field, gradient, value), partial(measure, index), line)


def _violations(projected: Tensor, field: Tensor, gradient: Tensor, value: Tensor, alpha: float) -> list[Violation]:
    """Return the violations of ``CLAIMS``."""
    off_centre = (gradient != 0).any(1)
    decay = claims.decay(gradient, projected, value, alpha)
    # The steps of the projection are as large as the field and the needed speed alpha V / ||grad V||.
    before = claims.decay(gradient, field, value, alpha)
    slack = rounding(field) * before.scale
    kept = ~off_centre | (before.excess < -slack)
    moved = Violation((projected - field).norm(dim=1), field.norm(dim=1))
    length = gradient.norm(dim=1)
    ray = gradient / torch.where(length == 0, 1, length)[:, None]
    needed = before.excess.clamp(min=0) / torch.where(length == 0, 1, length)
    nearest = field - ray * needed[:, None]
    far = Violation((projected - nearest).norm(dim=1), field.norm(dim=1) + needed)
    return [where(off_centre, decay), where(kept, moved), where(off_centre & ~kept, far)]
