"""A solver whose calls are checked against what ``Solver`` asks, so that a fault is named where it arises."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.solvers.loop import same
from stabdeq.solvers.solver import NEEDED, Solver


@dataclass(frozen=True)
class CheckedSolver(Solver):
    """``solver``, called ``name`` in every ConfigError: of a method that raises, and of proposals of another shape or dtype."""

    name: str
    solver: Solver

    @property
    def safeguarded(self) -> bool:  # pyrefly: ignore
        """Whether the loop takes samples back where the rule leads them astray."""
        return bool(self.solver.safeguarded)

    def init(self, z: Tensor) -> Any:
        """Return the solver's memory for states ``z`` (B, n)."""
        return self._call("init", z)

    def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """Return the next state (B, n) and memory; raise ConfigError where the state has another shape or dtype."""
        result = self._call("step", z, field, memory)
        if not isinstance(result, tuple) or len(result) != 2:
            raise ConfigError(f"solver {self.name}: step must return (state, memory), it returned {_kind(result)}")
        if not isinstance(result[0], Tensor) or (result[0].shape, result[0].dtype) != (z.shape, z.dtype):
            raise ConfigError(
                f"solver {self.name}: step must propose states like those it was given, {_kind(z)}: it proposed {_kind(result[0])}"
            )
        return result

    def forget(self, memory: Any, samples: Tensor) -> Any:
        """Return the memory with the history of the ``samples`` (B,) bool removed."""
        return self._call("forget", memory, samples)

    def select(self, memory: Any, samples: Tensor) -> Any:
        """Return the memory of the ``samples`` (K,) alone."""
        return self._call("select", memory, samples)

    @torch.no_grad()
    def try_out(self, z: Tensor, field: Tensor) -> None:
        """Take two steps from states ``z`` with ``field`` (B, n), and one each of ``forget`` and ``select``.

        Raises ConfigError where one raises, proposes states of another shape or dtype, or changes what it is given.
        """
        given = z.clone(), field.clone()
        ahead, memory = self.step(z, field, self.init(z))
        if not same(z, given[0]) or not same(field, given[1]):
            raise ConfigError(
                f"solver {self.name}: step changes the state or the field that it is given: work on a copy"
            )
        memory = self.forget(memory, torch.zeros(len(z), dtype=torch.bool, device=z.device))
        last = torch.tensor([len(z) - 1], device=z.device)
        self.step(ahead[last], field[last], self.select(memory, last))

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self.solver, method)(*arguments)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise ConfigError(f"solver {self.name}: {method}{NEEDED[method]} raises {said}") from error


def _kind(value: Any) -> str:
    return f"a tensor {tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
