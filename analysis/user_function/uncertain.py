"""Dynamics f(z, d) with disturbances or parameters d in a box: one function of (z, d), so that a claim for all d is a claim on a box."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from analysis.evidence.regions import Box
from analysis.user_function.function import ForeignFunction, find_object, load_function


@dataclass(frozen=True)
class WithDisturbances(Box):
    """The states of a box in their first ``states`` coordinates, with disturbances from a box in the others."""

    states: int = 0

    @property
    def words(self) -> str:
        states, disturbances = (
            Box(self.centre[part], self.low[part], self.high[part])
            for part in (slice(self.states), slice(self.states, None))
        )
        return f"{states.words}, for every disturbance in {disturbances.words.removeprefix('the box ')}"

    @property
    def moving(self) -> int:
        return self.states


def with_disturbances(box: Box, low: Tensor, high: Tensor) -> WithDisturbances:
    """Return the box of states with the disturbances between ``low`` and ``high`` (m,)."""
    middle = low + (high - low) / 2
    centre, first, last = (torch.cat(pair) for pair in ((box.centre, middle), (box.low, low), (box.high, high)))
    return WithDisturbances(centre, first, last, states=len(box.centre))


def joint_value(value: ForeignFunction, disturbances: int) -> ForeignFunction:
    """Return V as a function of (z, d), (B, n + m) -> (B,)."""
    n, function = value.dim, value.function
    return replace(value, function=lambda both: function(both[:, :n]), dim=n + disturbances)


def joint_velocity(given: str | Callable[..., Any], dim: int, disturbances: int, trial: Tensor) -> ForeignFunction:
    """Return f as the velocity of (z, d), (B, n + m) -> (B, n + m), where d rests; ``trial`` (B, n + m) are states to try it at.

    Raises ConfigError where it is no function f(z, d) of states (B, n) and disturbances (B, m).
    """
    found = find_object(given, "plant:f") if isinstance(given, str) else given

    def velocity(both: Any) -> Any:
        moved = found(both[:, :dim], both[:, dim:])
        if isinstance(moved, Tensor):
            return torch.cat([moved, torch.zeros_like(both[:, dim:])], 1)
        import numpy

        return numpy.concatenate([moved, numpy.zeros_like(both[:, dim:])], 1)

    velocity.__name__ = given if isinstance(given, str) else getattr(given, "__name__", "f")
    return load_function(velocity, dim + disturbances, "velocity", trial=trial)
