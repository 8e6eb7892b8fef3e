"""Who takes part: ours, TorchDEQ and SciPy, each as a run that returns an equilibrium, or one with its gradients."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.optimize
import torch
import torchdeq
from torch import Tensor, nn
from torchdeq.solver import get_solver

from benchmarks.problems import Problem
from stabdeq.config import SolverConfig, parse_config
from stabdeq.solvers import relative_residual

MAX_EVALUATIONS = 300
SCALES = (1.0, 0.5, 0.2, 0.1)  # of the tolerance: the loosest that is truly met is raced
DEFAULT_STEPS = 50  # TorchDEQ's own limit; its Broyden's memory grows with it, so it is raised only where needed
SMALL_LAM = 1e-8  # TorchDEQ's Anderson, where its default regularisation of 1e-4 cannot reach the tolerance


@dataclass
class Outcome:
    """Equilibria ``z`` (B, *), calls of the cell, whether the solver says it converged, and gradients if asked for."""

    z: Tensor
    evaluations: int
    converged: bool
    gradients: tuple[Tensor, ...] = ()  # by h, then by the cell's parameters
    adjoint_evaluations: int | None = None


Run = Callable[[], Outcome]
Guest = Callable[[Callable[[Tensor], Tensor], Tensor, float, int], Tensor]  # f, z0, tolerance, most calls of f -> z
Maker = Callable[[Problem, str, "Setting"], Run]  # problem, solver, setting


@dataclass(frozen=True)
class Setting:
    """What a contestant is told: its own tolerance, its step limit and further options."""

    tolerance: float
    steps: int = MAX_EVALUATIONS
    options: dict[str, Any] = field(default_factory=dict)


def true_residual(cell: nn.Module, h: Tensor, z: Tensor) -> float:
    """Return the largest residual of the batch, measured afresh with the plain cell."""
    with torch.no_grad():
        residual = relative_residual(z, cell(z, h)).amax().item()
    return residual if np.isfinite(residual) else float("inf")


def plain_settings(tolerance: float) -> list[list[Setting]]:
    """Return the settings to try, in groups: where one does not converge, tighter ones of its group are hopeless."""
    return [[Setting(tolerance * scale) for scale in SCALES]]


def our_settings(tolerance: float, *, compiled: bool) -> list[list[Setting]]:
    """Return the settings to try: those of TorchDEQ's tolerances, the map's value at the state that was judged returned, as there."""
    options = {"compiled": compiled, "returns": "image"}
    return [[Setting(tolerance * scale, options=options) for scale in (2.0, *SCALES)]]


def torchdeq_settings(tolerance: float, solver: str) -> Iterator[list[Setting]]:
    """Yield TorchDEQ's settings to try: its defaults, then more steps, then less regularisation."""
    for options in [{}, {"lam": SMALL_LAM}] if solver == "anderson" else [{}]:
        for steps in (DEFAULT_STEPS, MAX_EVALUATIONS):
            # Its Anderson returns the map's value at the state that it judges: closer than it says.
            yield [Setting(tolerance * scale, steps, options) for scale in (2.0, *SCALES)]


def ours(problem: Problem, solver: str, setting: Setting) -> Run:
    """Return our solve; the option ``compiled`` says in which mode."""
    solve = problem.prepare(_our_config(solver, setting))
    h = problem.h

    def run() -> Outcome:
        with torch.no_grad():
            solution = solve(h)
        return Outcome(solution.z, int(solution.evaluations.max()), bool(solution.converged.all()))

    return run


def our_gradient(problem: Problem, solver: str, setting: Setting) -> Run:
    """Return our solve with the gradients of a random linear loss."""
    solve = problem.prepare(_our_config(solver, setting))
    h, loss_weight = problem.h.clone().requires_grad_(), random_like(problem.h)
    parameters = tuple(problem.cell.parameters())

    def run() -> Outcome:
        solution = solve(h)
        gradients = torch.autograd.grad(solution.z, (h, *parameters), loss_weight)
        evaluations = [int(each.evaluations.max()) for each in (solution, *solution.adjoint)]
        return Outcome(solution.z.detach(), evaluations[0], bool(solution.converged.all()), gradients, evaluations[1])

    return run


