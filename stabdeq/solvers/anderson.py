"""Anderson acceleration (type II), batched, with a regularisation relative to the history's own scale."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from stabdeq.solvers.slots import difference, inner, less_combined, write, write_quotient
from stabdeq.solvers.solution import accumulation_dtype
from stabdeq.solvers.solver import Solver


class AndersonMemory(NamedTuple):
    """The last steps, oldest overwritten first.

    ``field_steps`` (window, B, n) are the differences of consecutive residual fields F, scaled to length one, and
    ``target_steps`` (window, B, n) those of z + mixing F, scaled by the same. ``gram`` (window, window, B) holds the inner
    products of the former, with a ridge. ``fresh`` (B,) marks samples without a previous state in their history.
    """

    field_steps: Tensor
    target_steps: Tensor
    gram: Tensor
    field: Tensor  # (B, n), previous
    target: Tensor  # (B, n), previous
    fresh: Tensor | None  # (B,) bool; None where no sample is
    slot: int | Tensor  # the next to write, -1 before the first step; (1,) in compiled code
    extent: int  # the slots to read: those written, and in compiled code the empty ones too


@dataclass(frozen=True)
class Anderson(Solver):
    """Anderson acceleration of z = f(z) over ``window`` past steps (Walker and Ni 2011, type II).

    With F = f(z) - z, it finds the combination of past steps that best cancels F, min ||F - gamma' dF||, and proposes
    z + mixing F - gamma' (dZ + mixing dF). Each past step is scaled to length one before the normal equations are
    regularised by ``ridge`` (by default 10 roundoffs), so that steps far apart in size count alike and the accuracy reached
    is not bounded from below. A window beyond n is cut to n: there is no more to cancel.
    """

    window: int = 5
    mixing: float = 1.0
    ridge: float | None = None
    safeguarded = True
    kept = ("field_steps", "target_steps", "gram", "extent")

    def init(self, z: Tensor) -> AndersonMemory:
        """Return an empty history for states ``z`` (B, n)."""
        window, dtype = max(1, min(self.window, z.shape[1])), accumulation_dtype(z.dtype)
        return AndersonMemory(
            field_steps=z.new_empty(window, *z.shape),
            target_steps=z.new_empty(window, *z.shape),
            gram=torch.eye(window, dtype=dtype, device=z.device)[:, :, None].repeat(1, 1, len(z)),
            field=z,  # any: not read before there is another
            target=z,
            fresh=torch.ones(len(z), dtype=torch.bool, device=z.device),
            slot=-1,
            extent=0,
        )

    def reserve(self, memory: AndersonMemory) -> AndersonMemory:
        """Return the memory as compiled code reads it, empty slots and all."""
        for steps in (memory.field_steps, memory.target_steps):
            steps[memory.extent :] = 0
        return memory._replace(extent=len(memory.gram))

    def step(self, z: Tensor, field: Tensor, memory: AndersonMemory) -> tuple[Tensor, AndersonMemory]:
        """Return the accelerated state (B, n)."""
        target = torch.add(z, field, alpha=self.mixing)
        following = memory._replace(field=field, target=target)
        if isinstance(memory.slot, Tensor):  # compiled: no value is known
            proposal = self._combine(memory, field, target)
            fresh = field.new_zeros(len(field), dtype=torch.bool)
            return proposal, following._replace(fresh=fresh, slot=(memory.slot + 1) % len(memory.gram))
        if memory.slot < 0:
            return target, following._replace(fresh=None, slot=0)
        memory = memory._replace(extent=max(memory.extent, memory.slot + 1))
        proposal = self._combine(memory, field, target)
        slot = (memory.slot + 1) % len(memory.gram)
        return proposal, following._replace(fresh=None, slot=slot, extent=memory.extent)

    def forget(self, memory: AndersonMemory, samples: Tensor) -> AndersonMemory:
        """Empty the history of ``samples`` (B,) bool."""
        stale = samples[:, None]
        for steps in (memory.field_steps, memory.target_steps, memory.gram.permute(0, 2, 1)):
            steps.masked_fill_(stale, 0)
        memory.gram.diagonal().T.masked_fill_(samples, 1)
        # The last state may be NaN, which no later mask could undo.
        field, target = memory.field.masked_fill(stale, 0), memory.target.masked_fill(stale, 0)
        fresh = samples if memory.fresh is None else samples | memory.fresh
        return memory._replace(field=field, target=target, fresh=fresh)

    def select(self, memory: AndersonMemory, samples: Tensor) -> AndersonMemory:
        """Return the history of the ``samples`` (K,) alone."""
        return AndersonMemory(
            memory.field_steps[:, samples],
            memory.target_steps[:, samples],
            memory.gram[:, :, samples],
            memory.field[samples],
            memory.target[samples],
            None if memory.fresh is None else memory.fresh[samples],
            memory.slot,
            memory.extent,
        )

    def _combine(self, memory: AndersonMemory, field: Tensor, target: Tensor) -> Tensor:
        """Store the step that led to ``field`` and ``target``, and return the proposal (B, n)."""
        slot = memory.slot if isinstance(memory.slot, int) else memory.slot.clamp(min=0)
        field_step = difference(memory.field_steps, slot, field, memory.field)
        target_step = difference(memory.target_steps, slot, target, memory.target)
        if memory.fresh is not None:
            field_step, target_step = (step.masked_fill(memory.fresh[:, None], 0) for step in (field_step, target_step))
        roundoff = torch.finfo(field.dtype).eps
        # A step that changed the field by no more than roundoff says nothing: taken for longer, it counts for little.
        length = torch.linalg.vector_norm(field_step, dim=1, keepdim=True, dtype=memory.gram.dtype).clamp(min=roundoff)
        field_step = write_quotient(memory.field_steps, slot, field_step, length)
        write_quotient(memory.target_steps, slot, target_step, length)
        field_steps, target_steps = memory.field_steps[: memory.extent], memory.target_steps[: memory.extent]
        gram = memory.gram[: memory.extent, : memory.extent]
        row = inner(field_steps, field_step)
        write(row, slot, 1 + (10 * roundoff if self.ridge is None else self.ridge))
        write(gram, slot, row)
        write(gram, slot, row, dim=1)
        return less_combined(target, _solve_symmetric(gram, inner(field_steps, field)), target_steps)


def _solve_symmetric(matrix: Tensor, right: Tensor) -> Tensor:
    """Return the solution (w, B) of the positive definite systems ``matrix`` (w, w, B), ``right`` (w, B)."""
    size = len(matrix)
    if size > 1 and not torch.compiler.is_compiling():
        # Contiguous for one sample as for many: by its strides the factors or their transposes are used, to other roundoff.
        return torch.linalg.solve_ex(matrix.permute(2, 0, 1).contiguous(), right.T)[0].T
    # Compiled, elimination written out becomes one loop over the batch, where a batched factorisation remains a call.
    # A positive definite matrix needs no pivoting (Higham 2002, section 10.1).
    rows = [[*(matrix[i, j] for j in range(size)), right[i]] for i in range(size)]
    for i in range(size):
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    solution: list[Tensor] = []
    for i in reversed(range(size)):
        value = rows[i][size]
        for k, known in enumerate(solution):
            value = value - rows[i][size - 1 - k] * known
        solution.append(value / rows[i][i])
    return torch.stack(solution[::-1])
