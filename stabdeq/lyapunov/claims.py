"""The claims about a Lyapunov function, each a function of states that returns by how much it is violated.

One definition serves the training loss, the audit, the falsifier and ``stabdeq.testing``. A violation has two parts:
``excess``, positive where the claim fails, and ``scale``, the magnitude of the terms that it was computed from. Rounding
makes an excess of a few units of roundoff times the scale meaningless, so judgements use ``relative``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stabdeq.solvers import norm


@dataclass(frozen=True)
class Violation:
    """By how much a claim fails at each state: ``excess`` (B,) in the claim's own units, ``scale`` (B,) >= 0."""

    excess: Tensor
    scale: Tensor

    @property
    def relative(self) -> Tensor:
        """(B,) excess / scale, 0 where both vanish: a value beyond ``tolerance`` violates the claim; NaN stays NaN.

        Where the claim fails, scale grows by tiny / eps, tiny the smallest normal number: what is computed below that has no
        relative accuracy, and ``tolerance`` then lets 8 (dim + 4) tiny pass. Underflow errs by eps tiny at each operation,
        or by tiny where subnormal numbers are taken for 0.
        """
        info = torch.finfo(self.excess.dtype)
        underflow = torch.zeros_like(self.excess).masked_fill(self.excess > 0, info.tiny / info.eps)
        return self.excess / torch.where(self.scale == 0, 1, self.scale + underflow)


@dataclass(frozen=True)
class Floored(Violation):
    """A violation whose ``scale`` holds an allowance for noise besides: ``bare`` (B,) is the magnitude of the terms alone."""

    bare: Tensor

    @property
    def bare_relative(self) -> Tensor:
        """(B,) excess / bare, 0 where both vanish."""
        return self.excess / torch.where(self.bare == 0, 1, self.bare)


def tolerance(dtype: torch.dtype, dim: int) -> float:
    """Return the relative violation that rounding alone can cause: 16 (dim + 4) units of roundoff.

    A dot product of length ``dim`` errs by at most about dim units of roundoff times the norms (Higham 2002, section
    3.1); the factor covers the norms, quotients and the few sums around it.
    """
    return 16 * (dim + 4) * torch.finfo(dtype).eps / 2


def zero(value: Tensor, reference: Tensor) -> Violation:
    """V(c) = 0. ``value`` (B,) is V at the centre, ``reference`` (B,) the magnitude of the terms it is summed from."""
    return Violation(value.abs(), reference + value.abs())


def positive(value: Tensor, lower: Tensor) -> Violation:
    """V(z) >= lower(z). ``value`` (B,) is V, ``lower`` (B,) the bound, such as eta ||z - c||^2."""
    return Violation(lower - value, lower.abs() + value.abs())


def convex(value_middle: Tensor, value_a: Tensor, value_b: Tensor) -> Violation:
    """V((a + b) / 2) <= (V(a) + V(b)) / 2, all (B,)."""
    chord = (value_a + value_b) / 2
    return Violation(value_middle - chord, value_middle.abs() + (value_a.abs() + value_b.abs()) / 2)


def decay(gradient: Tensor, velocity: Tensor, value: Tensor, alpha: float) -> Violation:
    """V-dot = grad V . F <= -alpha V. ``gradient``, ``velocity`` (B, n), ``value`` (B,).

    The scale is ||grad V|| ||F|| + alpha |V|, the magnitude within which rounding is felt (theory: projection).
    """
    derivative = (gradient * velocity).sum(1)
    scale = norm(gradient) * norm(velocity) + alpha * value.abs()
    return Violation(derivative + alpha * value, scale)


def equilibrium(velocity: Tensor, reference: Tensor) -> Violation:
    """F(c) = 0. ``velocity`` (B, n) is F at the centre, ``reference`` (B,) the magnitude of the terms it is summed from."""
    speed = norm(velocity)
    return Violation(speed, reference + speed)
