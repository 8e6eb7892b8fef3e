"""The semidefinite solver: it proposes multipliers. Whether they prove anything is decided elsewhere."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cvxpy import Problem

ITERATIONS = 2000
ACCURACY = 1e-4
LEAST = 1e-6  # of the largest entry: a multiplier of 0 makes a matrix singular


def run_solver(problem: "Problem") -> None:
    """Solve with SCS; its status is worth nothing and is not read (theory: certificates)."""
    import warnings

    import cvxpy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of inaccurate solutions
        try:
            problem.solve(solver=cvxpy.SCS, max_iters=ITERATIONS, eps=ACCURACY)
        except (cvxpy.SolverError, ValueError):  # the latter where a weight is NaN
            return  # no value is left in the variables


def repaired(entries: Any) -> Tensor | None:
    """Return a diagonal multiplier (m,) with its entries made positive, or None where the solver left nothing of use."""
    if entries is None:
        return None
    multiplier = torch.as_tensor(entries, dtype=torch.float64).flatten()
    if not bool(multiplier.isfinite().all()) or not bool((multiplier > 0).any()):
        return None
    return multiplier.clamp(min=LEAST * float(multiplier.max()))
