"""Dynamics of which the truth is known, to test a tester: linear, non-normal and cubic, stable and unstable."""

from dataclasses import dataclass

import torch
from hypothesis import strategies
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.testing.literals import literal
from stabdeq.testing.tensors import made_from, require_positive, require_sizes, tensors


@dataclass(frozen=True, eq=False, repr=False)
class LinearDynamics:
    """z' = A z, with ``matrix`` A (n, n), of which the truth is known.

    V = z'Pz, with ``solution`` P (n, n), satisfies V-dot <= -``rate`` V everywhere and no faster rate, up to rounding of A's
    entries. Where ``rate`` is negative, A has an eigenvalue with a positive real part: the origin is unstable.
    """

    matrix: Tensor
    rate: float
    solution: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        """Return the velocity (B, n) at ``states`` (B, n)."""
        return states @ self.matrix.to(states).T

    def lyapunov(self, states: Tensor) -> Tensor:
        """Return V = z'Pz (B,) at ``states`` (B, n)."""
        return ((states @ self.solution.to(states)) * states).sum(1)

    def __repr__(self) -> str:
        return f"LinearDynamics({literal(self.matrix)}, {self.rate!r}, {literal(self.solution)})"


@dataclass(frozen=True, eq=False)
class CubicDynamics:
    """z' = A z - k ||z||^2 z, with ``linear`` A, whose V is ||z||^2, and ``damping`` k > 0.

    V = ||z||^2 satisfies V-dot <= -``linear.rate`` V, and no faster rate next to the origin. Where that rate is negative,
    the origin is unstable, and sqrt(-rate / (2 k)) on the first axis is another equilibrium.
    """

    linear: LinearDynamics
    damping: float

    def __call__(self, states: Tensor) -> Tensor:
        """Return the velocity (B, n) at ``states`` (B, n)."""
        return self.linear(states) - self.damping * states.square().sum(1, keepdim=True) * states


def stable_linear(dim: int, *, rate: float = 1.0) -> SearchStrategy[LinearDynamics]:
    """Return a strategy for stable dynamics in which ||z||^2 decays at exactly ``rate`` > 0 along its slowest axis."""
    require_positive("rate", rate)
    return _linear(dim, rate)


def unstable_linear(dim: int, *, growth: float = 1.0) -> SearchStrategy[LinearDynamics]:
    """Return a strategy for unstable dynamics: ||z||^2 grows at ``growth`` > 0 along the fastest axis."""
    require_positive("growth", growth)
    return _linear(dim, -growth)


def stable_nonnormal(dim: int, *, rate: float = 1.0) -> SearchStrategy[LinearDynamics]:
    """Return a strategy for stable dynamics, ``dim`` >= 2, in which z'Pz decays at exactly ``rate``, yet ||z||^2 grows.

    The first two coordinates turn along an ellipse of axes s : 1, at least 2 : 1, with angular speed w >= ``rate``. At
    (1, 1, 0, ...) ||z||^2 grows at the rate w (s - 1 / s) - ``rate`` > 0.
    """
    require_positive("rate", rate)
    require_sizes(dim)
    if dim < 2:
        raise ConfigError(f"stable_nonnormal needs a plane to turn in: expected dim of at least 2, got {dim}")

    def built(drawn: tuple[float, float, Tensor]) -> LinearDynamics:
        axes, speed, extra = drawn
        matrix = -torch.diag(torch.cat([torch.zeros(2, dtype=torch.float64), extra]) + rate / 2)
        matrix[0, 1], matrix[1, 0] = rate * speed * axes, -rate * speed / axes
        solution = torch.eye(dim, dtype=torch.float64)
        solution[0, 0] = 1 / axes**2
        return LinearDynamics(matrix, rate, solution)

    parts = strategies.tuples(strategies.floats(2, 5), strategies.floats(1, 4), tensors((dim - 2,), 0, 2))
    return made_from(parts, built)


def stable_cubic(dim: int, *, rate: float = 1.0) -> SearchStrategy[CubicDynamics]:
    """Return a strategy for stable nonlinear dynamics in which ||z||^2 decays at ``rate`` > 0 or faster."""
    return _cubic(stable_linear(dim, rate=rate))


def unstable_cubic(dim: int, *, growth: float = 1.0) -> SearchStrategy[CubicDynamics]:
    """Return a strategy for dynamics that leave the origin, where ||z||^2 grows at ``growth`` > 0, but stay bounded."""
    return _cubic(unstable_linear(dim, growth=growth))


def _cubic(linear: SearchStrategy[LinearDynamics]) -> SearchStrategy[CubicDynamics]:
    return strategies.builds(CubicDynamics, linear, strategies.floats(0.125, 2))


def _linear(dim: int, rate: float) -> SearchStrategy[LinearDynamics]:
    require_sizes(dim)

    def built(drawn: tuple[Tensor, Tensor]) -> LinearDynamics:
        turns, extra = drawn
        # The slowest axis is the first and turns with none: its rate is then an eigenvalue, whatever the others do.
        skew = turns.tril(-1) - turns.tril(-1).T
        skew[0, :] = skew[:, 0] = 0
        shrinking = torch.cat([torch.zeros(1, dtype=torch.float64), extra]) + rate / 2
        return LinearDynamics(skew - torch.diag(shrinking), rate, torch.eye(dim, dtype=torch.float64))

    return made_from(strategies.tuples(tensors((dim, dim), -2, 2), tensors((dim - 1,), 0, 2)), built)
