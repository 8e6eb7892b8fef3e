"""The loop that every fixed-point solver shares: it owns counting, stopping, safeguarding and the best state.

A solver only proposes the next state (``Solver.step``). The loop evaluates the map once per step, so every solver's
evaluations are counted alike, and it returns a state that it evaluated, so the residual it reports is that state's own.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from stabdeq.errors import ConfigError, SolverError
from stabdeq.solvers.solution import Map, Solution, Status, Trace, norm, relative_residual

DIVERGENCE = 1e6  # a state this many times larger than the first two has diverged
PATIENCE = 30  # evaluations without a better state after which a sample has stagnated
SETBACK = 10.0  # a residual this many times the best is a step back


class Solver(Protocol):
    """A rule that proposes the next state of z = f(z) from the states seen so far."""

    safeguarded: bool

    def init(self, z: Tensor) -> Any:
        """Return the solver's memory for states ``z`` (B, n)."""

    def step(self, z: Tensor, fz: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """Return the next state (B, n) and memory from the state ``z`` (B, n) and ``fz`` = f(z)."""

    def forget(self, memory: Any, samples: Tensor) -> Any:
        """Return the memory with the history of the ``samples`` (B,) bool removed."""


@dataclass
class _Progress:
    """Per-sample bookkeeping, all (B,) but the states (B, n)."""

    z: Tensor  # best state
    fz: Tensor  # the map there
    residual: Tensor  # residual there
    judged: Tensor  # residual there, or the largest of the batch where samples are coupled
    largest_allowed: Tensor  # norm beyond which a sample has diverged
    status: Tensor
    evaluations: Tensor
    since_better: Tensor  # evaluations since the best state
    restarts: Tensor
    picard_left: Tensor  # plain steps that the safeguard still prescribes


def solve(
    f: Map,
    z0: Tensor,
    solver: Solver,
    *,
    tolerance: float,
    max_evaluations: int,
    coupled: bool = False,
    trace: bool = False,
    throw: bool = False,
) -> Solution:
    """Find z = f(z) for each sample of ``z0`` (B, *) and say what happened.

    A sample stops once its residual is at most ``tolerance``. Where f couples the samples (``coupled``; BatchNorm on its
    own batch), all stop together, judged by the largest residual, since a sample held back would change its neighbours'
    equations. With ``throw``, raises SolverError where a sample did not converge. Raises ConfigError where the tolerance is
    below what the dtype resolves, or f changes shape or dtype.
    """
    _require_solvable(tolerance, z0)
    shape = z0.shape
    z = start = z0.flatten(1)
    memory = solver.init(z)
    progress = _start(z)
    residuals = []
    for count in range(1, max_evaluations + 1 if len(z) else 0):
        fz = _evaluate(f, z, shape)
        residual = relative_residual(z, fz)
        if trace:
            residuals.append(residual)
        if count == 1:
            progress.largest_allowed = DIVERGENCE * (1 + norm(z) + norm(fz).nan_to_num(posinf=0))
        # Far enough out any map looks solved: the residual is relative to a state that has run away.
        runaway = norm(z) > progress.largest_allowed
        judged = torch.where(runaway, torch.inf, residual)
        judged = judged.amax().expand_as(judged) if coupled else judged
        setback = _setback(progress, judged) & solver.safeguarded
        _record(progress, z, fz, residual, judged, tolerance)
        _stop_hopeless(progress, judged, runaway, solver.safeguarded)
        active = progress.status == Status.max_steps
        if not active.any():
            break
        z, memory = _advance(solver, progress, start, z, fz, memory, setback, active)
    met = progress.residual <= tolerance
    stuck = (progress.status == Status.max_steps) & (progress.since_better >= PATIENCE)
    solution = Solution(
        z=progress.z.view(shape),
        residual=progress.residual,
        status=torch.where(met, Status.converged, torch.where(stuck, Status.stagnated, progress.status)),
        evaluations=progress.evaluations,
        trace=Trace(torch.stack(residuals)) if residuals else None,
    )
    if throw and not bool(solution.converged.all()):
        raise SolverError(f"no equilibrium within {max_evaluations} evaluations: {solution.describe_failures()}")
    return solution


def _require_solvable(tolerance: float, z: Tensor) -> None:
    if z.dim() < 2:
        raise ConfigError(f"expected states of shape (B, n) or (B, *), not {tuple(z.shape)}: add a dimension")
    resolvable = 4 * torch.finfo(z.dtype).eps
    if not tolerance >= resolvable:
        raise ConfigError(
            f"tolerance {tolerance:g} is below what {z.dtype} resolves ({resolvable:.1e}): raise it, or use float64"
        )


def _evaluate(f: Map, z: Tensor, shape: torch.Size) -> Tensor:
    fz = f(z.view(shape))
    if fz.shape != shape or fz.dtype != z.dtype:
        raise ConfigError(
            f"the map must keep the state's shape and dtype {tuple(shape)} {z.dtype}: it returned {tuple(fz.shape)} {fz.dtype}"
        )
    return fz.flatten(1)


def _start(z: Tensor) -> _Progress:
    counter = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    infinite = torch.full((len(z),), torch.inf, dtype=z.dtype, device=z.device)
    return _Progress(
        z=z,
        fz=z,
        residual=infinite,
        judged=infinite,
        largest_allowed=infinite,
        status=torch.full_like(counter, Status.max_steps),
        evaluations=counter,
        since_better=counter,
        restarts=counter,
        picard_left=counter,
    )


def _setback(progress: _Progress, judged: Tensor) -> Tensor:
    """Return which active samples (B,) the solver has thrown far back, NaN included, or led nowhere."""
    proposed = (progress.status == Status.max_steps) & (progress.picard_left == 0)
    stuck = (progress.since_better > 0) & (progress.since_better % PATIENCE == 0)
    return proposed & (~(judged <= SETBACK * progress.judged) | stuck)


def _record(progress: _Progress, z: Tensor, fz: Tensor, residual: Tensor, judged: Tensor, tolerance: float) -> None:
    """Count the evaluation, keep the better states, and mark the converged."""
    active = progress.status == Status.max_steps
    better = active & (judged < progress.judged)
    progress.z = torch.where(better[:, None], z, progress.z)
    progress.fz = torch.where(better[:, None], fz, progress.fz)
    progress.residual = torch.where(better, residual, progress.residual)
    progress.judged = torch.where(better, judged, progress.judged)
    progress.since_better = torch.where(better, 0, progress.since_better + 1)
    progress.evaluations = progress.evaluations + active
    progress.status = torch.where(active & (judged <= tolerance), Status.converged, progress.status)


def _stop_hopeless(progress: _Progress, judged: Tensor, runaway: Tensor, safeguarded: bool) -> None:
    """Mark samples that returned NaN or ran away."""
    active = progress.status == Status.max_steps
    # A safeguarded solver is thrown back to its best state first: the map itself may be sound there.
    alone = active & ((progress.picard_left > 0) | progress.residual.isinf() | (not safeguarded))
    status = torch.where(alone & ~judged.isfinite(), Status.nan, progress.status)
    progress.status = torch.where(alone & runaway, Status.diverged, status)


def _advance(
    solver: Solver,
    progress: _Progress,
    start: Tensor,
    z: Tensor,
    fz: Tensor,
    memory: Any,
    setback: Tensor,
    active: Tensor,
) -> tuple[Tensor, Any]:
    """Return the next states: the solver's proposal, or a plain step where the safeguard prescribes one.

    A sample that is thrown back restarts from its best state, and one that sees no better state for long from the very
    start, with an empty history. It takes plain Picard steps, twice as many after every restart. So it does in the end
    what Picard does, and converges wherever Picard does.
    """
    proposal, memory = solver.step(z, fz, memory)
    plain = progress.picard_left > 0
    following = torch.where(plain[:, None], fz, proposal)
    stale = plain | setback
    if solver.safeguarded and bool(stale.any()):
        # The best state may lie where Picard cycles; the start does not, where Picard converges at all.
        again = torch.where((progress.since_better > PATIENCE)[:, None], start, progress.fz)
        following = torch.where(setback[:, None], again, following)
        memory = solver.forget(memory, stale)
        progress.restarts = progress.restarts + setback
        progress.picard_left = torch.where(setback, 2**progress.restarts, (progress.picard_left - 1).clamp(min=0))
    return torch.where(active[:, None], following, z), memory
