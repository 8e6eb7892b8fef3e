"""The states around the centre that a strict claim leaves out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.solvers import norm
from stabdeq.testing.functions import origin_of
from stabdeq.testing.literals import literal
from stabdeq.testing.tensors import require_non_negative


@dataclass(frozen=True)
class Hole:
    """The ``centre`` (n,), by default 0, the states within ``radius`` of it, and those where V < ``level``.

    Raises ConfigError for a radius that is negative or a level that is not finite.
    """

    centre: Tensor | None
    radius: float = 0.0
    level: float | None = None

    def __post_init__(self) -> None:
        require_non_negative("inner_radius", self.radius)
        if self.level is not None and not abs(self.level) < torch.inf:
            raise ConfigError(f"from_level must be finite, got {self.level}")

    def leaves(self, states: Tensor, value: Tensor) -> Tensor:
        """Return (B,): is the state (B, n), with V = ``value`` (B,), outside of the hole? One that is NaN, or whose V is, is."""
        inside = norm(states - origin_of(states, self.centre)) <= self.radius
        return ~inside if self.level is None else ~inside & ~(value < self.level)

    def __str__(self) -> str:
        """Return the arguments of a property that say so, each after a comma."""
        given = f", centre={literal(self.centre)}" if self.centre is not None else ""
        given += f", inner_radius={float(self.radius)!r}" if self.radius else ""
        return given + (f", from_level={float(self.level)!r}" if self.level is not None else "")
