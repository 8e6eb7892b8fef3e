"""The loop that every fixed-point solver shares: it owns counting, stopping, safeguarding and the best state.

A solver only proposes the next state (``Solver.step``). The loop evaluates the map once per step, so every solver's
evaluations are counted alike, and it returns a state that it evaluated, so the residual it reports is that state's own.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from stabdeq.errors import ConfigError, SolverError
from stabdeq.shared_batch import is_any
from stabdeq.solvers.compiled import RunAhead, compiled_for
from stabdeq.solvers.iteration import PATIENCE, Problem, State, lie_channels_last, observe, require_tensors
from stabdeq.solvers.solution import Returned, Solution, Status, Trace, norm, relative_residual
from stabdeq.solvers.solver import Adapted, Solver, as_solver

TILE = 2**18  # state components solved at a time on a CPU: with their history, they stay in its cache
FEW = 2**15  # state components of a batch below which samples that have stopped stay in it
CROWD = 0.5  # share of samples still at work at which the others leave the batch, where that pays


@torch.no_grad()
def solve(
    f: Callable[..., Tensor],
    z0: Tensor,
    solver: Solver,
    *,
    tolerance: float,
    max_evaluations: int,
    context: Sequence[Tensor] = (),
    parameters: Sequence[Tensor] = (),
    coupled: bool = False,
    compiled: bool = False,
    trace: bool = False,
    throw: bool = False,
    returns: Returned = "state",
) -> Solution:
    """Find z = f(z, *context, *parameters) for each sample of ``z0`` (B, *) and say what happened, without recording gradients.

    A sample stops once its residual is at most ``tolerance``, and not by its state's growth alone. f takes a state and returns
    one tensor, the next; it may write into the state it is given, a copy, but into nothing else. ``context`` holds what f reads
    beside the state, a row (B, *) for each sample. Where it is given, f is called on any of the samples: those that have stopped
    leave the batch, and a large batch is solved in parts that fit a CPU's cache. ``parameters`` are tensors that f reads for all
    samples alike. Where ``z0`` (B, C, H, W) lies channels last in memory, so do all states: convolutions are faster so.

    Where f couples the samples (``coupled``; BatchNorm on its own batch), all stop together, judged by the largest residual,
    since a sample held back would change its neighbours' equations, and the batch stays whole; so it does for a ``trace``.
    Otherwise a sample that has arrived waits at its state for the others, so that the last evaluation is of all of them: where
    it finds another residual, beyond the tolerance, f couples the samples without being said to, and these are ``coupled``,
    not converged. Where the batch did not stay whole, one evaluation of all samples follows for this.
    ``compiled`` runs the iteration, f included, through torch.compile, many evaluations in one call: several times faster,
    after ten to thirty seconds of compilation for every new f and kind of batch. A ``trace`` is not compiled.

    A sample that converged has the state that met the tolerance as its result, or with ``returns="image"`` f of that state, at no
    evaluation more, as TorchDEQ's Anderson returns it: where f contracts at the rate c, the image's own residual, which nobody
    measured, is c times the one reported.

    ``solver`` is a ``Solver``, or any object with its ``init``, ``step``, ``forget``, ``select`` and ``safeguarded``.

    With ``throw``, raises SolverError where a sample did not converge. Raises ConfigError where the tolerance is below what
    the dtype resolves, or the states are no tensor, or f changes shape or dtype, or returns no tensor, or f is a module and
    changes its own buffers, or f writes into its context or parameters, or ``solver`` is none.
    """
    require_tensors(z0, context)
    rule = as_solver(solver)
    shared = tuple(tensor.detach() for tensor in parameters)
    _require_solvable(tolerance, z0, context)
    separable = bool(context) and not coupled and not trace
    size = len(z0)
    if separable and z0.device.type == "cpu":
        size = max(1, TILE // max(1, z0[:1].numel()))
    limit = torch.tensor(tolerance, dtype=torch.float64, device=z0.device)
    images = _is_image(returns)
    whole = Problem(f, z0.shape[1:], tuple(context), shared, limit, coupled, lie_channels_last(z0), images)
    parts, apart, image = [], False, None
    with unchanged_buffers(f):
        for start in range(0, max(1, len(z0)), max(1, size)):
            z, *rows = (tensor[start : start + size] for tensor in (z0, *context))
            if compiled:  # a view's offset into its storage would be compiled for anew
                z, *rows = (tensor.clone() for tensor in (z, *rows))
            problem = replace(whole, context=tuple(rows))
            options = {"separable": separable, "in_parts": size < len(z0), "compiled": compiled and not trace}
            run = _Run(problem, problem.flat(z), rule, **options)
            parts.append(run.solve(max_evaluations, trace))
            image = run.image
            apart = apart or run.is_apart or (images and bool(run.gone))
            whole.spares_state = run.problem.spares_state
        solution = parts[0] if len(parts) == 1 else _concatenate(parts)
        if not coupled and (apart or len(parts) > 1):
            solution, image = _judged_together(whole, solution)
    if images and image is not None:
        solution = replace(solution, z=torch.where(solution.converged[:, None], image, solution.z))
    if throw and not bool(solution.converged.all()):
        raise SolverError(f"no equilibrium within {max_evaluations} evaluations: {solution.describe_failures()}")
    return replace(solution, z=whole.shaped(solution.z))


class _Run:
    """The solve of one batch. Tensors are (B,), of the samples still in it, but for the states (B, n)."""

    def __init__(
        self, problem: Problem, z: Tensor, solver: Solver, *, separable: bool, in_parts: bool, compiled: bool
    ) -> None:
        self.problem, self.solver, self.separable = problem, solver, separable
        self.compiled = compiled_for(*_kind(solver, problem)) if compiled else None
        self.start = z
        counters = torch.zeros(4, len(z), dtype=torch.int64, device=z.device)
        self.status, self.evaluations, self.restarts, self.picard_left = counters.unbind()
        self.led = False  # whether the safeguard prescribes plain steps, ``picard_left`` for each sample
        self.look_at = PATIENCE  # the evaluation before which no sample is stuck
        self.rows: Tensor | None = None  # places in the batch that was asked for, once it is no longer whole
        self.gone: list[tuple[Tensor, ...]] = []
        # Rows that must have been evaluated in vain before samples leave: as many as leaving costs, which is one evaluation of all
        # at the end. So at most twice as many are as had to be, however late the last arrive.
        self.price = 0 if in_parts else len(z)  # 0 where all are evaluated at the end in any case

    @cached_property
    def state(self) -> State:
        """Where the solve stands; at first before any evaluation, where compiled code has not begun by itself."""
        return State.start(self.start, self.solver.init(self.start), images=self.problem.images)

    def solve(self, max_evaluations: int, trace: bool) -> Solution:
        """Iterate until all samples have stopped."""
        residuals = []
        count, working = 0, len(self.start)
        while working and count < max_evaluations:
            if self.compiled and not self.led:
                count, astray, working = self._run_ahead(self.compiled, count, max_evaluations)
            else:
                count, astray, working = self._step(count + 1, working)
            if trace:
                residuals.append(self.state.residual)
            if astray:
                self._stop_hopeless(count)
                working = int(self.state.active.count_nonzero())
            if working and count < max_evaluations:
                self._lead(count, astray)
                if working <= self._crowd and int(self.state.idle(count)) >= self.price:
                    self._thin_out()
        if working:
            self._explain_failures(max_evaluations)
        return self._solution(Trace(torch.stack(residuals)) if residuals else None)

    def _step(self, count: int, working: int) -> tuple[int, int, int]:
        """Evaluate for the ``count``-th time, and step; return ``count``, how many samples are astray, and how many at work."""
        astray = 0
        state, field = observe(self.problem, self.state, count)
        self.state = state  # what it holds no more is free during the step
        if state.best is not state.z:  # it is no better one of every sample at work
            astray, working = torch.stack((state.astray(self.problem.coupled), state.active)).sum(1).tolist()
        if working:
            z, memory = self.solver.step(state.z, field, self._memory(state))
            if self.led:
                z = torch.where((self.picard_left > 0)[:, None], state.z + field, z)
            if working < len(z):  # those that have arrived wait for the others, and are evaluated with them at the end
                z = torch.where(state.active[:, None], z, state.best)
            self.state = state._replace(z=z, memory=memory)
        return count, astray, working

    def _run_ahead(self, run: RunAhead, count: int, max_evaluations: int) -> tuple[int, int, int]:
        """Do the same in compiled code, until a sample or the memory needs the host."""
        start = self.state._replace(memory=self._memory(self.state)) if count else self.start
        limits = torch.tensor((count, max_evaluations, self._crowd, self.price), device=self.start.device)
        before = self.problem.versions()
        self.state, progress = run(self.problem, self.solver, start, limits)
        self.problem.require_unwritten(before)
        count, astray, working = progress.tolist()
        return count, astray, working

    def _memory(self, state: State) -> Any:
        """Return the solver's memory with room for a step, which compiled code cannot make."""
        return self.solver.reserve(state.memory) if self.compiled else state.memory

    @property
    def _crowd(self) -> int:
        """How many samples still at work the others leave: 0 where it does not pay."""
        if not self.separable or self.start.numel() < FEW or (self.compiled and len(self.start) <= 2):
            return 0
        return int(CROWD * len(self.start))

    def _stop(self, samples: Tensor, status: Status, count: int) -> None:
        self.status = self.status.masked_fill(samples, status)
        self.evaluations = self.evaluations.masked_fill(samples, count)
        self.state = self.state._replace(active=self.state.active & ~samples)

    def _stop_hopeless(self, count: int) -> None:
        """Stop samples that returned NaN or ran away."""
        state = self.state
        # A safeguarded solver is thrown back to its best state first: the map itself may be sound there.
        alone = state.active & ((self.picard_left > 0) | (state.found_at == 0) | (not self.solver.safeguarded))
        runaway, broken = state.runaway, ~state.residual.isfinite()
        if self.problem.coupled:
            runaway, broken = is_any(runaway), is_any(broken)
        self._stop(alone & runaway, Status.diverged, count)
        self._stop(alone & broken & ~runaway, Status.nan, count)

    def _lead(self, count: int, astray: int) -> None:
        """Prescribe the next states where the solver's proposals are not to be trusted: the safeguard.

        A sample that is thrown back restarts from its best state, and one that sees no better state for long from the
        very start, with an empty history. It takes plain Picard steps, twice as many after every restart: one that keeps
        failing does in the end what Picard does.
        """
        if not (self.solver.safeguarded and (astray or self.led or count >= self.look_at)):
            return
        state = self.state
        waiting = count - state.found_at
        self.look_at = count + PATIENCE - int((waiting % PATIENCE).masked_fill(~state.active, 0).max())
        plain = state.active & (self.picard_left > 0)
        setback = state.active & ~plain & (state.astray(self.problem.coupled) | state.stuck(count))
        stale = plain | setback
        self.led = bool(stale.any())
        if not self.led:
            return
        # The best state may lie where Picard cycles; the start does not, where Picard converges from it.
        again = torch.where((waiting >= PATIENCE)[:, None], self.start, state.best)
        z = torch.where(setback[:, None], again, state.z)
        self.state = state._replace(z=z, memory=self.solver.forget(state.memory, stale))
        self.restarts = self.restarts + setback
        # One step more: the first evaluation is at a state seen before.
        self.picard_left = torch.where(setback, 1 + 2**self.restarts, (self.picard_left - 1).clamp(min=0))

    def _thin_out(self) -> None:
        """Let the samples that have stopped leave."""
        stays = self.state.active.clone()
        if self.compiled and int(stays.count_nonzero()) == 1:
            stays[(stays.nonzero()[0] + 1) % len(stays)] = True  # for one alone there would be code of its own
        kept = stays.nonzero().squeeze(1)
        self._leave((~stays).nonzero().squeeze(1))
        self.price = 0
        self.rows = self._rows()[kept]
        self.state = self.state.select(kept, self.solver.select(self.state.memory, kept))
        self.problem = replace(self.problem, context=tuple(rows[kept] for rows in self.problem.context))
        for name in ("start", "status", "evaluations", "restarts", "picard_left"):
            setattr(self, name, getattr(self, name)[kept])

    def _explain_failures(self, max_evaluations: int) -> None:
        """Tell stagnation and noise from a mere lack of evaluations: where a sample failed, the map is asked twice more."""
        failed, best, found_at = self.state.active, self.state.best, self.state.found_at
        self._stop(failed, Status.max_steps, max_evaluations)
        stuck = failed & (max_evaluations - found_at >= PATIENCE)
        self.status = self.status.masked_fill(stuck, Status.stagnated)
        departing = failed & (self.state.bar <= self.problem.tolerance)
        self.status = self.status.masked_fill(departing, Status.diverged)
        noise = _noise(self.problem, best)
        noisy = failed & (found_at > 0) & (noise > _roundoff(best.dtype)) & (noise > 0.1 * self.state.best_residual)
        self.status = self.status.masked_fill(noisy, Status.noisy)

    @property
    def is_apart(self) -> bool:
        """Whether a sample that converged was not in the last evaluation, or had another residual there."""
        state, converged = self.state, self.status == Status.converged
        if not self.gone and torch.equal(state.residual, state.best_residual):
            return False
        alike = _alike(state.residual, state.best_residual, state.best.dtype)
        return bool((converged & ~alike).any()) or any(
            bool((status == Status.converged).any()) for _, _, _, status, _ in self.gone
        )

    @property
    def image(self) -> Tensor | None:
        """f (B, n) at the states evaluated last, those that converged among them; None where it was not asked for."""
        return self.state.best + self.state.field if isinstance(self.state.field, Tensor) else None

    def _rows(self) -> Tensor:
        return torch.arange(len(self.start), device=self.start.device) if self.rows is None else self.rows

    def _leave(self, samples: Tensor) -> None:
        found = (self._rows(), *self._found())
        self.gone.append(tuple(tensor[samples] for tensor in found))

    def _found(self) -> tuple[Tensor, ...]:
        state = self.state
        evaluations = torch.where(self.status == Status.converged, state.found_at, self.evaluations)
        return state.best, state.best_residual, self.status, evaluations

    def _solution(self, trace: Trace | None) -> Solution:
        """Put the samples in the order that was asked for."""
        z, residual, status, evaluations = self._found()
        if z is self.start:  # the caller's own
            z = z.clone(memory_format=torch.contiguous_format)
        if self.gone:
            self.gone.append((self._rows(), z, residual, status, evaluations))
            rows, *found = (torch.cat(tensors) for tensors in zip(*self.gone, strict=True))
            order = rows.argsort()
            z, residual, status, evaluations = (tensor[order] for tensor in found)
        return Solution(z, residual, status, evaluations, trace)


