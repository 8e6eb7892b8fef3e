"""What a fixed-point solver is: a rule that proposes the next state from the states seen so far."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from stabdeq.errors import ConfigError

NEEDED = {"init": "(z)", "step": "(z, field, memory)", "forget": "(memory, samples)", "select": "(memory, samples)"}


class Solver(ABC):
    """A rule that proposes the next state of z = f(z). States are (B, n), and ``field`` is F = f(z) - z, (B, n).

    ``solve`` evaluates f, counts, stops and keeps the best state; the rule keeps a ``memory`` of its own kind, which ``init``
    makes and every call of ``step`` replaces. Each sample's proposal must depend on that sample alone.

    In compiled code (``solve(..., compiled=True)``) a memory is tensors, which ``step`` returns anew in the same shape and dtype,
    numbers, each of which becomes a tensor (1,), or None. ``kept``, ``reserve`` and ``is_full`` are for a memory that is large
    or grows; as they stand here they are those of a rule that needs nothing, and add no operation.
    """

    safeguarded: bool = False
    """Whether the loop takes samples back to their best state, and by Picard steps on from there, where the rule leads them astray."""

    kept: tuple[str, ...] = ()
    """The fields of the memory, a NamedTuple then, that ``step`` returns as they are or writes in place."""

    @abstractmethod
    def init(self, z: Tensor) -> Any:
        """Return the memory before the first step from the states ``z`` (B, n)."""

    @abstractmethod
    def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """Return the next states (B, n), of the dtype of ``z``, and the memory of them; ``z`` and ``field`` stay as they are."""

    @abstractmethod
    def forget(self, memory: Any, samples: Tensor) -> Any:
        """Return the memory in which the ``samples`` (B,) bool have seen no state yet; the others' is unchanged."""

    @abstractmethod
    def select(self, memory: Any, samples: Tensor) -> Any:
        """Return the memory of the ``samples`` (K,) alone, given by their positions in the batch."""

    def reserve(self, memory: Any) -> Any:
        """Return the memory with room for at least one more step: asked on the host, before compiled code runs."""
        return memory

    def is_full(self, memory: Any) -> Tensor | None:
        """Return whether the memory has no room for another step, () bool; None where that never happens. Compiled."""
        return None


@dataclass(frozen=True)
class Adapted(Solver):
    """A rule that has the methods of a ``Solver`` without being one."""

    rule: Any

    @property
    def safeguarded(self) -> bool:  # pyrefly: ignore
        """Whether the loop takes samples back where the rule leads them astray."""
        return self.rule.safeguarded

    def init(self, z: Tensor) -> Any:
        """Return the rule's memory for states ``z`` (B, n)."""
        return self.rule.init(z)

    def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """Return the rule's next states (B, n) and memory."""
        return self.rule.step(z, field, memory)

    def forget(self, memory: Any, samples: Tensor) -> Any:
        """Return the rule's memory with the history of the ``samples`` (B,) bool removed."""
        return self.rule.forget(memory, samples)

    def select(self, memory: Any, samples: Tensor) -> Any:
        """Return the rule's memory of the ``samples`` (K,) alone."""
        return self.rule.select(memory, samples)


def as_solver(rule: Any, name: str = "") -> Solver:
    """Return ``rule``, adapted where it is no ``Solver`` but has ``init``, ``step``, ``forget``, ``select`` and ``safeguarded``.

    Raises ConfigError, which calls the solver by ``name``, where it is a class, or one of these is missing.
    """
    if isinstance(rule, Solver):
        return rule
    called = f"solver {name}".strip()
    if isinstance(rule, type):
        raise ConfigError(f"{called} is the class {rule.__name__}: make an instance of it")
    missing = [f"the method {method}{NEEDED[method]}" for method in NEEDED if not callable(getattr(rule, method, None))]
    missing += [] if hasattr(rule, "safeguarded") else ["the attribute safeguarded (True or False)"]
    if missing:
        raise ConfigError(f"{called} ({type(rule).__name__}) lacks {', '.join(missing)}: see stabdeq.solvers.Solver")
    return Adapted(rule)
