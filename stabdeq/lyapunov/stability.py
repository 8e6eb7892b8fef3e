"""How V and its projection act in a model: the stabilised vector field, and the paper's two readings of the module."""

from torch import Tensor

from stabdeq.config import StabilityName
from stabdeq.lyapunov.function import LyapunovFunction
from stabdeq.lyapunov.projection import project


def centre_of(lyapunov: LyapunovFunction, equilibrium: Tensor) -> Tensor:
    """Return V's centre (B, n) for each input: its equilibrium (B, n), or the origin."""
    return equilibrium if lyapunov.centre == "equilibrium" else equilibrium.new_zeros(equilibrium.shape)


def stabilised_field(field: Tensor, z: Tensor, centre: Tensor, lyapunov: LyapunovFunction) -> Tensor:
    """Return F^, the projection of ``field`` = F(z, h) at ``z``; all (B, n)."""
    value, gradient = lyapunov(z - centre)
    return project(field, gradient, value, lyapunov.alpha)


def stabilise(z: Tensor, stability: StabilityName, lyapunov: LyapunovFunction | None) -> Tensor:
    """Return the features that the head reads, (B, n) -> (B, n), from the equilibrium ``z``.

    ``anchored`` keeps the equilibrium: V is centred there, so the projection leaves it in place. ``state`` and
    ``residual`` are the two readings of the paper's module, with V centred at the origin: the projection of the vector z
    itself, and z moved by the projection of F(z) = 0.
    """
    if lyapunov is None or stability in ("none", "anchored"):
        return z
    value, gradient = lyapunov(z)
    if stability == "state":
        return project(z, gradient, value, lyapunov.alpha)
    return z + project(z.new_zeros(z.shape), gradient, value, lyapunov.alpha)
