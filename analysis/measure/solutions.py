"""Solves of parts of a batch, told as one."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from stabdeq.solvers import Solution


def stateless(solution: Solution) -> Solution:
    """Return ``solution`` with no state and no trace: a few numbers for each sample."""
    return replace(solution, z=solution.z[:0].clone(), trace=None)


def joined(solutions: Sequence[Solution], z: Tensor) -> Solution:
    """Return the ``solutions`` of parts, in order, as one with the states ``z`` (N, *)."""
    residual, status, evaluations = (
        torch.cat([getattr(one, name) for one in solutions]) for name in ("residual", "status", "evaluations")
    )
    return Solution(z, residual, status, evaluations)
