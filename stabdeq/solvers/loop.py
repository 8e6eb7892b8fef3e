"""The loop that every fixed-point solver shares: it owns counting, stopping, safeguarding and the best state.

A solver only proposes the next state (``Solver.step``). The loop evaluates the map once per step, so every solver's
evaluations are counted alike, and it returns a state that it evaluated, so the residual it reports is that state's own.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from stabdeq.errors import ConfigError, SolverError
from stabdeq.solvers.solution import Solution, Status, Trace, accumulation_dtype, norm

DIVERGENCE = 1e6  # a state this many times larger than the first two has diverged
PATIENCE = 30  # evaluations without a better state after which a sample has stagnated
SETBACK = 100.0  # a residual this many times the best is a step back; Broyden on linear maps rises tenfold on its way
COUPLED_SETBACK = 10.0  # the same where samples are coupled: a history that sees one sample alone is less to be trusted
TILE = 2**16  # state components solved at a time on a CPU: with their history, they stay in its cache
FEW = 2**15  # state components of a batch that is too small for anyone to leave
CROWD = 0.5  # share of samples still at work at which the others leave the batch


class Solver(Protocol):
    """A rule that proposes the next state of z = f(z) from the states seen so far."""

    @property
    def safeguarded(self) -> bool:
        """Whether the loop throws samples back to a better state where the rule leads them astray."""
        ...

    def init(self, z: Tensor) -> Any:
        """Return the solver's memory for states ``z`` (B, n)."""

    def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """Return the next state (B, n) and memory from the state ``z`` (B, n) and ``field`` = f(z) - z; it changes neither."""

    def forget(self, memory: Any, samples: Tensor) -> Any:
        """Return the memory with the history of the ``samples`` (B,) bool removed."""

    def select(self, memory: Any, samples: Tensor) -> Any:
        """Return the memory of the ``samples`` (K,) alone, given by their positions."""


class _Best(NamedTuple):
    """The best state of each sample."""

    z: Tensor  # (B, n)
    residual: Tensor  # (B,) there
    judged: Tensor  # (B,) residual there, or the largest of the batch where samples are coupled


class _Step(NamedTuple):
    """What one evaluation of the map brought; all (B,) but ``fz`` and ``proposal``, the next state, (B, n)."""

    fz: Tensor
    residual: Tensor
    better: Tensor  # bool: the best state so far
    arrived: Tensor  # bool: within the tolerance
    astray: Tensor  # bool: far behind the best state, or not finite
    events: Tensor  # (2,) bool: has any arrived, has any gone astray
    proposal: Tensor


