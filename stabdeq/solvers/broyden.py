"""Broyden's good method with limited memory, batched."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from stabdeq.solvers.slots import inner, less_combined, write
from stabdeq.solvers.solution import accumulation_dtype
from stabdeq.solvers.solver import Solver

AHEAD = 2**17  # state components in the empty slots that compiled code reads along, so as to be called less often


class BroydenMemory(NamedTuple):
    """The inverse Jacobian H = -I + sum_i left_i right_i', and the last accepted state.

    ``image`` is H ``field`` at that state, ``length`` (B,) the fraction of the step -H F from there that was tried last.
    ``fresh`` (B,) marks samples without such a state.
    """

    left: Tensor  # (memory, B, n)
    right: Tensor  # (memory, B, n)
    z: Tensor  # (B, n)
    field: Tensor  # (B, n)
    image: Tensor  # (B, n)
    length: Tensor  # (B,)
    fresh: Tensor | None  # (B,) bool; None where no sample is
    slot: int | Tensor  # the next to write, -1 before the first step; (1,) in compiled code
    extent: int  # the slots to read: those written, and in compiled code some that are still empty


@dataclass(frozen=True)
class Broyden(Solver):
    """Broyden's good method for F(z) = f(z) - z = 0 (Broyden 1965), begun at the inverse Jacobian -I: a Picard step.

    Once ``memory`` rank-one updates are stored it starts again from -I, as SciPy's ``restart`` reduction does. With
    ``line_search``, a step that does not shrink ||F|| is halved, down to a sixteenth; each try is one evaluation of f, and
    the loop's safeguard, which would not let it try, stands back.
    """

    memory: int = 20
    line_search: bool = False

    @property
    def safeguarded(self) -> bool:  # pyrefly: ignore
        """Whether the loop throws samples back to a better state."""
        return not self.line_search

    @property
    def kept(self) -> tuple[str, ...]:  # pyrefly: ignore
        """What of its memory ``step`` hands on, or writes in place."""
        return ("left", "right", "extent") if self.line_search else ("left", "right", "extent", "length")

    def init(self, z: Tensor) -> BroydenMemory:
        """Return the inverse Jacobian -I for states ``z`` (B, n)."""
        length = torch.ones(len(z), dtype=accumulation_dtype(z.dtype), device=z.device)
        return BroydenMemory(
            left=z.new_empty(self.memory, *z.shape),
            right=z.new_empty(self.memory, *z.shape),
            z=torch.empty_like(z),
            field=torch.empty_like(z),
            image=torch.empty_like(z),
            length=length,
            fresh=length.bool(),
            slot=-1,
            extent=0,
        )

    def reserve(self, memory: BroydenMemory) -> BroydenMemory:
        """Return the memory, where it is full, with empty slots to be read along, or from -I again."""
        slot = max(0, int(memory.slot))
        if slot < memory.extent:
            return memory
        if slot == self.memory:
            none = torch.zeros(1, dtype=torch.int64, device=memory.z.device)
            slot, memory = 0, _emptied(memory)._replace(slot=none)
        extent = min(slot + max(2, AHEAD // max(1, memory.z.numel())), self.memory)
        for slots in (memory.left, memory.right):
            slots[memory.extent : extent] = 0
        return memory._replace(extent=extent)

    def is_full(self, memory: BroydenMemory) -> Tensor:
        """Return whether all slots that are read are written, ()."""
        return (torch.as_tensor(memory.slot) == memory.extent).any()

    def step(self, z: Tensor, field: Tensor, memory: BroydenMemory) -> tuple[Tensor, BroydenMemory]:
        """Return z - H F (B, n), H updated by the last step; or, of a step that was too long, half."""
        if isinstance(memory.slot, int):  # else compiled: no value is known, and ``reserve`` has seen to the room
            if memory.slot < 0:
                return z + field, memory._replace(z=z, field=field, image=-field, fresh=None, slot=0)
            if memory.slot == self.memory:
                memory = _emptied(memory)
        unsound, length = memory.fresh, memory.length
        too_long = self._too_long(field, memory) if self.line_search else None
        if too_long is not None:
            unsound = too_long if unsound is None else too_long | unsound
        image = _update(memory, z - memory.z, field, unsound)
        if too_long is not None:
            back = too_long[:, None]
            z, field = torch.where(back, memory.z, z), torch.where(back, memory.field, field)
            image = torch.where(back, memory.image, image)
            length = torch.where(too_long, length / 2, 1)
        following = memory._replace(z=z, field=field, image=image, length=length, slot=memory.slot + 1)
        if isinstance(memory.slot, int):
            following = following._replace(fresh=None, extent=memory.slot + 1)
        else:
            following = following._replace(fresh=torch.zeros_like(memory.length, dtype=torch.bool))
        return z - (image if too_long is None else length[:, None].to(z.dtype) * image), following

    def _too_long(self, field: Tensor, memory: BroydenMemory) -> Tensor:
        """Return the samples (B,) bool whose last step did not shrink ||F|| enough (Armijo's rule)."""
        now, before = (torch.linalg.vector_norm(one, dim=1, dtype=memory.length.dtype) for one in (field, memory.field))
        enough = now <= (1 - 1e-4 * memory.length) * before
        too_long = ~enough & (memory.length > 1 / 16)
        return too_long if memory.fresh is None else too_long & ~memory.fresh

    def forget(self, memory: BroydenMemory, samples: Tensor) -> BroydenMemory:
        """Reset the inverse Jacobian of ``samples`` (B,) bool to -I."""
        for slots in (memory.left, memory.right):
            slots[: memory.extent].masked_fill_(samples[:, None], 0)
        return memory._replace(fresh=samples if memory.fresh is None else samples | memory.fresh)

    def select(self, memory: BroydenMemory, samples: Tensor) -> BroydenMemory:
        """Return the inverse Jacobian of the ``samples`` (K,) alone."""
        return BroydenMemory(
            left=_slots_of(memory.left, memory.extent, samples),
            right=_slots_of(memory.right, memory.extent, samples),
            z=memory.z[samples],
            field=memory.field[samples],
            image=memory.image[samples],
            length=memory.length[samples],
            fresh=None if memory.fresh is None else memory.fresh[samples],
            slot=memory.slot,
            extent=memory.extent,
        )


def _update(memory: BroydenMemory, step: Tensor, field: Tensor, unsound: Tensor | None) -> Tensor:
    """Store the rank-one update that makes H y = s for the last ``step`` s (B, n), y = the change of the field; return H F.

    Nothing is stored where the last step is ``unsound`` (B,), or its denominator no more than roundoff.
    """
    left, right = memory.left[: memory.extent], memory.right[: memory.extent]
    image = _apply(left, right, field)
    changed = image - memory.image  # H y
    row = _apply(right, left, step)  # H' s
    dtype = memory.length.dtype
    denominator = (step * changed).sum(1, dtype=dtype)
    size, changed_size = (torch.linalg.vector_norm(one, dim=1, dtype=dtype) for one in (step, changed))
    sound = denominator.abs() > torch.finfo(step.dtype).eps * size * changed_size
    if unsound is not None:
        sound = sound & ~unsound
    added = step - changed
    scale = denominator.reciprocal()
    if torch.compiler.is_compiling() or not bool(sound.all()):
        # An unsound vector may be NaN, and 0 times NaN is NaN: all that it touches is cleared.
        nothing = ~sound
        scale = scale.masked_fill(nothing, 0)
        added, row = added.masked_fill(nothing[:, None], 0), row.masked_fill(nothing[:, None], 0)
    added = (added * scale[:, None]).to(step.dtype)
    slot = memory.slot if isinstance(memory.slot, int) else memory.slot.clamp(min=0)
    write(memory.right, slot, row)
    write(memory.left, slot, added)
    return torch.addcmul(image, added, inner(row[None], field)[0][:, None].to(step.dtype))


def _apply(left: Tensor, right: Tensor, vector: Tensor) -> Tensor:
    """Return -v + sum_i left_i (right_i . v), (B, n)."""
    if not len(left):
        return -vector
    return -less_combined(vector, inner(right, vector), left)


def _emptied(memory: BroydenMemory) -> BroydenMemory:
    """Return the memory with H = -I."""
    return memory._replace(image=-memory.field, slot=0, extent=0)


def _slots_of(slots: Tensor, extent: int, samples: Tensor) -> Tensor:
    """Return the slots of the ``samples`` (K,), with room for those not yet written."""
    fewer = slots.new_empty(len(slots), len(samples), slots.shape[2])
    torch.index_select(slots[:extent], 1, samples, out=fewer[:extent])
    return fewer
