"""Trajectories of z' = F(z) by the classical Runge-Kutta method of order 4, with a fixed step."""

from torch import Tensor

from stabdeq.testing.functions import Field, velocity_of


def integrate(F: Field, states: Tensor, step: float, count: int) -> Tensor:
    """Return where z' = F(z) leads from ``states`` (B, n) in ``count`` steps of length ``step``, (B, n)."""
    for _ in range(count):
        first = velocity_of(F, states)
        second = velocity_of(F, states + step / 2 * first)
        third = velocity_of(F, states + step / 2 * second)
        fourth = velocity_of(F, states + step * third)
        states = states + step / 6 * (first + 2 * second + 2 * third + fourth)
    return states
