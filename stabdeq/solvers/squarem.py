"""SQUAREM: squared extrapolation, two plain steps and a jump along their line, without a history."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from stabdeq.solvers.solution import accumulation_dtype
from stabdeq.solvers.solver import Solver

FIRST, SECOND, LANDING = (
    0,
    1,
    2,
)  # what the state evaluated now is: where a cycle begins, a plain step from there, after the jump


class SquaremMemory(NamedTuple):
    """The state at which each sample's cycle began, its field there, and how far it is in the cycle."""

    z: Tensor  # (B, n)
    field: Tensor  # (B, n)
    place: Tensor  # (B,) int64


@dataclass(frozen=True)
class Squarem(Solver):
    """Squared extrapolation of z = f(z) (Varadhan and Roland 2008, scheme S3), with a plain step after every jump.

    From z with the field r = F(z), and v = F(z + r) - r, it goes to z - 2 a r + a^2 v with a = -||r|| / ||v||, at most -1: at -1
    it is the second plain step. Where the Jacobian's eigenvalues are positive a jump is worth many steps, and it costs no more
    than they do: three vectors are kept, and no equations solved.
    """

    safeguarded = True

    def init(self, z: Tensor) -> SquaremMemory:
        """Return the memory of samples that begin a cycle at ``z`` (B, n)."""
        return SquaremMemory(torch.zeros_like(z), torch.zeros_like(z), torch.full((len(z),), FIRST, device=z.device))

    def step(self, z: Tensor, field: Tensor, memory: SquaremMemory) -> tuple[Tensor, SquaremMemory]:
        """Return a plain step (B, n), or where two have been seen a jump."""
        jumps, begins = ((memory.place == place)[:, None] for place in (SECOND, FIRST))
        ahead = z + field
        if torch.compiler.is_compiling() or bool(jumps.any()):  # a plain step is two of three
            ahead = torch.where(jumps, _jump(memory, field), ahead)
        following = SquaremMemory(
            z=torch.where(begins, z, memory.z),
            field=torch.where(begins, field, memory.field),
            place=(memory.place + 1) % 3,
        )
        return ahead, following

    def forget(self, memory: SquaremMemory, samples: Tensor) -> SquaremMemory:
        """Let the ``samples`` (B,) bool begin a cycle."""
        stale = samples[:, None]
        return SquaremMemory(
            memory.z.masked_fill(stale, 0), memory.field.masked_fill(stale, 0), memory.place.masked_fill(samples, FIRST)
        )

    def select(self, memory: SquaremMemory, samples: Tensor) -> SquaremMemory:
        """Return the memory of the ``samples`` (K,) alone."""
        return SquaremMemory(memory.z[samples], memory.field[samples], memory.place[samples])


def _jump(memory: SquaremMemory, field: Tensor) -> Tensor:
    """Return where the jump leads (B, n), from the cycle's first state and its field, and the ``field`` after a plain step."""
    change = field - memory.field
    length = _length(memory.field, change)[:, None].to(field.dtype)
    return memory.z + length * (2 * memory.field + length * change)


def _length(field: Tensor, change: Tensor) -> Tensor:
    """Return -a (B,): ||r|| / ||v||, and 1, a plain step, where that is less or v nothing but roundoff."""
    dtype = accumulation_dtype(field.dtype)
    size, changed = (torch.linalg.vector_norm(one, dim=1, dtype=dtype) for one in (field, change))
    length = (size / changed).clamp(min=1)
    return torch.where(changed > torch.finfo(field.dtype).eps * size, length, 1)
