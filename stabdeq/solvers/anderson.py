"""Anderson acceleration (type II), batched, with a regularisation relative to the history's own scale."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from stabdeq.solvers.solution import accumulation_dtype


class AndersonMemory(NamedTuple):
    """The last steps, oldest overwritten first: one slot (B, n) beside the other, so that all arithmetic is contiguous.

    ``field_steps`` (window, B, n) are the differences of consecutive residual fields F, scaled to unit length, and
    ``target_steps`` (window, B, n) those of z + mixing F at the same scale. ``gram`` (window, window, B) holds the inner
    products of the former, with a ridge. ``fresh`` (B,) marks samples without a previous state in their history.
    """

    field_steps: Tensor
    target_steps: Tensor
    gram: Tensor
    field: Tensor  # (B, n), previous
    target: Tensor  # (B, n), previous
    fresh: Tensor  # (B,) bool
    slot: Tensor  # (1,) the next to write; a tensor, so that compiled code serves them all


@dataclass(frozen=True)
class Anderson:
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

    def init(self, z: Tensor) -> AndersonMemory:
        """Return an empty history for states ``z`` (B, n)."""
        window = max(1, min(self.window, z.shape[1]))
        gram = (1 + self._ridge(z)) * torch.eye(window, dtype=accumulation_dtype(z.dtype), device=z.device)
        fresh = torch.ones(len(z), dtype=torch.bool, device=z.device)
        return AndersonMemory(
            field_steps=z.new_zeros(window, *z.shape),
            target_steps=z.new_zeros(window, *z.shape),
            gram=gram[:, :, None].repeat(1, 1, len(z)),
            field=torch.zeros_like(z),
            target=torch.zeros_like(z),
            fresh=fresh,
            slot=torch.zeros(1, dtype=torch.int64, device=z.device),
        )

    def step(self, z: Tensor, field: Tensor, memory: AndersonMemory) -> tuple[Tensor, AndersonMemory]:
        """Return the accelerated state (B, n)."""
        target = torch.add(z, field, alpha=self.mixing)
        self._store(memory, field, target)
        right = _inner(memory.field_steps, field, memory.gram.dtype)
        gamma = _solve_symmetric(memory.gram, right).to(z.dtype)
        proposal = target - (gamma[:, :, None] * memory.target_steps).sum(0)
        slot = (memory.slot + 1) % len(memory.field_steps)
        fresh = torch.zeros_like(memory.fresh)
        return proposal, memory._replace(field=field, target=target, fresh=fresh, slot=slot)

    def forget(self, memory: AndersonMemory, samples: Tensor) -> AndersonMemory:
        """Empty the history of ``samples`` (B,) bool."""
        stale = samples[:, None]
        for steps in (memory.field_steps, memory.target_steps):
            steps.masked_fill_(stale, 0)
        empty = torch.eye(len(memory.gram), device=samples.device)[:, :, None] * (1 + self._ridge(memory.field))
        gram = torch.where(samples, empty.to(memory.gram), memory.gram)
        # The last state may be NaN, which no later mask could undo.
        field, target = memory.field.masked_fill(stale, 0), memory.target.masked_fill(stale, 0)
        return memory._replace(gram=gram, field=field, target=target, fresh=samples | memory.fresh)

    def select(self, memory: AndersonMemory, samples: Tensor) -> AndersonMemory:
        """Return the history of the ``samples`` (K,) alone."""
        return AndersonMemory(
            memory.field_steps[:, samples],
            memory.target_steps[:, samples],
            memory.gram[:, :, samples],
            memory.field[samples],
            memory.target[samples],
            memory.fresh[samples],
            memory.slot,
        )

    def _ridge(self, z: Tensor) -> float:
        return 10 * torch.finfo(z.dtype).eps if self.ridge is None else self.ridge

    def _store(self, memory: AndersonMemory, field: Tensor, target: Tensor) -> None:
        """Write the step that led to ``field`` and ``target`` into its slot, and its row into the Gram matrix."""
        field_step = field - memory.field
        # A step that changed the field by no more than roundoff says nothing: left short, it counts for little.
        size = torch.linalg.vector_norm(field_step, dim=1).clamp(min=torch.finfo(field.dtype).eps)
        scale = size.reciprocal().masked_fill(memory.fresh, 0)[:, None]
        field_step = field_step * scale
        memory.field_steps.index_copy_(0, memory.slot, field_step[None])
        memory.target_steps.index_copy_(0, memory.slot, ((target - memory.target) * scale)[None])
        row = _inner(memory.field_steps, field_step, memory.gram.dtype)
        row = row.index_fill(0, memory.slot, 1 + self._ridge(field))
        memory.gram.index_copy_(0, memory.slot, row[None])
        memory.gram.index_copy_(1, memory.slot, row[:, None])


def _inner(steps: Tensor, vector: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the inner products (w, B) of ``steps`` (w, B, n) with ``vector`` (B, n)."""
    return (steps * vector).sum(2, dtype=dtype)


def _solve_symmetric(matrix: Tensor, right: Tensor) -> Tensor:
    """Return the solution (w, B) of the positive definite systems ``matrix`` (w, w, B), ``right`` (w, B)."""
    if not torch.compiler.is_compiling():
        return torch.linalg.solve_ex(matrix.permute(2, 0, 1), right.T)[0].T
    # Compiled, elimination written out becomes one loop over the batch, where a batched factorisation remains a call.
    # A positive definite matrix needs no pivoting (Higham 2002, section 10.1).
    size = len(matrix)
    rows = [[*(matrix[i, j] for j in range(size)), right[i]] for i in range(size)]
    for i in range(size):
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    solution: list[Tensor] = []
    for i in reversed(range(size)):
        known = sum((rows[i][size - 1 - k] * value for k, value in enumerate(solution)), torch.zeros_like(right[i]))
        solution.append((rows[i][size] - known) / rows[i][i])
    return torch.stack(solution[::-1])
