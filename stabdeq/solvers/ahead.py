"""The solver's loop compiled: evaluations and steps in one call, until a sample needs the host."""

from collections.abc import Callable, Hashable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop
from torch.utils._pytree import tree_map

from stabdeq.solvers.iteration import Problem, State, observe

RunAhead = Callable[[Problem, Any, Tensor | State, Tensor], tuple[State, Tensor]]


def run_ahead(problem: Problem, solver: Any, start: Tensor | State, limits: Tensor) -> tuple[State, Tensor]:
    """Evaluate and step from states (B, n), or from where it stopped before, until the host is needed.

    ``limits`` (3,) are the evaluations made so far, those allowed, and how many samples still at work are too few: it stops
    there, where a sample has gone astray or is stuck, and where the solver's memory is full. Returns the state and (3,): the
    evaluations made, how many samples are astray, and how many at work.
    """
    state = start if isinstance(start, State) else _prepare(solver, start)
    kept = _kept(solver, state.memory)

    def going(count: Tensor, halted: Tensor, state: State) -> Tensor:
        return (count < limits[1]) & ~halted

    def iterate(count: Tensor, halted: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        count = count + 1
        state, field = observe(problem, state, count)
        z, memory = solver.step(state.z, field, _with(state.memory, kept))
        halted = (state.astray(problem.coupled) | state.stuck(count)).any() | (state.active.sum() <= limits[2])
        if hasattr(solver, "is_full"):
            halted = halted | solver.is_full(memory)
        # What is returned may not be what was given. A copy of what was computed costs nothing.
        return count, halted, tree_map(torch.clone, state._replace(z=z, memory=_without(memory, kept)))

    halted = torch.zeros((), dtype=torch.bool, device=limits.device)
    state = state._replace(memory=_without(state.memory, kept))
    count, _, state = while_loop(going, iterate, (limits[0].clone(), halted, state))
    progress = torch.stack((count, state.astray(problem.coupled).sum(), state.active.sum()))
    return state._replace(memory=_with(state.memory, kept)), progress


def _prepare(solver: Any, z: Tensor) -> State:
    """Return the state before the first evaluation, with tensors (1,) for the numbers in the memory that change."""
    memory = solver.init(z)
    if hasattr(solver, "reserve"):
        memory = solver.reserve(memory)
    kept = _kept(solver, memory)
    memory = tree_map(
        lambda leaf: torch.full((1,), leaf, device=z.device) if isinstance(leaf, int) else leaf, _without(memory, kept)
    )
    return State.start(z, _with(memory, kept))


def _kept(solver: Any, memory: Any) -> dict[str, Any]:
    """Return what of its memory the solver hands on as it is, or writes in place."""
    return {name: getattr(memory, name) for name in getattr(solver, "kept", ())}


def _with(memory: Any, kept: dict[str, Any]) -> Any:
    return memory._replace(**kept) if kept else memory or None


def _without(memory: Any, kept: dict[str, Any]) -> Any:
    """Return what of the memory changes, () where there is none."""
    return memory._replace(**dict.fromkeys(kept, ())) if kept else memory or ()


@cache
def compiled_for(solver: type, map_code: Hashable) -> RunAhead:
    """Return ``run_ahead`` compiled for one kind of solver and map."""
    # What torch.compile has made is kept with the code object, eight versions of it: each pair gets a code object of its own.
    code = run_ahead.__code__.replace(co_name=f"run_ahead_by_{solver.__name__.lower()}")
    # States are flattened between evaluations: channels last, they would be transposed each time.
    return torch.compile(FunctionType(code, globals()), options={"layout_optimization": False})