def _our_config(solver: str, setting: Setting) -> SolverConfig:
    settings = {"name": solver, "tolerance": setting.tolerance, "max_evaluations": setting.steps, **setting.options}
    return parse_config(SolverConfig, settings, "the setting")


class Counted:
    """A cell with fixed features that counts its calls."""

    def __init__(self, cell: nn.Module, h: Tensor) -> None:
        self.cell, self.h, self.calls = cell, h, 0

    def __call__(self, z: Tensor) -> Tensor:
        """Return f(z)."""
        self.calls += 1
        return self.cell(z, self.h)


def theirs(problem: Problem, solver: str, setting: Setting) -> Run:
    """Return TorchDEQ's solve, by its solver function itself."""
    find = get_solver(solver)
    start = torch.zeros_like(problem.h)

    def run() -> Outcome:
        f = Counted(problem.cell, problem.h)
        with torch.no_grad():
            z, _, info = find(
                f, start, max_iter=setting.steps, tol=setting.tolerance, stop_mode="rel", **setting.options
            )
        return Outcome(z, f.calls, bool(info["rel_lowest"].max() < setting.tolerance))

    return run


def their_gradient(problem: Problem, solver: str, setting: Setting) -> Run:
    """Return TorchDEQ's solve with implicit differentiation, the same solver and tolerance in both directions."""
    deq = their_deq(solver, setting)
    h, loss_weight = problem.h.clone().requires_grad_(), random_like(problem.h)
    start, parameters = torch.zeros_like(problem.h), tuple(problem.cell.parameters())

    def run() -> Outcome:
        f, adjoints = Counted(problem.cell, h), []
        (z,), info = deq(f, start, solver_kwargs=setting.options, backward_writer=adjoints.append)
        gradients = torch.autograd.grad(z, (h, *parameters), loss_weight)
        converged = bool(info["rel_lowest"].max() < setting.tolerance)
        return Outcome(z.detach(), f.calls, converged, gradients, int(adjoints[0]["nstep"].max()))

    return run


def their_deq(solver: str, setting: Setting) -> nn.Module:
    """Return TorchDEQ's layer with implicit differentiation."""
    return torchdeq.get_deq(
        core="indexing",
        ift=True,
        f_solver=solver,
        b_solver=solver,
        f_max_iter=setting.steps,
        b_max_iter=setting.steps,
        f_tol=setting.tolerance,
        b_tol=setting.tolerance,
        f_stop_mode="rel",
        b_stop_mode="rel",
    ).train()


def scipys(problem: Problem, solver: str, setting: Setting) -> Run:
    """Return SciPy's solve of a single sample, begun like ours at the inverse Jacobian -1."""
    find = {"anderson": scipy.optimize.anderson, "broyden": scipy.optimize.broyden1}[solver]
    start = np.zeros(problem.h.shape, dtype=np.float32)

    def run() -> Outcome:
        f = Counted(problem.cell, problem.h)

        def field(z: np.ndarray) -> np.ndarray:
            state = torch.from_numpy(z).float()
            return (f(state) - state).numpy()

        with torch.no_grad():
            try:
                z = find(field, start, alpha=1, f_tol=setting.tolerance, tol_norm=np.linalg.norm, maxiter=setting.steps)
            except scipy.optimize.NoConvergence as failure:
                return Outcome(torch.from_numpy(failure.args[0]).float(), f.calls, False)
        return Outcome(torch.from_numpy(z).float(), f.calls, True)

    return run


def guest(find: Guest) -> Maker:
    """Return the maker of a solver of somebody's own; which of our methods it is raced against is nothing to it."""

    def make(problem: Problem, _: str, setting: Setting) -> Run:
        start = torch.zeros_like(problem.h)

        def run() -> Outcome:
            f = Counted(problem.cell, problem.h)
            with torch.no_grad():
                z = find(f, start.clone(), setting.tolerance, setting.steps)
            return Outcome(z, f.calls, converged=f.calls < setting.steps)

        return run

    return make


def random_like(h: Tensor) -> Tensor:
    """Return the weights of a linear loss, normal, always the same."""
    return torch.randn(h.shape, generator=torch.Generator().manual_seed(2)).to(h)