def _judged_together(problem: Problem, solution: Solution) -> tuple[Solution, Tensor]:
    """Return the solution with what one evaluation of all samples shows, a residual that is another in this company, and f (B, n)."""
    z = solution.z
    image = problem.evaluate(z)
    residual = relative_residual(z, image)
    other = solution.converged & ~_alike(residual, solution.residual, z.dtype)
    lost = other & ~(residual <= problem.tolerance)
    if not bool(other.any()):
        return solution, image
    noisy = _noise(problem, z) > _roundoff(z.dtype)
    status = torch.where(noisy, Status.noisy, Status.coupled).to(solution.status.dtype)
    residual = torch.where(other, residual, solution.residual)
    return replace(solution, residual=residual, status=torch.where(lost, status, solution.status)), image


def _noise(problem: Problem, z: Tensor) -> Tensor:
    """Return how far two evaluations at the same states ``z`` (B, n) lie apart, relative to these, (B,)."""
    fields = [problem.evaluate(z) - z for _ in range(2)]  # f may return the same tensor twice
    return norm(fields[0] - fields[1]) / norm(z).clamp(min=1)


def _roundoff(dtype: torch.dtype) -> float:
    """Return the difference of two residuals that sums taken in another order can cause, in another batch or on a GPU."""
    return min(1000 * torch.finfo(dtype).eps, 0.01)  # the latter in half precision


