"""The solver's loop compiled: evaluations and steps in one call, until a sample needs the host.

What it asks of the solver's memory, ``stabdeq.solvers.Solver`` says.
"""

from collections.abc import Callable, Hashable
from functools import cache
from itertools import count
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop
from torch.utils._pytree import tree_map

from stabdeq.solvers.iteration import Problem, State, observe
from stabdeq.solvers.solver import Solver

RunAhead = Callable[[Problem, Solver, Tensor | State, Tensor], tuple[State, Tensor]]
WRITES = torch.__version__ >= "2.13"  # whether a compiled loop may write into tensors; else these are copied each time


def run_ahead(problem: Problem, solver: Solver, start: Tensor | State, limits: Tensor) -> tuple[State, Tensor]:
    """Evaluate and step from states (B, n), or from where it stopped before, until the host is needed.

    ``limits`` (4,) are the evaluations made so far, those allowed, how many samples still at work are too few, and how many rows
    of others are then too many to have been evaluated: it stops there, where a sample has gone astray or is stuck, and where the
    solver's memory is full. Returns the state and (3,): the evaluations made, how many samples are astray, and how many at work.
    """
    state = start if isinstance(start, State) else _prepare(problem, solver, start)
    kept = _kept(solver, state.memory)
    nothing = state.memory is None

    def whole(changing: Any) -> Any:
        return None if nothing else _with(changing, kept)

    def going(evaluations: Tensor, halted: Tensor, state: State) -> Tensor:
        return (evaluations < limits[1]) & ~halted

    def iterate(evaluations: Tensor, halted: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        evaluations = evaluations + 1
        state, field = observe(problem, state, evaluations)
        memory = state.memory if WRITES else tree_map(torch.clone, state.memory)
        z, memory = solver.step(state.z, field, whole(memory))
        z = torch.where(state.active[:, None], z, state.best)  # as ``loop`` does
        working = state.active.sum()
        halted = (state.astray(problem.coupled) | state.stuck(evaluations)).any() | (working == 0)
        halted = halted | ((working <= limits[2]) & (state.idle(evaluations) >= limits[3]))
        full = solver.is_full(memory)
        if full is not None:
            halted = halted | full
        # What is returned may not be what was given. A copy of what was computed costs nothing.
        return evaluations, halted, tree_map(torch.clone, state._replace(z=z, memory=_without(memory, kept)))

    halted = torch.zeros((), dtype=torch.bool, device=limits.device)
    state = state._replace(memory=_without(state.memory, kept))
    if isinstance(start, State):
        state = tree_map(torch.clone, state)  # no two may share memory
    evaluations, _, state = while_loop(going, iterate, (limits[0].clone(), halted, state))
    progress = torch.stack((evaluations, state.astray(problem.coupled).sum(), state.active.sum()))
    return State(*state[:-1], memory=whole(state.memory)), progress


def _prepare(problem: Problem, solver: Solver, z: Tensor) -> State:
    """Return the state before the first evaluation, with tensors (1,) for the numbers in the memory that change."""
    memory = solver.reserve(solver.init(z))
    state = tree_map(torch.clone, State.start(z, (), images=problem.images))  # no two may share memory
    if memory is None:
        return state._replace(memory=None)
    kept = _kept(solver, memory)
    return state._replace(memory=_with(tree_map(lambda leaf: _tensor(leaf, z), _without(memory, kept)), kept))


def _tensor(leaf: Any, z: Tensor) -> Any:
    """Return a number as a tensor (1,), a tensor as a copy of it, and anything else as it is."""
    if isinstance(leaf, int | float):
        return torch.full((1,), leaf, dtype=z.dtype if isinstance(leaf, float) else None, device=z.device)
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _kept(solver: Solver, memory: Any) -> dict[str, Any]:
    """Return what of its memory the solver hands on as it is, or writes in place where it may."""
    kept = {name: getattr(memory, name) for name in solver.kept}
    return kept if WRITES else {name: value for name, value in kept.items() if not isinstance(value, Tensor)}


def _with(memory: Any, kept: dict[str, Any]) -> Any:
    if not kept:
        return memory
    # PyTorch 2.11 returns from compiled code no tuple that ``_replace`` made.
    return type(memory)(*(kept.get(name, value) for name, value in zip(memory._fields, memory, strict=True)))


def _without(memory: Any, kept: dict[str, Any]) -> Any:
    """Return what of the memory changes, () where there is none."""
    if kept:
        return memory._replace(**dict.fromkeys(kept, ()))
    return () if memory is None else memory


@cache
def compiled_for(*kind: Hashable) -> RunAhead:
    """Return ``run_ahead`` compiled for one ``kind`` of solver, map and states."""
    # What torch.compile has made, eight versions of it, and which sizes it takes for changing, is kept by the code's name.
    code = run_ahead.__code__.replace(co_name=f"run_ahead_{next(_number)}")
    # States are flattened between evaluations: channels last, they would be transposed each time.
    return torch.compile(FunctionType(code, globals()), options={"layout_optimization": False})


_number = count()
