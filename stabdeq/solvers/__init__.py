"""Fixed-point solvers: one file each, over one shared loop."""

from stabdeq.config import SolverConfig
from stabdeq.solvers.anderson import Anderson
from stabdeq.solvers.broyden import Broyden
from stabdeq.solvers.fixed_point import Forward, Implicit, Unrolled, fixed_point
from stabdeq.solvers.loop import solve
from stabdeq.solvers.picard import Picard
from stabdeq.solvers.solution import Solution, Status, Trace, norm, relative_residual
from stabdeq.solvers.solver import Solver

__all__ = [
    "Anderson",
    "Broyden",
    "Forward",
    "Implicit",
    "Picard",
    "Solution",
    "Solver",
    "Status",
    "Trace",
    "Unrolled",
    "build_solver",
    "fixed_point",
    "norm",
    "relative_residual",
    "solve",
]


def build_solver(config: SolverConfig) -> Solver:
    """Return the solver that ``config`` names."""
    if config.name == "anderson":
        return Anderson(window=config.window, mixing=config.mixing)
    if config.name == "broyden":
        return Broyden()
    return Picard(mixing=config.mixing)
