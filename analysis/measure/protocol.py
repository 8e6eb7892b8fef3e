"""Does a V meet ``LyapunovFunction``? Asked before an audit, whose searches would take one of another shape for many states."""

import math
from numbers import Real
from typing import get_args

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.lyapunov import LyapunovFunction
from stabdeq.lyapunov.function import Centre

STATES = 3


@torch.no_grad()
def require_protocol(lyapunov: LyapunovFunction, dim: int) -> None:
    """Raise ConfigError where V is centred nowhere, its rate is not positive, or its values at offsets (3, n) are not (3,) and (3, n)."""
    centre, alpha = (getattr(lyapunov, name, None) for name in ("centre", "alpha"))
    if centre not in get_args(Centre):
        raise ConfigError(f"lyapunov.centre = {centre!r}: expected one of {', '.join(get_args(Centre))}")
    rate = float(alpha) if isinstance(alpha, Real) else math.nan
    if not 0 < rate < math.inf:
        raise ConfigError(f"lyapunov.alpha = {alpha!r}: expected a rate of decay that is finite and above 0")
    found = lyapunov(torch.eye(STATES, dim, dtype=torch.float64))
    shapes = [(STATES,), (STATES, dim)]
    if isinstance(found, tuple) and [_told(one) for one in found] == [f"float64 {shape}" for shape in shapes]:
        return
    came = ", ".join(_told(one) for one in found) if isinstance(found, tuple) else _told(found)
    raise ConfigError(
        f"lyapunov gives {came} at offsets {(STATES, dim)}: expected V of {shapes[0]} and its gradient of {shapes[1]}, both float64"
    )


def _told(one: object) -> str:
    return f"{str(one.dtype).removeprefix('torch.')} {tuple(one.shape)}" if isinstance(one, Tensor) else str(type(one))
