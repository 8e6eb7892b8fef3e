"""Broyden's good method with limited memory, batched."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from stabdeq.solvers.solution import accumulation_dtype

EMPTY = 2  # torch.compile makes code of its own wherever a size is 0 or 1, so no count here ever is


class BroydenMemory(NamedTuple):
    """The inverse Jacobian H = -I + sum_i left_i right_i', one slot (B, n) beside the other, and the last accepted state.

    ``image`` is H ``field`` at that state, ``length`` (B,) the fraction of the step -H F from there that was tried last.
    ``fresh`` (B,) marks samples without such a state.
    """

    left: Tensor  # (memory, B, n)
    right: Tensor  # (memory, B, n)
    z: Tensor  # (B, n)
    field: Tensor  # (B, n)
    image: Tensor  # (B, n)
    length: Tensor  # (B,)
    fresh: Tensor  # (B,) bool
    end: int  # EMPTY + the number of slots written


@dataclass(frozen=True)
class Broyden:
    """Broyden's good method for F(z) = f(z) - z = 0 (Broyden 1965), begun at the inverse Jacobian -I: a Picard step.

    Once ``memory`` rank-one updates are stored it starts again from -I, as SciPy's ``restart`` reduction does. With
    ``line_search``, a step that does not shrink ||F|| is halved, down to a sixteenth; each try is one evaluation of f, and
    the loop's safeguard, which would not let it try, stands back.
    """

    memory: int = 20
    line_search: bool = False

    @property
    def safeguarded(self) -> bool:
        """Whether the loop throws samples back to a better state."""
        return not self.line_search

    def init(self, z: Tensor) -> BroydenMemory:
        """Return the inverse Jacobian -I for states ``z`` (B, n)."""
        length = torch.ones(len(z), dtype=accumulation_dtype(z.dtype), device=z.device)
        return BroydenMemory(
            left=_empty_slots(self.memory, z),
            right=_empty_slots(self.memory, z),
            z=torch.zeros_like(z),
            field=torch.zeros_like(z),
            image=torch.zeros_like(z),
            length=length,
            fresh=length.bool(),
            end=EMPTY,
        )

    def step(self, z: Tensor, field: Tensor, memory: BroydenMemory) -> tuple[Tensor, BroydenMemory]:
        """Return z - H F (B, n), H updated by the last step; or, of a step that was too long, half."""
        if memory.end == EMPTY + self.memory:
            memory.left[:2] = 0
            memory = memory._replace(image=-memory.field, end=EMPTY)
        too_long = self._too_long(field, memory) if self.line_search else None
        unsound = memory.fresh if too_long is None else memory.fresh | too_long
        image = _update(memory, z - memory.z, field, unsound)
        length = torch.ones_like(memory.length)
        if too_long is not None:
            back = too_long[:, None]
            z, field = torch.where(back, memory.z, z), torch.where(back, memory.field, field)
            image = torch.where(back, memory.image, image)
            length = torch.where(too_long, memory.length / 2, length)
        following = memory._replace(
            z=z, field=field, image=image, length=length, fresh=torch.zeros_like(memory.fresh), end=memory.end + 1
        )
        return z - (image if too_long is None else length[:, None].to(z.dtype) * image), following

    def _too_long(self, field: Tensor, memory: BroydenMemory) -> Tensor:
        """Return the samples (B,) bool whose last step did not shrink ||F|| enough (Armijo's rule)."""
        now, before = (torch.linalg.vector_norm(one, dim=1, dtype=memory.length.dtype) for one in (field, memory.field))
        enough = now <= (1 - 1e-4 * memory.length) * before
        return ~enough & (memory.length > 1 / 16) & ~memory.fresh

    def forget(self, memory: BroydenMemory, samples: Tensor) -> BroydenMemory:
        """Reset the inverse Jacobian of ``samples`` (B,) bool to -I."""
        for slots in (memory.left, memory.right):
            slots[: _extent(memory.end)].masked_fill_(samples[:, None], 0)
        return memory._replace(fresh=samples | memory.fresh)

    def select(self, memory: BroydenMemory, samples: Tensor) -> BroydenMemory:
        """Return the inverse Jacobian of the ``samples`` (K,) alone."""
        return BroydenMemory(
            left=_slots_of(memory.left, memory.end, samples),
            right=_slots_of(memory.right, memory.end, samples),
            z=memory.z[samples],
            field=memory.field[samples],
            image=memory.image[samples],
            length=memory.length[samples],
            fresh=memory.fresh[samples],
            end=memory.end,
        )


def _update(memory: BroydenMemory, step: Tensor, field: Tensor, unsound: Tensor) -> Tensor:
    """Store the rank-one update that makes H y = s for the last ``step`` s (B, n), y = the change of the field; return H F.

    Nothing is stored where the last step is ``unsound`` (B,), or its denominator no more than roundoff.
    """
    extent = _extent(memory.end)
    left, right = memory.left[:extent], memory.right[:extent]
    image = _apply(left, right, field)
    changed = image - memory.image  # H y
    row = _apply(right, left, step)  # H' s
    denominator = _inner(step, changed)
    size, changed_size = (torch.linalg.vector_norm(one, dim=1, dtype=denominator.dtype) for one in (step, changed))
    floor = torch.finfo(step.dtype).eps * size * changed_size
    sound = (denominator.abs() > floor) & ~unsound
    scale = torch.where(sound, denominator.reciprocal(), 0)[:, None]
    # An unsound vector may be NaN, and 0 times NaN is NaN: both sides are cleared.
    nothing = ~sound[:, None]
    row = row.masked_fill(nothing, 0)
    added = ((step - changed) * scale).to(step.dtype).masked_fill(nothing, 0)
    slot = torch.full((1,), memory.end - EMPTY, device=step.device)
    memory.right.index_copy_(0, slot, row[None])
    memory.left.index_copy_(0, slot, added[None])
    return torch.addcmul(image, added, _inner(row, field)[:, None].to(step.dtype))


def _extent(end: int) -> int:
    """Return how many slots to read; two at least, which hold 0 before they hold an update."""
    return max(2, end - EMPTY)


def _empty_slots(count: int, z: Tensor) -> Tensor:
    slots = z.new_empty(max(2, count), *z.shape)
    slots[:2] = 0
    return slots


def _slots_of(slots: Tensor, end: int, samples: Tensor) -> Tensor:
    """Return the slots of the ``samples`` (K,), with room for those not yet written."""
    fewer = slots.new_empty(len(slots), len(samples), slots.shape[2])
    extent = _extent(end)
    torch.index_select(slots[:extent], 1, samples, out=fewer[:extent])
    return fewer


def _apply(left: Tensor, right: Tensor, vector: Tensor) -> Tensor:
    """Return -v + sum_i left_i (right_i . v), (B, n)."""
    weights = _inner(right, vector)
    return (weights[:, :, None] * left).sum(0).to(vector.dtype) - vector


def _inner(slots: Tensor, vector: Tensor) -> Tensor:
    """Return the inner products (..., B) of ``slots`` (..., B, n) with ``vector`` (B, n), in float32 at least."""
    return (slots * vector).sum(-1, dtype=accumulation_dtype(vector.dtype))
