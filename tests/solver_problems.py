"""Solvers, maps and states that the tests of solvers share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stabdeq.solvers import Anderson, Broyden, Picard, Solution, Solver, Status, solve

SOLVERS = [Anderson(), Broyden(), Picard()]
Map = Callable[[Tensor], Tensor]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
MORE = [
    Anderson(),
    Anderson(window=20, mixing=0.7),
    Broyden(),
    Broyden(memory=3),
    Broyden(line_search=True),
    Picard(mixing=0.6),
]
every_variant = pytest.mark.parametrize("solver", MORE, ids=str)
both_widths = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def with_spectrum(eigenvalues: Tensor, *, seed: int = 0) -> Tensor:
    """A non-symmetric matrix with these eigenvalues."""
    basis = normal(len(eigenvalues), len(eigenvalues), seed=seed)
    return basis @ torch.diag(eigenvalues) @ torch.linalg.inv(basis)


def affine(matrix: Tensor, offset: Tensor) -> Map:
    return lambda z: z @ matrix.T + offset


def dense_solution(matrix: Tensor, offset: Tensor) -> Tensor:
    """(I - A)^{-1} b for each row b of ``offset``."""
    identity = torch.eye(len(matrix), dtype=matrix.dtype)
    return torch.linalg.solve(identity - matrix, offset.T).T


class Counting:
    """A map that counts its calls and keeps the states it was called with."""

    def __init__(self, f: Map) -> None:
        self.f = f
        self.states: list[Tensor] = []

    def __call__(self, z: Tensor) -> Tensor:
        self.states.append(z.clone())
        return self.f(z)


def statuses(solution: Solution) -> list[str]:
    return [Status(int(status)).name for status in solution.status]


DIM = 6
FAULTS = ["none", "nan", "late nan", "growth", "jump"]


class Crowd:
    """A map whose samples have a name, kept in their state's first component, a rate and perhaps a fault.

    It refuses a state that comes with another sample's context, and remembers who was evaluated when. All arithmetic is by
    element, so that no roundoff depends on the neighbours.
    """

    def __init__(self, rates: Tensor, faults: dict[int, str] | None = None) -> None:
        count = len(rates)
        self.names = 1e-3 * torch.arange(count, dtype=torch.float64)
        fault = torch.zeros(count, dtype=torch.int64)
        for sample, name in (faults or {}).items():
            fault[sample] = FAULTS.index(name)
        self.context = (self.names, rates, fault, normal(count, 1, DIM - 1, seed=3).sin())
        self.start = torch.cat((self.names[:, None], torch.zeros(count, DIM - 1, dtype=torch.float64)), 1)
        self.calls: list[Tensor] = []

    def __call__(self, z: Tensor, name: Tensor, rate: Tensor, fault: Tensor, offset: Tensor) -> Tensor:
        # A state that was lost to NaN has lost its name too.
        assert torch.equal(z[:, 0].where(z[:, 0].isfinite(), name), name), "a state came with another sample's context"
        self.calls.append(name)
        rest = z[:, 1:]
        kind = fault[:, None]
        image = torch.tanh(rate[:, None] * (0.8 * rest.roll(1, 1) - 0.2 * rest)) + offset[:, 0]
        image = torch.where(kind == 1, torch.nan, image)
        image = torch.where((kind == 2) & (rest.abs() > 0.2), torch.nan, image)
        image = torch.where(kind == 3, rest + 1 + rest.abs(), image)
        image = torch.where(kind == 4, torch.where(rest > 0, -1.0, 1.0).to(z), image)
        return torch.cat((name[:, None], image), 1)

    def whole(self, solver: Solver, **limits: float) -> Solution:
        """The solution of one batch that stays together."""
        return solve(lambda z: self(z, *self.context), self.start, solver, **limits)

    def shrinking(self, solver: Solver, **options: float) -> Solution:
        self.calls.clear()
        return solve(self, self.start, solver, context=self.context, **options)

    def times(self) -> Tensor:
        """How often each sample was evaluated, (B,)."""
        return (torch.cat(self.calls)[:, None] == self.names).sum(0)


def speeds(count: int = 23, slowest: float = 0.97) -> Tensor:
    """Rates from 0 to ``slowest``, in no order."""
    return torch.linspace(0, slowest, count, dtype=torch.float64)[torch.randperm(count, generator=generator(1))]