@torch.no_grad()
def solve(
    f: Callable[..., Tensor],
    z0: Tensor,
    solver: Solver,
    *,
    tolerance: float,
    max_evaluations: int,
    context: Sequence[Tensor] = (),
    coupled: bool = False,
    compiled: bool = False,
    trace: bool = False,
    throw: bool = False,
) -> Solution:
    """Find z = f(z, *context) for each sample of ``z0`` (B, *) and say what happened, without recording gradients.

    A sample stops once its residual is at most ``tolerance``. ``context`` holds what f reads beside the state, a row (B, *)
    for each sample. Where it is given, f is called on any of the samples: those that have stopped leave the batch, and a
    large batch is solved in parts that fit a CPU's cache.

    Where f couples the samples (``coupled``; BatchNorm on its own batch), all stop together, judged by the largest residual,
    since a sample held back would change its neighbours' equations, and the batch stays whole; so it does for a ``trace``.
    ``compiled`` runs each iteration, f included, through torch.compile: several times faster, after half a minute of
    compilation for every new f.

    With ``throw``, raises SolverError where a sample did not converge. Raises ConfigError where the tolerance is below what
    the dtype resolves, or f changes shape or dtype, or f is a module and changes its own buffers.
    """
    _require_solvable(tolerance, z0, context)
    separable = bool(context) and not coupled and not trace
    size = len(z0)
    if separable and z0.device.type == "cpu":
        size = max(1, TILE // max(1, z0[:1].numel()))
    limit = torch.tensor(tolerance, dtype=torch.float64, device=z0.device)
    parts = []
    with unchanged_buffers(f):
        for start in range(0, max(1, len(z0)), max(1, size)):
            z, *rows = (tensor[start : start + size] for tensor in (z0, *context))
            if compiled:  # a view's offset into its storage would be compiled for anew
                z, *rows = (tensor.clone() for tensor in (z, *rows))
            problem = _Problem(f, z0.shape[1:], tuple(rows), limit, coupled)
            run = _Run(problem, z.flatten(1), solver, separable=separable, compiled=compiled)
            parts.append(run.solve(max_evaluations, trace))
    solution = parts[0] if len(parts) == 1 else _concatenate(parts)
    if throw and not bool(solution.converged.all()):
        raise SolverError(f"no equilibrium within {max_evaluations} evaluations: {solution.describe_failures()}")
    return replace(solution, z=solution.z.view(z0.shape))


@dataclass(frozen=True)
class _Problem:
    """z = f(z, *context) for the samples in the batch, states of ``shape`` (*)."""

    f: Callable[..., Tensor]
    shape: torch.Size
    context: tuple[Tensor, ...]
    tolerance: Tensor  # () so that compiled code serves every tolerance
    coupled: bool

    def evaluate(self, z: Tensor) -> Tensor:
        """Return f(z) flattened, (B, n) -> (B, n)."""
        fz = self.f(z.view(len(z), *self.shape), *self.context)
        if fz.dtype != z.dtype or fz.shape[1:] != self.shape or len(fz) != len(z):
            raise ConfigError(
                f"the map must keep the state's shape and dtype {(len(z), *self.shape)} {z.dtype}: "
                f"it returned {tuple(fz.shape)} {fz.dtype}"
            )
        return fz.flatten(1)


def _advance(
    problem: _Problem, solver: Solver, z: Tensor, allowed: Tensor, active: Tensor, best: _Best, memory: Any
) -> tuple[_Step, _Best, Any]:
    """Evaluate the map at ``z`` (B, n), keep the better states, and ask the solver for the next.

    No value is looked at on the host, so that all of it can be compiled.
    """
    fz = problem.evaluate(z)
    field = fz - z
    dtype = best.judged.dtype
    size = torch.linalg.vector_norm(z, dim=1, dtype=dtype)
    residual = torch.linalg.vector_norm(field, dim=1, dtype=dtype) / size.clamp(min=1)
    # Far enough out any map looks solved: the residual is relative to a state that has run away.
    judged = residual.masked_fill(size > allowed, torch.inf)
    if problem.coupled:
        judged = judged.amax().expand_as(judged)
    setback = COUPLED_SETBACK if problem.coupled else SETBACK
    astray = active & ~(judged <= setback * best.judged)
    better = active & (judged < best.judged)
    arrived = better & (judged <= problem.tolerance)
    closest = torch.where(better, judged, best.judged)
    best = _Best(
        z=torch.where(better[:, None], z, best.z),
        residual=torch.where(better, residual, best.residual) if problem.coupled else closest,
        judged=closest,
    )
    proposal, memory = solver.step(z, field, memory)
    events = torch.stack((arrived.any(), astray.any()))
    return _Step(fz, residual, better, arrived, astray, events, proposal), best, memory


@cache
def _compiled_advance(solver: type, map_code: Hashable) -> Callable[..., tuple[_Step, _Best, Any]]:
    """Return ``_advance`` compiled for one kind of solver and map."""
    # What torch.compile has made is kept with the code object, eight versions of it: each pair gets a code object of its own.
    code = _advance.__code__.replace(co_name=f"_advance_by_{solver.__name__.lower()}")
    return torch.compile(FunctionType(code, globals()))


class _Run:
    """The solve of one batch. Tensors are (B,), of the samples still in it, but for the states (B, n)."""

    def __init__(self, problem: _Problem, z: Tensor, solver: Solver, *, separable: bool, compiled: bool) -> None:
        self.problem, self.solver, self.separable = problem, solver, separable
        code = getattr(problem.f, "__code__", type(problem.f))
        self.advance = _compiled_advance(type(solver), code) if compiled else _advance
        self.z = self.start = z
        self.memory = solver.init(z)
        counter = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        self.active = counter == 0
        self.status = counter + Status.max_steps
        self.evaluations = counter
        self.found_at = counter  # the evaluation that found the best state
        self.restarts = counter
        self.picard_left = counter  # plain steps that the safeguard still prescribes
        self.led = False  # whether it prescribes any
        self.rows: Tensor | None = None  # places in the batch that was asked for, once it is no longer whole
        self.gone: list[tuple[Tensor, ...]] = []
        dtype = accumulation_dtype(z.dtype)
        # Before any state is known, one that is not finite counts as far behind.
        unknown = torch.full((len(z),), torch.finfo(dtype).max / (2 * SETBACK), dtype=dtype, device=z.device)
        # No tensor stands here twice that will not later: compiled code is made for one pattern of aliases.
        self.best = _Best(z.clone(), unknown.clone() if problem.coupled else unknown, unknown)
        self.allowed = torch.full_like(unknown, torch.inf)  # norm beyond which a sample has diverged

    def solve(self, max_evaluations: int, trace: bool) -> Solution:
        """Iterate until all samples have stopped."""
        residuals = []
        for count in range(1, max_evaluations + 1 if len(self.z) else 0):
            step, self.best, self.memory = self.advance(
                self.problem, self.solver, self.z, self.allowed, self.active, self.best, self.memory
            )
            if trace:
                residuals.append(step.residual)
            if count == 1:
                self.allowed = _allowed(self.z, step.fz)
            self.found_at = self.found_at.masked_fill(step.better, count)
            arrived, astray = step.events.tolist()
            if arrived:
                self._stop(step.arrived, Status.converged, count)
            if astray:
                self._stop_hopeless(step, count)
            if count == max_evaluations or ((arrived or astray) and not bool(self.active.any())):
                break
            self.z = self._next(step, count, astray)
            if (arrived or astray) and self.separable:
                self._thin_out()
        self.evaluations = torch.where(self.active, max_evaluations, self.evaluations)
        self._explain_failures(max_evaluations)
        return self._solution(Trace(torch.stack(residuals)) if residuals else None)

    def _stop(self, samples: Tensor, status: Status, count: int) -> None:
        self.status = self.status.masked_fill(samples, status)
        self.evaluations = self.evaluations.masked_fill(samples, count)
        self.active = self.active & ~samples

    def _stop_hopeless(self, step: _Step, count: int) -> None:
        """Stop samples that returned NaN or ran away."""
        # A safeguarded solver is thrown back to its best state first: the map itself may be sound there.
        alone = self.active & ((self.picard_left > 0) | (self.found_at == 0) | (not self.solver.safeguarded))
        runaway = norm(self.z) > self.allowed
        broken = ~step.residual.isfinite()
        if self.problem.coupled:
            runaway, broken = runaway.any(), broken.any()
        self._stop(alone & runaway, Status.diverged, count)
        self._stop(alone & broken & ~runaway, Status.nan, count)

    def _next(self, step: _Step, count: int, astray: bool) -> Tensor:
        """Return the next states: the solver's proposal, or a plain step where the safeguard prescribes one.

        A sample that is thrown back restarts from its best state, and one that sees no better state for long from the
        very start, with an empty history. It takes plain Picard steps, twice as many after every restart: one that keeps
        failing does in the end what Picard does.
        """
        if not (self.solver.safeguarded and (astray or self.led or count >= PATIENCE)):
            return step.proposal
        waiting = count - self.found_at
        stuck = (waiting > 0) & (waiting % PATIENCE == 0)
        plain = self.picard_left > 0
        setback = self.active & ~plain & (step.astray | stuck)
        stale = plain | setback
        self.led = bool(stale.any())
        if not self.led:
            return step.proposal
        # The best state may lie where Picard cycles; the start does not, where Picard converges from it.
        again = torch.where((waiting >= PATIENCE)[:, None], self.start, self.best.z)
        self.memory = self.solver.forget(self.memory, stale)
        self.restarts = self.restarts + setback
        # One step more: the first evaluation is at a state seen before.
        self.picard_left = torch.where(setback, 1 + 2**self.restarts, (self.picard_left - 1).clamp(min=0))
        return torch.where(setback[:, None], again, torch.where(plain[:, None], step.fz, step.proposal))

    def _thin_out(self) -> None:
        """Let the samples that have stopped leave, where that saves more than it costs."""
        kept = self.active.nonzero().squeeze(1)
        if self.z.numel() < FEW or not 0 < len(kept) <= CROWD * len(self.z):
            return
        self._leave((~self.active).nonzero().squeeze(1))
        self.rows = self._rows()[kept]
        self.memory = self.solver.select(self.memory, kept)
        self.problem = replace(self.problem, context=tuple(rows[kept] for rows in self.problem.context))
        z, judged = self.best.z[kept], self.best.judged[kept]
        self.best = _Best(z, self.best.residual[kept] if self.problem.coupled else judged, judged)
        for name in ("z", "start", "allowed", "active", "status", "evaluations", "found_at", "restarts", "picard_left"):
            setattr(self, name, getattr(self, name)[kept])

    def _explain_failures(self, max_evaluations: int) -> None:
        """Tell stagnation and noise from a mere lack of evaluations: where a sample failed, the map is asked twice more."""
        if not bool(self.active.any()):
            return
        stuck = self.active & (max_evaluations - self.found_at >= PATIENCE)
        self.status = torch.where(stuck, Status.stagnated, self.status)
        first, second = (self.problem.evaluate(self.best.z) for _ in range(2))
        noise = norm(first - second) / norm(self.best.z).clamp(min=1)
        roundoff = 1000 * torch.finfo(self.z.dtype).eps  # that of sums taken in another order, on a GPU
        noisy = self.active & (self.found_at > 0) & (noise > roundoff) & (noise > 0.1 * self.best.residual)
        self.status = torch.where(noisy, Status.noisy, self.status)

    def _rows(self) -> Tensor:
        return torch.arange(len(self.z), device=self.z.device) if self.rows is None else self.rows

    def _leave(self, samples: Tensor | slice) -> None:
        # Where no state was finite, nothing is known of the start's residual.
        residual = torch.where(self.found_at > 0, self.best.residual, torch.inf)
        found = (self._rows(), self.best.z, residual, self.status, self.evaluations)
        self.gone.append(tuple(tensor[samples] for tensor in found))

    def _solution(self, trace: Trace | None) -> Solution:
        """Put the samples back in the order that was asked for."""
        self._leave(slice(None))
        rows, z, residual, status, evaluations = (
            tensors[0] if len(tensors) == 1 else torch.cat(tensors) for tensors in zip(*self.gone, strict=True)
        )
        order = slice(None) if self.rows is None else rows.argsort()
        return Solution(z[order], residual[order], status[order], evaluations[order], trace)


def _require_solvable(tolerance: float, z: Tensor, context: Sequence[Tensor]) -> None:
    if z.dim() < 2:
        raise ConfigError(f"expected states of shape (B, n) or (B, *), not {tuple(z.shape)}: add a dimension")
    if not z.is_floating_point():
        raise ConfigError(f"expected states of a floating-point dtype, not {z.dtype}")
    resolvable = 4 * torch.finfo(z.dtype).eps
    if not tolerance >= resolvable:
        raise ConfigError(
            f"tolerance {tolerance:g} is below what {z.dtype} resolves ({resolvable:.1e}): raise it, or use float64"
        )
    for rows in context:
        if rows.dim() < 1 or len(rows) != len(z):
            raise ConfigError(
                f"expected a row of context for each of {len(z)} samples, not a shape {tuple(rows.shape)}"
            )


@contextmanager
def unchanged_buffers(f: object, name: str = "the map") -> Iterator[None]:
    """Raise ConfigError where the module f changes its own buffers: BatchNorm's running statistics, at every evaluation."""
    before = {name: buffer.clone() for name, buffer in _buffers(f).items()}
    yield
    # Compared by value: not every kernel that writes to a buffer counts as a change of its version.
    after = _buffers(f)
    changed = [name for name in before if name not in after or not same(before[name], after[name])]
    if changed:
        raise ConfigError(
            f"evaluating {name} changes the buffer {', '.join(changed)}: a solver evaluates it at many states on the way, "
            "so let it keep them fixed, and update them once, at the equilibrium"
        )


def same(a: Tensor, b: Tensor) -> bool:
    """Return whether both hold the same values, NaN being the same as NaN."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _buffers(f: object) -> dict[str, Tensor]:
    return dict(f.named_buffers()) if isinstance(f, nn.Module) else {}


def _allowed(z: Tensor, fz: Tensor) -> Tensor:
    """Return the norm (B,) beyond which a sample has diverged, from its first state and the map there, (B, n)."""
    dtype = accumulation_dtype(z.dtype)
    first = torch.linalg.vector_norm(z, dim=1, dtype=dtype) + torch.linalg.vector_norm(fz, dim=1, dtype=dtype)
    return (DIVERGENCE * (1 + first.nan_to_num(posinf=0))).clamp(max=torch.finfo(dtype).max ** 0.5)


def _concatenate(parts: list[Solution]) -> Solution:
    z, residual, status, evaluations = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("z", "residual", "status", "evaluations")
    )
    return Solution(z=z, residual=residual, status=status, evaluations=evaluations)
