"""Broyden's good method with limited memory, batched."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BroydenMemory:
    """The inverse Jacobian -I + sum_i left_i right_i' as vectors (B, memory, n), and the last step."""

    left: Tensor
    right: Tensor
    used: Tensor  # (B,) how many slots hold a vector
    previous_z: Tensor  # (B, n)
    previous_field: Tensor  # (B, n)
    has_previous: Tensor  # (B,) bool


@dataclass(frozen=True)
class Broyden:
    """Broyden's good method for F(z) = f(z) - z = 0 (Broyden 1965), begun at the inverse Jacobian -I: a Picard step.

    Once ``memory`` rank-one updates are stored, the sample starts again from -I, as SciPy's ``restart`` reduction does.
    """

    memory: int = 20
    safeguarded = True

    def init(self, z: Tensor) -> BroydenMemory:
        """Return the inverse Jacobian -I for states ``z`` (B, n)."""
        empty = z.new_zeros(len(z), self.memory, z.shape[1])
        count = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        return BroydenMemory(empty, empty.clone(), count, z, torch.zeros_like(z), count.bool())

    def step(self, z: Tensor, fz: Tensor, memory: BroydenMemory) -> tuple[Tensor, BroydenMemory]:
        """Return z - H F (B, n), H updated by the last step."""
        field = fz - z
        full = memory.used == self.memory
        memory = self.forget(memory, full) if bool(full.any()) else memory
        memory = _update(memory, z - memory.previous_z, field - memory.previous_field)
        step = -_apply(memory.left, memory.right, field)
        following = BroydenMemory(
            memory.left, memory.right, memory.used, z, field, torch.ones_like(memory.has_previous)
        )
        return z + step, following

    def forget(self, memory: BroydenMemory, samples: Tensor) -> BroydenMemory:
        """Reset the inverse Jacobian of ``samples`` (B,) bool to -I."""
        keep = ~samples[:, None, None]
        return BroydenMemory(
            torch.where(keep, memory.left, 0),
            torch.where(keep, memory.right, 0),
            torch.where(samples, 0, memory.used),
            memory.previous_z,
            memory.previous_field,
            memory.has_previous & ~samples,
        )


def _apply(left: Tensor, right: Tensor, vector: Tensor) -> Tensor:
    """Return H v = -v + sum_i left_i (right_i . v), (B, n)."""
    return torch.einsum("bm,bmn->bn", torch.einsum("bmn,bn->bm", right, vector), left) - vector


def _update(memory: BroydenMemory, step: Tensor, change: Tensor) -> BroydenMemory:
    """Add the rank-one update that makes H ``change`` = ``step`` (both (B, n)), where its denominator is safe."""
    image = _apply(memory.left, memory.right, change)
    row = _apply(memory.right, memory.left, step)  # H' s
    denominator = (step * image).sum(1)
    floor = torch.finfo(step.dtype).eps * step.norm(dim=1) * image.norm(dim=1)
    sound = memory.has_previous & (denominator.abs() > floor)
    left = (step - image) / torch.where(sound, denominator, 1)[:, None]
    slot = torch.arange(memory.left.shape[1], device=step.device) == memory.used[:, None]
    write = (slot & sound[:, None])[:, :, None]
    return BroydenMemory(
        torch.where(write, left[:, None], memory.left),
        torch.where(write, row[:, None], memory.right),
        memory.used + sound,
        memory.previous_z,
        memory.previous_field,
        memory.has_previous,
    )
