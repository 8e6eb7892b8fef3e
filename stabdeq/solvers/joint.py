"""A rule that takes the samples of a batch for one: where they are coupled, they are one system of equations."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stabdeq.shared_batch import is_shared, own_rows, whole
from stabdeq.solvers.solver import Solver


@dataclass(frozen=True)
class Joint(Solver):
    """``rule`` with one history for the whole batch, its states (B, n) one vector (1, B n).

    A history for each sample takes what the others do to it for its own doing. The loop still judges the samples one by one.
    Where the batch lies in several processes, each has the history of all of it: the rule then does what it would in one process.
    """

    rule: Solver

    @property
    def safeguarded(self) -> bool:  # pyrefly: ignore
        """Whether the loop takes samples back where the rule leads them astray."""
        return self.rule.safeguarded

    @property
    def kept(self) -> tuple[str, ...]:  # pyrefly: ignore
        """What of its memory the rule returns as it is or writes in place."""
        return self.rule.kept

    def init(self, z: Tensor) -> Any:
        """Return the rule's memory before the first step from ``z`` (B, n)."""
        return self.rule.init(*_as_one(z))

    def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """Return the rule's next states (B, n) and memory."""
        states, fields = _as_one(z, field)
        following, memory = self.rule.step(states, fields, memory)
        return own_rows(following.view(-1, *z.shape[1:])), memory

    def forget(self, memory: Any, samples: Tensor) -> Any:
        """Return the memory without its history, where that of any of the ``samples`` (B,) bool is to go."""
        return self.rule.forget(memory, samples.any()[None])

    def select(self, memory: Any, samples: Tensor) -> Any:
        """Raise AssertionError: a batch of coupled samples stays whole."""
        raise AssertionError("coupled samples do not leave their batch")

    def reserve(self, memory: Any) -> Any:
        """Return the rule's memory with room for a step."""
        return self.rule.reserve(memory)

    def is_full(self, memory: Any) -> Tensor | None:
        """Return whether the rule's memory has no room for another step."""
        return self.rule.is_full(memory)


def _as_one(*states: Tensor) -> list[Tensor]:
    """Return each of ``states`` (B, n), those of the whole batch, as one vector (1, B n)."""
    if is_shared():
        states = whole(torch.stack(states, 1)).unbind(1)  # the other processes are asked once for all
    return [one.flatten()[None] for one in states]
