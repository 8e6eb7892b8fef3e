"""Anderson acceleration (type II), batched, with a regularisation relative to the history's own scale."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AndersonMemory:
    """Differences of consecutive states and residual fields, (B, window, n), oldest overwritten first."""

    state_steps: Tensor
    field_steps: Tensor
    previous_z: Tensor  # (B, n)
    previous_field: Tensor  # (B, n)
    has_previous: Tensor  # (B,) bool
    slot: int


@dataclass(frozen=True)
class Anderson:
    """Anderson acceleration of z = f(z) over ``window`` past steps (Walker and Ni 2011, type II).

    With F = f(z) - z, it finds the combination of past steps that best cancels F, min ||F - gamma' dF||, and proposes
    z + mixing F - gamma' (dZ + mixing dF). Each past step is scaled to length one before the normal equations are
    regularised, so that steps far apart in size count alike and the accuracy reached is not bounded from below.
    """

    window: int = 5
    mixing: float = 1.0
    safeguarded = True

    def init(self, z: Tensor) -> AndersonMemory:
        """Return an empty history for states ``z`` (B, n); a window beyond n is cut to n."""
        window = max(1, min(self.window, z.shape[1]))
        empty = z.new_zeros(len(z), window, z.shape[1])
        nobody = torch.zeros(len(z), dtype=torch.bool, device=z.device)
        return AndersonMemory(empty, empty.clone(), z, torch.zeros_like(z), nobody, 0)

    def step(self, z: Tensor, fz: Tensor, memory: AndersonMemory) -> tuple[Tensor, AndersonMemory]:
        """Return the accelerated state (B, n)."""
        field = fz - z
        known = memory.has_previous[:, None]
        slot = memory.slot % memory.state_steps.shape[1]
        memory.state_steps[:, slot] = torch.where(known, z - memory.previous_z, 0)
        memory.field_steps[:, slot] = torch.where(known, field - memory.previous_field, 0)
        gamma = _least_squares(memory.field_steps, field)
        correction = torch.einsum("bw,bwn->bn", gamma, memory.state_steps + self.mixing * memory.field_steps)
        following = AndersonMemory(
            memory.state_steps, memory.field_steps, z, field, torch.ones_like(memory.has_previous), slot + 1
        )
        return z + self.mixing * field - correction, following

    def forget(self, memory: AndersonMemory, samples: Tensor) -> AndersonMemory:
        """Empty the history of ``samples`` (B,) bool."""
        keep = ~samples[:, None, None]
        return AndersonMemory(
            torch.where(keep, memory.state_steps, 0),
            torch.where(keep, memory.field_steps, 0),
            memory.previous_z,
            memory.previous_field,
            memory.has_previous & ~samples,
            memory.slot,
        )


def _least_squares(steps: Tensor, target: Tensor) -> Tensor:
    """Return gamma (B, w) minimising ||target - gamma' steps||, (B, w, n), (B, n); empty steps get 0."""
    lengths = steps.norm(dim=2)
    used = (lengths > 0) & lengths.isfinite()
    scaled = torch.where(used[:, :, None], steps / torch.where(used, lengths, 1)[:, :, None], 0)
    gram = scaled @ scaled.mT
    ridge = 10 * torch.finfo(steps.dtype).eps
    gram = gram + torch.diag_embed(torch.where(used, ridge, 1.0).to(gram))
    right = (scaled @ target[:, :, None]).squeeze(2)
    factor, failed = torch.linalg.cholesky_ex(gram)
    solved = torch.cholesky_solve(right[:, :, None], factor).squeeze(2)
    # Where the factorisation failed, gamma = 0 is the plain step.
    usable = used & (failed == 0)[:, None] & solved.isfinite().all(1, keepdim=True)
    return torch.where(usable, solved / torch.where(used, lengths, 1), 0)