def _alike(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Return where two residuals (B,) of states of ``dtype`` are the same but for roundoff; NaN is like nothing."""
    return (a - b).abs() <= _roundoff(dtype)


def _kind(solver: Solver, problem: Problem) -> tuple[type, str, Hashable, torch.Size, bool]:
    """Return what compiled code is made for: the solver and how it describes itself, the kind of map, the states."""
    rule = solver.rule if isinstance(solver, Adapted) else solver
    description = "" if type(rule).__repr__ is object.__repr__ else repr(rule)  # by default it is an address
    return (
        type(rule),
        description,
        getattr(problem.f, "__code__", type(problem.f)),
        problem.shape,
        problem.channels_last,
    )


def _is_image(returns: str) -> bool:
    if returns not in ("state", "image"):
        raise ConfigError(f'returns: expected "state" or "image", not {returns!r}')
    return returns == "image"


def _require_solvable(tolerance: float, z: Tensor, context: Sequence[Tensor]) -> None:
    if z.dim() < 2:
        raise ConfigError(f"expected states of shape (B, n) or (B, *), not {tuple(z.shape)}: add a dimension")
    if not z.is_floating_point():
        raise ConfigError(f"expected states of a floating-point dtype, not {z.dtype}")
    resolvable = 4 * torch.finfo(z.dtype).eps
    if not tolerance >= resolvable:
        raise ConfigError(
            f"tolerance {tolerance:g} is below what {z.dtype} resolves ({resolvable:.1e}): raise it"
            + (", or use float64" if z.dtype != torch.float64 else "")
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


def _concatenate(parts: list[Solution]) -> Solution:
    z, residual, status, evaluations = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("z", "residual", "status", "evaluations")
    )
    return Solution(z=z, residual=residual, status=status, evaluations=evaluations)
