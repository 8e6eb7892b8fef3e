"""The contract of a fixed-point solver: what it proposes, what it leaves as it was, and what each proposal depends on."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.solvers import Solution, solve
from stabdeq.solvers.checked import CheckedSolver
from stabdeq.solvers.loop import same
from stabdeq.solvers.solver import as_solver

__tracebackhide__ = True  # pytest: a failure is shown at the caller's line

COUNT, DIM = 5, 6
STEPS = 4  # taken before and after ``select`` and ``forget``
ROUNDING = 1e-6  # relative difference of two proposals, in float64, that counts as roundoff


@dataclass(frozen=True)
class _LinearMap:
    """f(z) = rate A z + offset, A symmetric of norm 1: each sample contracts by its own ``rate`` (B,)."""

    rate: Tensor  # (B,)
    offset: Tensor  # (B, n)
    matrix: Tensor  # (n, n)

    @classmethod
    def make(cls) -> "_LinearMap":
        generator = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)).Q
        spectrum = torch.linspace(-0.8, 1, DIM, dtype=torch.float64)
        offset = torch.randn(COUNT, DIM, generator=generator, dtype=torch.float64)
        return cls(torch.linspace(0.3, 0.8, COUNT, dtype=torch.float64), offset, (basis * spectrum) @ basis.T)

    def __call__(self, z: Tensor, rate: Tensor, offset: Tensor) -> Tensor:
        return rate[:, None] * (z @ self.matrix) + offset

    def field(self, z: Tensor) -> Tensor:
        return self(z, self.rate, self.offset) - z

    def of(self, samples: Tensor) -> "_LinearMap":
        return _LinearMap(self.rate[samples], self.offset[samples], self.matrix)

    def equilibria(self) -> Tensor:
        identity = torch.eye(DIM, dtype=self.matrix.dtype)
        return torch.linalg.solve(identity - self.rate[:, None, None] * self.matrix, self.offset[:, :, None]).squeeze(2)


@torch.no_grad()
def assert_solver(solver: Any, *, tolerance: float = 1e-8, max_evaluations: int = 1000, compiled: bool = False) -> None:
    """Assert that ``solver`` does what ``solve`` asks of every ``Solver``, on a small linear map that contracts.

    It has the methods of a ``Solver``; it proposes states of the shape and dtype that it is given, and changes neither these nor
    their field; equal states give equal proposals; a sample's proposals do not depend on the others in its batch, also where
    these are NaN; after ``select`` a sample goes on as before; after ``forget`` its next proposal is that to one that begins,
    and the others go on as before; and ``solve`` finds the equilibria, in float64, to ``tolerance`` within ``max_evaluations``.
    With ``compiled`` they are found through torch.compile too, which takes up to half a minute and needs a C++ compiler.

    Raises AssertionError, which says what was expected and what came, where it does not.

        assert_solver(MySolver(damping=0.5))
    """
    name = type(solver).__name__
    try:
        checked = CheckedSolver(name, as_solver(solver, name))
        f = _LinearMap.make()
        start = torch.zeros(COUNT, DIM, dtype=torch.float64)
        for dtype in (torch.float32, torch.float64):
            checked.try_out(start.to(dtype), f.field(start).to(dtype))
        _check_determinism(checked, f, start)
        _check_independence(checked, f, start)
        _check_select(checked, f, start)
        _check_forget(checked, f, start)
        found = _check_solve(checked, f, start, tolerance, max_evaluations)
        if compiled:
            _check_compiled(solver, name, f, start, found, tolerance, max_evaluations)
    except ConfigError as error:  # of the solver's methods; it names the solver and the method
        raise AssertionError(str(error)) from error


def _advance(
    solver: CheckedSolver, f: _LinearMap, z: Tensor, memory: Any, steps: int = STEPS, broken: int | None = None
) -> tuple[Tensor, Any]:
    """Return the states (B, n) and memory after ``steps``; the map is NaN at the last for the sample ``broken``."""
    for step in range(steps):
        field = f.field(z)
        if broken is not None and step == steps - 1:
            field[broken] = torch.nan
        given = z.clone(), field.clone()
        ahead, memory = solver.step(z, field, memory)
        if not same(z, given[0]) or not same(field, given[1]):
            raise AssertionError(
                f"solver {solver.name}: step {step + 1} changes the state or the field that it is given: expected it to work on a copy"
            )
        z = ahead
    return z, memory


def _check_determinism(solver: CheckedSolver, f: _LinearMap, start: Tensor) -> None:
    first, second = (_advance(solver, f, start, solver.init(start))[0] for _ in range(2))
    _require_alike(
        solver, first, second, f"after {STEPS} steps from the same states it proposes others", "the same each time"
    )


def _check_independence(solver: CheckedSolver, f: _LinearMap, start: Tensor) -> None:
    whole, _ = _advance(solver, f, start, solver.init(start))
    rest = torch.arange(1, COUNT)
    for samples in (rest, rest[-1:]):
        part, _ = _advance(solver, f.of(samples), start[samples], solver.init(start[samples]))
        said = f"the proposals to {len(samples)} samples of a batch of {COUNT}, alone, are others than in the batch"
        _require_alike(solver, part, whole[samples], said, "each sample's to depend on that sample alone")
    broken, _ = _advance(solver, f, start, solver.init(start), broken=0)
    said = "where the map is NaN for one sample, the proposals to others change"
    _require_alike(solver, broken[rest], whole[rest], said, "each sample's to depend on that sample alone")


def _check_select(solver: CheckedSolver, f: _LinearMap, start: Tensor) -> None:
    whole, _ = _advance(solver, f, start, solver.init(start), 2 * STEPS)
    samples = torch.tensor([3, 1])
    z, memory = _advance(solver, f, start, solver.init(start))
    part, _ = _advance(solver, f.of(samples), z[samples], solver.select(memory, samples))
    said = f"after select(memory, {samples.tolist()}) these samples go on otherwise than in the whole batch"
    _require_alike(solver, part, whole[samples], said, "the memory of the samples at these positions, in this order")


def _check_forget(solver: CheckedSolver, f: _LinearMap, start: Tensor) -> None:
    forgotten = torch.zeros(COUNT, dtype=torch.bool)
    forgotten[[0, 2]] = True
    whole, _ = _advance(solver, f, start, solver.init(start), 2 * STEPS)
    begun, _ = _advance(solver, f, start, solver.init(start), 1)
    for broken in (None, 0):
        z, memory = _advance(solver, f, start, solver.init(start), broken=broken)
        again = torch.where(forgotten[:, None], start, z)
        # Later ones may differ: a memory of limited length may start again for the whole batch at once.
        first, memory = _advance(solver, f, again, solver.forget(memory, forgotten), 1)
        after = " that were NaN" if broken is not None else ""
        said = f"after forget(memory, samples) the next proposals to samples{after} are others than to samples that begin there"
        _require_alike(solver, first[forgotten], begun[forgotten], said, "nothing of their history to remain")
        last, _ = _advance(solver, f, first, memory, STEPS - 1)
        said = "after forget(memory, samples) the other samples go on otherwise than before"
        _require_alike(solver, last[~forgotten], whole[~forgotten], said, "their history to remain")
        if not bool(last.isfinite().all()):
            raise AssertionError(
                f"solver {solver.name}: samples that were NaN become NaN again after forget(memory, samples): expected nothing of "
                "their history to remain"
            )


def _check_solve(
    solver: CheckedSolver, f: _LinearMap, start: Tensor, tolerance: float, max_evaluations: int
) -> Solution:
    found = solve(f, start, solver, context=(f.rate, f.offset), tolerance=tolerance, max_evaluations=max_evaluations)
    if not bool(found.converged.all()):
        raise AssertionError(
            f"solver {solver.name}: expected to solve a linear map that contracts by {float(f.rate.max()):g} or less, to "
            f"{tolerance:g} within {max_evaluations} evaluations: {found.describe_failures()}"
        )
    # ||z - z*|| is at most the residual over 1 - rate.
    distance = (found.z - f.equilibria()).norm(dim=1) / found.z.norm(dim=1).clamp(min=1)
    if bool((distance > 1.001 * tolerance / (1 - f.rate) + ROUNDING * tolerance).any()):
        raise AssertionError(
            f"solver {solver.name}: its states are {float(distance.max()):.2g} from the equilibria, relative to their size: "
            f"expected {tolerance:g} / (1 - rate) at most"
        )
    return found


def _check_compiled(
    solver: Any, name: str, f: _LinearMap, start: Tensor, found: Solution, tolerance: float, max_evaluations: int
) -> None:
    limits = {"tolerance": tolerance, "max_evaluations": max_evaluations}
    try:
        compiled = solve(f, start, solver, context=(f.rate, f.offset), compiled=True, **limits)
    except Exception as error:  # torch.compile may raise anything of a step that it cannot trace
        said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise AssertionError(
            f"solver {name}: expected to run compiled, its memory tensors that keep their shape: {said}"
        ) from error
    if not bool(compiled.converged.all()) or bool((compiled.evaluations - found.evaluations).abs().max() > 1):
        raise AssertionError(
            f"solver {name}: compiled it takes {compiled.evaluations.tolist()} evaluations, {compiled.describe_failures() or 'solved'}: "
            f"expected {found.evaluations.tolist()}, as without, give or take 1"
        )


def _require_alike(solver: CheckedSolver, found: Tensor, expected: Tensor, said: str, wanted: str) -> None:
    difference = (found - expected).norm(dim=1) / expected.norm(dim=1).clamp(min=1)
    if not bool((difference <= ROUNDING).all()):  # NaN is no roundoff either
        raise AssertionError(f"solver {solver.name}: {said}, by {float(difference.max()):.2g}: expected {wanted}")
