"""Fixed-point solvers: one file each, over one shared loop."""

from stabdeq.config import SolverConfig
from stabdeq.config.by_name import make
from stabdeq.registry import SOLVERS
from stabdeq.solvers.anderson import Anderson
from stabdeq.solvers.broyden import Broyden
from stabdeq.solvers.fixed_point import Forward, Implicit, Unrolled, fixed_point
from stabdeq.solvers.jacobian import squared_jacobian_norm
from stabdeq.solvers.loop import solve
from stabdeq.solvers.picard import Picard
from stabdeq.solvers.solution import Solution, Status, Trace, norm, relative_residual
from stabdeq.solvers.solver import Solver, as_solver
from stabdeq.solvers.squarem import Squarem

__all__ = [
    "Anderson",
    "Broyden",
    "Forward",
    "Implicit",
    "Picard",
    "Solution",
    "Solver",
    "Squarem",
    "Status",
    "Trace",
    "Unrolled",
    "build_solver",
    "fixed_point",
    "norm",
    "relative_residual",
    "solve",
    "squared_jacobian_norm",
]


def build_solver(config: SolverConfig) -> Solver:
    """Return the solver that ``config`` names; raises ConfigError where its maker refuses its settings, or makes no solver."""
    return as_solver(make(SOLVERS, config.name, config.of_the_solver()), config.name)
