"""Batches that shrink, compiled solves, half precision, noise, and each solver against a plain reference."""

import shutil
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from stabdeq.errors import ConfigError
from stabdeq.solvers import (
    Anderson,
    Broyden,
    Picard,
    Solution,
    Solver,
    Status,
    anderson,
    broyden,
    loop,
    relative_residual,
    solve,
)

Map = Callable[[Tensor], Tensor]
SOLVERS = [Anderson(), Broyden(), Picard()]
MORE = [
    Anderson(),
    Anderson(window=20, mixing=0.7),
    Broyden(),
    Broyden(memory=3),
    Broyden(line_search=True),
    Picard(mixing=0.6),
]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
every_variant = pytest.mark.parametrize("solver", MORE, ids=str)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def statuses(solution: Solution) -> list[str]:
    return [Status(int(status)).name for status in solution.status]


# Context: samples leave the batch, and large batches are solved in tiles

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


def speeds(count: int = 23) -> Tensor:
    """Rates from 0 to 0.97, in no order."""
    return torch.linspace(0, 0.97, count, dtype=torch.float64)[torch.randperm(count, generator=generator(1))]


@pytest.fixture(params=["thinned", "tiled", "thinned and tiled", "one at a time"])
def splitting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Thresholds at which small batches are split as large ones are."""
    tile, crowd = {
        "thinned": (23 * DIM, 1.0),
        "tiled": (7 * DIM, 0.0),
        "thinned and tiled": (9 * DIM, 0.75),
        "one at a time": (1, 1.0),
    }[request.param]
    monkeypatch.setattr(loop, "TILE", tile)
    monkeypatch.setattr(loop, "FEW", 1)
    monkeypatch.setattr(loop, "CROWD", crowd)
    return request.param


@every_variant
@pytest.mark.parametrize("faulty", [False, True])
def test_a_batch_in_parts_is_solved_like_a_whole_one(solver: Solver, faulty: bool, splitting: str) -> None:
    faults = {2: "nan", 5: "late nan", 9: "growth", 14: "jump", 22: "nan"} if faulty else {}
    crowd = Crowd(speeds(), faults)
    limits = {"tolerance": 1e-9, "max_evaluations": 700}
    expected, found = crowd.whole(solver, **limits), crowd.shrinking(solver, **limits)
    tame = torch.tensor([sample not in faults for sample in range(23)])
    assert expected.converged[tame].all()
    assert statuses(found) == statuses(expected)
    # Where there is no root the path is chaotic, and roundoff decides when it ends.
    assert torch.equal(found.evaluations[tame], expected.evaluations[tame])
    torch.testing.assert_close(found.z[tame], expected.z[tame], rtol=0, atol=1e-12)
    torch.testing.assert_close(found.residual[tame], expected.residual[tame], rtol=0, atol=1e-12)
    # And what is said of each is true of it.
    for sample in range(23):
        alone = [rows[sample : sample + 1] for rows in crowd.context]
        z = found.z[sample : sample + 1]
        if found.residual[sample].isfinite():
            torch.testing.assert_close(found.residual[[sample]], relative_residual(z, crowd(z, *alone)))


@every_solver
def test_rows_evaluated_fall_as_samples_leave(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    """No evaluation has less than three samples in four still at work; at the default thresholds too small a batch stays."""
    crowd = Crowd(speeds(200))
    limits = {"tolerance": 1e-9, "max_evaluations": 2000}
    whole = crowd.shrinking(solver, **limits)
    assert {len(names) for names in crowd.calls} == {200}
    monkeypatch.setattr(loop, "TILE", 200 * DIM)
    monkeypatch.setattr(loop, "FEW", 25 * DIM)
    monkeypatch.setattr(loop, "CROWD", 0.75)
    solution = crowd.shrinking(solver, **limits)
    assert solution.converged.all()
    assert torch.equal(solution.evaluations, whole.evaluations)
    sizes = [len(names) for names in crowd.calls]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == solution.evaluations.max()
    for count, size in enumerate(sizes, 1):
        at_work = int((solution.evaluations >= count).sum())
        assert at_work >= loop.CROWD * size or size * DIM < loop.FEW
    assert (crowd.times() >= solution.evaluations).all()
    assert sum(sizes) < 0.85 * 200 * len(sizes)


def test_tiles_fit_the_cache_and_miss_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TILE", 5 * DIM + 1)
    monkeypatch.setattr(loop, "FEW", 1)
    crowd = Crowd(torch.full((23,), 0.5, dtype=torch.float64))
    solution = crowd.shrinking(Picard(), tolerance=1e-9, max_evaluations=100)
    assert max(len(names) for names in crowd.calls) == 5
    assert solution.converged.all()
    assert torch.equal(crowd.times() > 0, torch.ones(23, dtype=torch.bool))


@every_solver
def test_lost_samples_leave_too(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the batch is NaN at the first evaluation; the others, all equally slow, need not carry it to the end."""
    crowd = Crowd(torch.full((40,), 0.9, dtype=torch.float64), dict.fromkeys(range(20), "nan"))
    monkeypatch.setattr(loop, "TILE", 40 * DIM)
    monkeypatch.setattr(loop, "FEW", 1)
    solution = crowd.shrinking(solver, tolerance=1e-9, max_evaluations=500)
    assert statuses(solution) == ["nan"] * 20 + ["converged"] * 20
    assert [len(names) for names in crowd.calls[:2]] == [40, 20]


@every_solver
@pytest.mark.parametrize("option", ["trace", "coupled"])
def test_a_traced_or_coupled_batch_stays_whole(solver: Solver, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TILE", 4 * DIM)
    monkeypatch.setattr(loop, "CROWD", 1.0)
    monkeypatch.setattr(loop, "FEW", 1)
    crowd = Crowd(speeds())
    limits = {"tolerance": 1e-9, "max_evaluations": 700, option: True}
    solution = crowd.shrinking(solver, **limits)
    assert {len(names) for names in crowd.calls} == {23}
    expected = crowd.whole(solver, **limits)
    for name in ("z", "residual", "status", "evaluations"):
        assert torch.equal(getattr(solution, name), getattr(expected, name)), name
    if option == "trace":
        assert torch.equal(solution.trace.residual, expected.trace.residual)
        assert solution.trace.residual.shape == (solution.evaluations.max(), 23)


@pytest.mark.parametrize("rows", [torch.zeros(3), torch.zeros(5, 2), torch.tensor(1.0), torch.zeros(0)], ids=str)
@pytest.mark.parametrize("coupled", [False, True])
def test_context_of_another_length_is_refused(rows: Tensor, coupled: bool) -> None:
    with pytest.raises(ConfigError, match="a row of context for each of 4 samples"):
        solve(
            lambda z, rows: z / 2,
            torch.zeros(4, 2),
            Picard(),
            context=(torch.zeros(4), rows),
            coupled=coupled,
            tolerance=1e-4,
            max_evaluations=9,
        )


def test_context_of_images_and_an_empty_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TILE", 3 * 24)
    monkeypatch.setattr(loop, "CROWD", 1.0)
    monkeypatch.setattr(loop, "FEW", 1)
    kernel, offset = normal(2, 2, 3, 3) / 12, normal(10, 2, 3, 4, seed=1)

    def f(z: Tensor, offset: Tensor) -> Tensor:
        return torch.tanh(nn.functional.conv2d(z, kernel, padding=1) + offset)

    limits = {"tolerance": 1e-10, "max_evaluations": 300}
    for solver in SOLVERS:
        found = solve(f, torch.zeros_like(offset), solver, context=(offset,), **limits)
        expected = solve(lambda z: f(z, offset), torch.zeros_like(offset), solver, **limits)
        assert found.z.shape == offset.shape
        torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-11)
        assert torch.equal(found.evaluations, expected.evaluations)
        nobody = solve(f, offset[:0], solver, context=(offset[:0],), **limits)
        assert nobody.z.shape == (0, 2, 3, 4)
        assert nobody.status.shape == (0,)


def test_neither_the_start_nor_the_context_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TILE", 4 * DIM)
    monkeypatch.setattr(loop, "FEW", 1)
    for solver in MORE:
        crowd = Crowd(speeds(), {3: "nan"})
        before = [crowd.start.clone(), *(rows.clone() for rows in crowd.context)]
        crowd.shrinking(solver, tolerance=1e-9, max_evaluations=700)
        for old, new in zip(before, (crowd.start, *crowd.context), strict=True):
            assert torch.equal(old, new)


# Half precision


@every_variant
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [0.05, 1.0, 30.0])
def test_half_precision(solver: Solver, dtype: torch.dtype, size: float) -> None:
    """To what the dtype resolves, with a residual that is true and in float32."""
    tolerance = 4 * torch.finfo(dtype).eps
    rate = torch.linspace(-0.8, 0.9, 12)[:, None].to(dtype)
    offset = (size * normal(12, 16)).to(dtype)

    def f(z: Tensor) -> Tensor:
        return rate * z.roll(1, 1) + offset

    solution = solve(f, torch.zeros_like(offset), solver, tolerance=tolerance, max_evaluations=300)
    assert solution.converged.all(), (statuses(solution), solution.residual)
    assert solution.z.dtype == dtype
    assert solution.residual.dtype == torch.float32
    assert torch.equal(solution.residual, relative_residual(solution.z, f(solution.z)))
    field = f(solution.z).double() - solution.z.double()
    true = field.norm(dim=1) / solution.z.double().norm(dim=1).clamp(min=1)
    torch.testing.assert_close(solution.residual.double(), true, rtol=torch.finfo(dtype).eps, atol=1e-7)
    exact = solve(
        lambda z: rate.double() * z.roll(1, 1) + offset.double(),
        torch.zeros(12, 16, dtype=torch.float64),
        Anderson(),
        tolerance=1e-12,
        max_evaluations=300,
    ).z
    # ||z - z*|| <= ||f(z) - z|| / (1 - rate)
    error = (solution.z.double() - exact).norm(dim=1) / exact.norm(dim=1).clamp(min=1)
    assert (error <= 12 * (tolerance + 2 * torch.finfo(dtype).eps)).all()


@every_solver
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_near_the_end(solver: Solver, dtype: torch.dtype) -> None:
    """Steps of a hundredth: their products are small numbers in float16, and their reciprocals must not be infinite."""
    basis = torch.linalg.qr(normal(8, 8)).Q
    matrix = (basis @ torch.diag(torch.linspace(-0.9, 0.95, 8, dtype=torch.float64)) @ basis.T).to(dtype)
    offset = (0.01 * normal(50, 8, seed=1)).to(dtype)
    states: list[Tensor] = []
    for sample in range(50):
        one = offset[sample : sample + 1]
        tolerance = 4 * torch.finfo(dtype).eps

        def alone(z: Tensor, one: Tensor = one) -> Tensor:
            states.append(z)
            return z @ matrix.T + one

        solution = solve(alone, torch.zeros_like(one), solver, tolerance=tolerance, max_evaluations=300)
        assert solution.converged.all()
    assert all(state.isfinite().all() for state in states)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_half_a_resolvable_tolerance_is_refused(dtype: torch.dtype) -> None:
    limits = {"max_evaluations": 5}
    least = 4 * torch.finfo(dtype).eps
    solve(torch.cos, torch.zeros(1, 1, dtype=dtype), Picard(), tolerance=least, **limits)
    with pytest.raises(ConfigError, match=f"below what {dtype} resolves"):
        solve(torch.cos, torch.zeros(1, 1, dtype=dtype), Picard(), tolerance=least / 2, **limits)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_states_that_are_no_real_numbers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ConfigError, match="expected states of a floating-point dtype"):
        solve(lambda z: z, torch.zeros(2, 3, dtype=dtype), Anderson(), tolerance=1e-3, max_evaluations=5)


# Noise


class Noisy:
    """A contraction with noise, or dropout, on some samples."""

    def __init__(self, kind: str) -> None:
        self.kind, self.generator = kind, generator(5)

    def __call__(self, z: Tensor, noisy: Tensor, offset: Tensor) -> Tensor:
        image = 0.5 * torch.tanh(z.roll(1, 1)) + offset
        drawn = torch.rand(z.shape, generator=self.generator, dtype=z.dtype)
        blurred = image + 0.1 * drawn if self.kind == "noise" else torch.where(drawn < 0.3, 0.0, image / 0.7)
        return torch.where(noisy[:, None], blurred, image)


@every_solver
@pytest.mark.parametrize("kind", ["noise", "dropout"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("with_context", [False, True])
def test_noise_is_told_from_stagnation(solver: Solver, kind: str, dtype: torch.dtype, with_context: bool) -> None:
    offset = normal(6, 20).to(dtype)
    noisy = torch.tensor([False, True, False, False, True, False])

    def solution(noisy: Tensor) -> Solution:
        f, context = Noisy(kind), (noisy, offset)
        limits = {"tolerance": 1e-5, "max_evaluations": 100}
        if with_context:
            return solve(f, torch.zeros_like(offset), solver, context=context, **limits)
        return solve(lambda z: f(z, *context), torch.zeros_like(offset), solver, **limits)

    found, clean = solution(noisy), solution(torch.zeros_like(noisy))
    assert clean.converged.all()
    assert statuses(found) == ["converged", "noisy", "converged", "converged", "noisy", "converged"]
    for name in ("z", "residual", "evaluations"):
        assert torch.equal(getattr(found, name)[~noisy], getattr(clean, name)[~noisy]), name
    assert "switch off dropout" in found.describe_failures()


@every_variant
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("count", [1, 33])
def test_a_deterministic_map_is_never_called_noisy(solver: Solver, dtype: torch.dtype, count: int) -> None:
    """Out of evaluations, without a root, stagnating, stuck at roundoff, alone or in a batch that shrinks."""
    matrix = torch.linalg.qr(normal(64, 64)).Q.to(dtype)
    offset = normal(count, 64, seed=1).to(dtype)
    tolerance = 4 * torch.finfo(dtype).eps
    maps: list[Callable[..., Tensor]] = [
        lambda z, b: 0.999 * z @ matrix + b,
        lambda z, b: torch.where(z @ matrix > 0, -1.0, 1.0).to(z),
        lambda z, b: z + 1 + z.abs(),
        lambda z, b: torch.tanh(3 * (z @ matrix) + b),
        lambda z, b: 100 * torch.tanh(z @ matrix @ matrix.T / 101) + 100 * (b - 0.5 * b),
        lambda z, b: ((z @ matrix) @ matrix.T) / 2 + 1e3 * (b @ matrix @ matrix.T - b) + b,
    ]
    for f in maps:
        for budget in (2, 90):
            for context in ((), (offset,)):
                solution = solve(
                    f if context else lambda z, f=f: f(z, offset),
                    torch.zeros_like(offset),
                    solver,
                    context=context,
                    tolerance=tolerance,
                    max_evaluations=budget,
                )
                assert "noisy" not in statuses(solution)


@every_solver
@pytest.mark.parametrize("size", [1, 20, 1000])
def test_noise_is_noticed_in_every_sample_of_any_size(solver: Solver, size: int) -> None:
    """In many dimensions the norm of the noise is nearly the same at every draw, and still the map's values differ."""
    offset, drawn = normal(100, size), generator(5)

    def f(z: Tensor) -> Tensor:
        return 0.5 * torch.tanh(z) + offset + 0.1 * torch.randn(z.shape, generator=drawn, dtype=z.dtype)

    solution = solve(f, torch.zeros_like(offset), solver, tolerance=1e-13, max_evaluations=100)
    assert set(statuses(solution)) == {"noisy"}


@pytest.mark.parametrize("seed", range(2))
def test_roundoff_that_depends_on_the_batch_is_not_noise(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample is stuck at float32's roundoff, of terms that cancel; it is another once the others have left."""
    monkeypatch.setattr(loop, "TILE", 60 * 64)
    monkeypatch.setattr(loop, "FEW", 1)
    weight = 10 * normal(64, 64, seed=seed).float()
    both, offset = torch.cat((weight, -weight)), normal(60, 64, seed=seed + 1).float()
    slow = torch.arange(60) > 0
    sizes: list[int] = []

    def f(z: Tensor, slow: Tensor, offset: Tensor) -> Tensor:
        sizes.append(len(z))
        stuck = torch.tanh(torch.cat((z, z), 1) @ both + 0.5 * z)
        return torch.where(slow[:, None], 0.85 * z, stuck) + offset

    start, limits = torch.zeros(60, 64), {"tolerance": 5e-7, "max_evaluations": 120}
    solution = solve(f, start, Picard(), context=(slow, offset), **limits)
    assert set(sizes) == {60, 1}
    assert solution.converged.tolist() == slow.tolist()
    assert statuses(solution)[0] in ("max_steps", "stagnated")


class WithBatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, z: Tensor) -> Tensor:
        return self.norm(torch.tanh(z) + torch.linspace(0, 1, len(z))[:, None]) / 3


def test_a_module_that_updates_its_buffers_is_refused() -> None:
    module = WithBatchNorm().train()
    start = torch.randn(5, 3, generator=generator())
    with pytest.raises(ConfigError, match=r"norm\.num_batches_tracked"):
        solve(module, start, Picard(), tolerance=1e-4, max_evaluations=50, coupled=True)
    assert solve(module.eval(), start, Picard(), tolerance=1e-4, max_evaluations=50).converged.all()
    fixed = WithBatchNorm().train()
    fixed.norm = nn.BatchNorm1d(3, track_running_stats=False)
    assert solve(fixed, start, Picard(), tolerance=1e-4, max_evaluations=50, coupled=True).converged.all()


class Averaging(nn.Module):
    """Keeps a running mean in the way named: through PyTorch's kernel, by assignment, or in place."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("variance", torch.ones(3))

    def forward(self, z: Tensor) -> Tensor:
        image = torch.tanh(z) / 3 + torch.linspace(0, 1, len(z))[:, None]
        if self.way == "kernel":
            image = nn.functional.batch_norm(image, self.mean, self.variance, training=True) / 3
        elif self.way == "assignment":
            self.mean = 0.9 * self.mean + 0.1 * image.mean(0)
        else:
            self.mean.lerp_(image.mean(0), 0.1)
        return image


@pytest.mark.parametrize("way", ["kernel", "assignment", "in place"])
def test_running_statistics_are_noticed_however_they_are_kept(way: str) -> None:
    with pytest.raises(ConfigError, match="mean"):
        solve(Averaging(way), torch.zeros(5, 3), Picard(), tolerance=1e-4, max_evaluations=50, coupled=True)


def test_a_buffer_that_holds_nan_is_not_one_that_changed() -> None:
    module = Averaging("none of these")
    module.forward = lambda z: z / 2
    module.variance.fill_(torch.nan)
    assert solve(module, torch.ones(2, 3), Picard(), tolerance=1e-4, max_evaluations=50).converged.all()


# Broyden against the textbook


def dense_inverse(memory: broyden.BroydenMemory, sample: int) -> Tensor:
    """H = -I + sum_i left_i right_i' of one sample."""
    size = memory.z.shape[1]
    left, right = memory.left[: memory.extent, sample], memory.right[: memory.extent, sample]
    return left.T @ right - torch.eye(size, dtype=torch.float64)


def field_of(z: Tensor) -> Tensor:
    """A smooth field whose root no contraction finds."""
    size = z.shape[1]
    matrix = normal(size, size) / 2 + 2 * torch.eye(size, dtype=torch.float64)
    return torch.sin(z) @ matrix.T + 0.3 * z.square() + torch.linspace(-1, 1, len(z), dtype=torch.float64)[:, None]


@pytest.mark.parametrize("limit", [1, 3, 20])
def test_broyden_against_the_dense_update(limit: int) -> None:
    """H+ = H + (s - H y) s'H / (s'H y), so H+ y = s; from -I again once ``limit`` updates are stored."""
    solver, size = Broyden(memory=limit), 4
    z = normal(3, size, seed=4) / 3
    memory = solver.init(z)
    dense = [-torch.eye(size, dtype=torch.float64) for _ in range(3)]
    stored = 0
    previous: tuple[Tensor, Tensor] | None = None
    for _ in range(10):
        field = field_of(z)
        following, memory = solver.step(z, field, memory)
        if previous is not None:  # the first step has nothing to store
            stored = 1 if stored == limit else stored + 1
        for sample in range(3):
            if stored == 1:
                dense[sample] = -torch.eye(size, dtype=torch.float64)
            if previous is not None:
                s, y = z[sample] - previous[0][sample], field[sample] - previous[1][sample]
                H = dense[sample]
                dense[sample] = H + torch.outer(s - H @ y, s @ H) / (s @ H @ y)
                torch.testing.assert_close(dense_inverse(memory, sample) @ y, s, rtol=1e-8, atol=1e-10)
            torch.testing.assert_close(dense_inverse(memory, sample), dense[sample], rtol=1e-8, atol=1e-9)
            step = -dense[sample] @ field[sample]
            torch.testing.assert_close(following[sample] - z[sample], step, rtol=1e-8, atol=1e-9)
        previous, z = (z, field), z + (following - z).clamp(-0.5, 0.5)  # any step will do, not only its own


def test_broyden_forgets_and_selects_samples_alone() -> None:
    solver, z = Broyden(memory=5), normal(4, 3) / 3
    memory = solver.init(z)
    for _ in range(3):
        z, memory = solver.step(z, field_of(z), memory)
    kept = [dense_inverse(memory, sample) for sample in range(4)]
    memory = solver.forget(memory, torch.tensor([False, True, False, False]))
    torch.testing.assert_close(dense_inverse(memory, 1), -torch.eye(3, dtype=torch.float64), rtol=0, atol=0)
    for sample in (0, 2, 3):
        torch.testing.assert_close(dense_inverse(memory, sample), kept[sample], rtol=0, atol=0)
    field = field_of(z)
    everyone, _ = solver.step(z, field, solver.select(memory, torch.arange(4)))
    torch.testing.assert_close(everyone[1], z[1] + field[1], rtol=0, atol=0)  # a Picard step
    some = torch.tensor([3, 1])
    few, _ = solver.step(z[some], field[some], solver.select(memory, some))
    torch.testing.assert_close(few, everyone[some], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("line_search", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_broyden_with_a_short_memory_on_linear_maps(seed: int, line_search: bool) -> None:
    matrix = normal(7, 7, seed=seed)
    matrix = 0.9 * matrix / torch.linalg.matrix_norm(matrix, 2)
    offset = normal(5, 7, seed=seed + 10)
    limits = {"tolerance": 1e-10, "max_evaluations": 1000}
    short = solve(
        lambda z: z @ matrix.T + offset,
        torch.zeros_like(offset),
        Broyden(memory=3, line_search=line_search),
        **limits,
    )
    assert short.converged.all()
    expected = torch.linalg.solve(torch.eye(7, dtype=torch.float64) - matrix, offset.T).T
    torch.testing.assert_close(short.z, expected, rtol=0, atol=1e-8)


# Broyden's line search


def steep(z: Tensor) -> Tensor:
    """F = -10 arctan(z - c) by component: flat far out and steep at the root, where full steps jump over it."""
    return z - 10 * torch.atan(z - torch.linspace(0.5, 1.5, z.shape[1], dtype=z.dtype))


def test_line_search_converges_where_full_steps_overshoot() -> None:
    start = 3 + normal(40, 5, seed=2)
    limits = {"tolerance": 1e-9, "max_evaluations": 40}
    searched = solve(steep, start, Broyden(line_search=True), **limits)
    full = solve(steep, start, Broyden(), **limits)
    assert searched.converged.all()
    assert int(full.converged.sum()) < 10
    torch.testing.assert_close(searched.z, torch.linspace(0.5, 1.5, 5, dtype=torch.float64).expand(40, 5))


def test_line_search_halves_a_step_however_bad() -> None:
    """F = -(z - 1) - (z - 1)^3 falls everywhere; the first step from 3 lands at -7, where F is 52 times as large."""
    solution = solve(
        lambda z: 1 - (z - 1) ** 3,
        torch.full((1, 1), 3.0, dtype=torch.float64),
        Broyden(line_search=True),
        tolerance=1e-9,
        max_evaluations=60,
    )
    assert statuses(solution) == ["converged"]


def test_tries_of_the_line_search_are_evaluations() -> None:
    """From z, at z + d, the step d is halved until ||F|| shrinks, at most down to a sixteenth."""
    states: list[float] = []

    def f(z: Tensor) -> Tensor:
        states.append(z.item())
        # F = 1 at 0, so the first step is 1; it shrinks only close to 0.
        return z + torch.where(z.abs() < 0.1, 1 - 2 * z, 2.0)

    solution = solve(
        f, torch.zeros(1, 1, dtype=torch.float64), Broyden(line_search=True), tolerance=1e-9, max_evaluations=7
    )
    assert states[:5] == [0, 1, 0.5, 0.25, 0.125]
    assert states[5] == 0.0625
    # There F = 0.875: accepted, and the secant through both points gives 0.5.
    assert states[6] == pytest.approx(0.5, rel=1e-12)
    assert solution.evaluations.item() == 7


def test_line_search_gives_up_at_a_sixteenth() -> None:
    """And goes on from there, since no step shrinks ||F||."""
    states: list[float] = []

    def f(z: Tensor) -> Tensor:
        states.append(z.item())
        return z + torch.where(z == 0, 1.0, 2.0 + z)

    solve(f, torch.zeros(1, 1, dtype=torch.float64), Broyden(line_search=True), tolerance=1e-9, max_evaluations=7)
    assert states[:6] == [0, 1, 0.5, 0.25, 0.125, 0.0625]
    assert states[6] != 0.03125


@pytest.mark.parametrize("seed", range(8))
def test_line_search_costs_little_on_linear_maps(seed: int) -> None:
    matrix = normal(6, 6, seed=seed)
    matrix = (0.7 + 0.2 * (seed % 2)) * matrix / torch.linalg.matrix_norm(matrix, 2)
    offset = normal(20, 6, seed=seed + 20)
    limits = {"tolerance": 1e-9, "max_evaluations": 200}
    counts = []
    for line_search in (False, True):
        solution = solve(
            lambda z: z @ matrix.T + offset, torch.zeros_like(offset), Broyden(line_search=line_search), **limits
        )
        assert solution.converged.all()
        counts.append(float(solution.evaluations.double().mean()))
    assert counts[1] <= 1.5 * counts[0] + 1


def test_broyden_is_q_superlinear() -> None:
    """e_{k+1} / e_k tends to 0, where Picard's stays at the spectral radius (Broyden, Dennis and Moré 1973)."""
    weight, offset = 0.9 * torch.linalg.qr(normal(4, 4)).Q, normal(1, 4, seed=1) / 4

    def f(z: Tensor) -> Tensor:
        return torch.tanh(z @ weight.T + offset)

    root = solve(f, torch.zeros_like(offset), Broyden(), tolerance=1e-15, max_evaluations=200).z
    states: list[Tensor] = []

    def watched(z: Tensor) -> Tensor:
        states.append(z)
        return f(z)

    solve(watched, torch.zeros_like(offset), Broyden(), tolerance=1e-12, max_evaluations=60)
    errors = torch.stack([(z - root).norm() for z in states])
    errors = errors[errors > 1e-13]
    ratios = errors[1:] / errors[:-1]
    assert ratios[-2:].max() < 0.2
    assert ratios[-2:].log().mean() < ratios[2:6].log().mean() - 1


# Anderson against the textbook


def textbook_anderson(f: Map, z: Tensor, *, steps: int, window: int, mixing: float) -> list[Tensor]:
    """Type II by least squares over the last differences, one sample (n,) at a time (Walker and Ni 2011, eq. 2.2)."""
    states, fields = [], []
    for _ in range(steps):
        states.append(z)
        fields.append(f(z[None])[0] - z)
        z = z + mixing * fields[-1]
        used = min(window, len(states) - 1)
        if used:
            dF = torch.stack([fields[-i] - fields[-i - 1] for i in range(1, used + 1)], 1)
            dZ = torch.stack([states[-i] - states[-i - 1] for i in range(1, used + 1)], 1)
            gamma = torch.linalg.lstsq(dF, fields[-1][:, None], driver="gelsd").solution
            z = z - ((dZ + mixing * dF) @ gamma)[:, 0]
    return states


@pytest.mark.parametrize("window", [1, 2, 5, 8])
@pytest.mark.parametrize("mixing", [1.0, 0.4])
def test_anderson_against_least_squares(window: int, mixing: float) -> None:
    weight, offset = 0.95 * torch.linalg.qr(normal(20, 20)).Q, normal(20, seed=1)

    def f(z: Tensor) -> Tensor:
        return torch.sin(z @ weight.T) + 0.1 * torch.tanh(z).square() + offset

    solver, start = Anderson(window=window, mixing=mixing), normal(3, 20, seed=2)
    references = [textbook_anderson(f, z, steps=13, window=window, mixing=mixing) for z in start]
    z, memory = start, solver.init(start)
    for count in range(13):
        expected = torch.stack([states[count] for states in references])
        torch.testing.assert_close(z, expected, rtol=1e-8, atol=1e-8)
        z, memory = solver.step(z, f(z) - z, memory)
    # Still far from the root: the comparison was one of substance.
    assert (f(z) - z).norm(dim=1).min() > 1e-5


def test_a_window_wider_than_the_state_is_cut() -> None:
    weight, offset = normal(3, 3) / 3, normal(8, 3, seed=1)

    def f(z: Tensor) -> Tensor:
        return torch.tanh(z @ weight.T + offset)

    limits = {"tolerance": 1e-12, "max_evaluations": 100}
    wide = solve(f, torch.zeros_like(offset), Anderson(window=50), **limits)
    assert Anderson(window=50).init(offset).field_steps.shape == (3, 8, 3)
    cut = solve(f, torch.zeros_like(offset), Anderson(window=3), **limits)
    assert wide.converged.all()
    assert torch.equal(wide.z, cut.z)
    alone = solve(torch.cos, torch.zeros(2, 1, dtype=torch.float64), Anderson(window=5), **limits)
    torch.testing.assert_close(alone.z, torch.full((2, 1), 0.7390851332151607, dtype=torch.float64), rtol=0, atol=1e-11)


def test_a_large_ridge_is_picard_and_a_small_one_is_not() -> None:
    weight, offset = normal(6, 6) / 4, normal(4, 6, seed=1)

    def f(z: Tensor) -> Tensor:
        return torch.tanh(z @ weight.T + offset)

    limits = {"tolerance": 1e-9, "max_evaluations": 400}
    start = torch.zeros_like(offset)
    stiff = solve(f, start, Anderson(ridge=1e9), **limits)
    plain = solve(f, start, Picard(), **limits)
    assert torch.equal(stiff.evaluations, plain.evaluations)
    torch.testing.assert_close(stiff.z, plain.z, rtol=0, atol=1e-8)
    for ridge in (None, 1e-14, 1e-6, 0.0):
        quick = solve(f, start, Anderson(ridge=ridge), **limits)
        assert quick.converged.all(), ridge
        assert int(quick.evaluations.sum()) < int(plain.evaluations.sum()), ridge


@pytest.mark.parametrize(("dtype", "spread"), [(torch.float64, 1e-8), (torch.float32, 1e-4)], ids=str)
def test_steps_far_apart_in_size_count_alike(dtype: torch.dtype, spread: float) -> None:
    """With a ridge relative to the largest step alone the smallest would be lost in it."""
    sizes = torch.tensor([1.0, spread**0.5, spread], dtype=dtype)
    slopes = torch.tensor([-0.5, -0.3, 0.2], dtype=dtype)
    solver = Anderson(window=3)
    z = sizes[None].clone()
    memory = solver.init(z)
    for component in (0, 1, 2, None):
        proposal, memory = solver.step(z, slopes * z, memory)
        if component is not None:
            z = z + torch.eye(3, dtype=dtype)[component] * sizes
    # The field is linear with root 0, and the history spans all: what is proposed is the root, in every component's own unit.
    assert (proposal[0].abs() / sizes).max() < 1e3 * torch.finfo(dtype).eps


@pytest.mark.parametrize("kinds", [1, 2, 3, 5])
@pytest.mark.parametrize("mixing", [1.0, 0.5])
def test_anderson_ends_after_as_many_steps_as_distinct_eigenvalues(kinds: int, mixing: float) -> None:
    """However large the space: GMRES needs one step for each distinct eigenvalue, and Anderson one evaluation more."""
    eigenvalues = torch.linspace(-0.8, 0.8, kinds, dtype=torch.float64).repeat(60 // kinds + 1)[:60]
    basis = torch.linalg.qr(normal(60, 60)).Q
    matrix = basis @ torch.diag(eigenvalues) @ basis.T
    offset = normal(4, 60, seed=1)
    solution = solve(
        lambda z: z @ matrix.T + offset,
        torch.zeros_like(offset),
        Anderson(window=kinds, mixing=mixing),
        tolerance=1e-9,
        max_evaluations=50,
    )
    assert solution.converged.all()
    assert solution.evaluations.max() <= kinds + 2
    if kinds > 1:
        assert solution.evaluations.min() > kinds


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_elimination_against_torch(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The branch that is compiled, run eagerly."""
    factor = normal(11, size, size)
    matrix = (factor @ factor.mT + 1e-3 * torch.eye(size, dtype=torch.float64)).permute(1, 2, 0)
    right = normal(size, 11, seed=1)
    expected = torch.linalg.solve(matrix.permute(2, 0, 1), right.T).T
    eager = anderson._solve_symmetric(matrix, right)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    unrolled = anderson._solve_symmetric(matrix, right)
    assert eager.shape == unrolled.shape == (size, 11)
    torch.testing.assert_close(eager, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(unrolled, expected, rtol=1e-9, atol=1e-9)


def test_elimination_keeps_a_bad_system_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.eye(3, dtype=torch.float64)[:, :, None].repeat(1, 1, 4)
    matrix[:, :, 1] = torch.nan
    matrix[:, :, 2] = 0
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        found = anderson._solve_symmetric(matrix, torch.ones(3, 4, dtype=torch.float64))
        assert torch.equal(found[:, [0, 3]], torch.ones(3, 2, dtype=torch.float64))


# A solver of one's own


class HeavyBall(NamedTuple):
    """Picard with momentum, as a user may write it; its memory is the last step and a count."""

    mixing: float = 0.5
    momentum: float = 0.4
    safeguarded: bool = False

    def init(self, z: Tensor) -> dict[str, Tensor]:
        return {"velocity": torch.zeros_like(z), "steps": torch.zeros(len(z), dtype=torch.int64)}

    def step(self, z: Tensor, field: Tensor, memory: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        velocity = self.momentum * memory["velocity"] + self.mixing * field
        return z + velocity, {"velocity": velocity, "steps": memory["steps"] + 1}

    def forget(self, memory: dict[str, Tensor], samples: Tensor) -> dict[str, Tensor]:
        return {"velocity": memory["velocity"].masked_fill(samples[:, None], 0), "steps": memory["steps"]}

    def select(self, memory: dict[str, Tensor], samples: Tensor) -> dict[str, Tensor]:
        return {name: value[samples] for name, value in memory.items()}


@pytest.mark.parametrize("safeguarded", [False, True])
def test_a_users_own_solver(safeguarded: bool, splitting: str) -> None:
    crowd, solver = Crowd(speeds(), {4: "nan"}), HeavyBall(safeguarded=safeguarded)
    limits = {"tolerance": 1e-9, "max_evaluations": 800}
    found, expected = crowd.shrinking(solver, **limits), crowd.whole(solver, **limits)
    assert statuses(found) == ["nan" if sample == 4 else "converged" for sample in range(23)]
    assert torch.equal(found.evaluations, expected.evaluations)
    tame = torch.arange(23) != 4
    torch.testing.assert_close(found.z[tame], expected.z[tame], rtol=0, atol=1e-13)
    reference = crowd.whole(Anderson(), **limits)
    torch.testing.assert_close(found.z[tame], reference.z[tame], rtol=0, atol=1e-6)


def test_a_users_own_solver_is_safeguarded_where_it_asks() -> None:
    """Too much momentum runs away; thrown back, it does in the end what Picard does."""
    wild = {"mixing": 1.5, "momentum": 1.2}

    def f(z: Tensor) -> Tensor:
        return -0.9 * z + 1

    limits = {"tolerance": 1e-8, "max_evaluations": 5000}
    start = torch.zeros(3, 2, dtype=torch.float64)
    assert not solve(f, start, HeavyBall(**wild), **limits).converged.any()
    assert solve(f, start, HeavyBall(**wild, safeguarded=True), **limits).converged.all()


# Where the state has no components, and where gradients are recorded


@every_solver
def test_states_of_size_zero(solver: Solver) -> None:
    """Nothing to solve is solved, or refused in words; a shape error from inside would be neither."""
    try:
        solution = solve(torch.tanh, torch.zeros(3, 0), solver, tolerance=1e-5, max_evaluations=5)
    except ConfigError:
        return
    assert solution.converged.all()
    assert solution.z.shape == (3, 0)


@every_solver
def test_a_map_whose_weights_record_gradients(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch.no_grad() all solvers behave alike, and find what they find with it, also as samples leave."""
    monkeypatch.setattr(loop, "TILE", 20 * 4)
    monkeypatch.setattr(loop, "CROWD", 1.0)
    monkeypatch.setattr(loop, "FEW", 1)
    weight = (normal(4, 4) / 4).requires_grad_()
    rates = torch.linspace(0, 1, 20, dtype=torch.float64)

    def f(z: Tensor, rate: Tensor) -> Tensor:
        return torch.tanh(rate[:, None] * z @ weight.T + 1)

    def found() -> list[Tensor]:
        start, limits = torch.zeros(20, 4, dtype=torch.float64), {"tolerance": 1e-9, "max_evaluations": 200}
        return [
            solve(lambda z: f(z, rates), start, solver, **limits).z,
            solve(f, start, solver, context=(rates,), **limits).z,
        ]

    with torch.no_grad():
        expected = found()
    for recording, plain in zip(found(), expected, strict=True):
        assert torch.equal(recording, plain)


# Compiled; each pair of solver and map is compiled once for the whole module

RATES = torch.linspace(-0.7, 0.9, 40, dtype=torch.float64)
TURN = torch.linalg.qr(normal(8, 8)).Q


def compiled_cell(z: Tensor, rate: Tensor, offset: Tensor) -> Tensor:
    return torch.tanh(rate[:, None] * (z @ TURN)) + offset


@pytest.fixture(scope="module")
def _compiler() -> None:
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        pytest.skip("no C++ compiler")


@pytest.mark.usefixtures("_compiler")
@pytest.mark.parametrize("solver", [Anderson(window=2), Broyden(), Picard()], ids=lambda solver: type(solver).__name__)
def test_compiled_is_the_same_as_eager(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    """To roundoff, whole and as samples leave; a second tolerance and batch need no second compilation."""
    monkeypatch.setattr(loop, "TILE", 40 * 8)
    monkeypatch.setattr(loop, "FEW", 1)
    context = (RATES, normal(40, 8, seed=1))

    def compare(tolerance: float, rows: slice, budget: int = 300) -> None:
        part = tuple(tensor[rows] for tensor in context)
        start = torch.zeros_like(part[1])
        limits = {"context": part, "tolerance": tolerance, "max_evaluations": budget}
        eager = solve(compiled_cell, start, solver, **limits)
        found = solve(compiled_cell, start, solver, compiled=True, **limits)
        assert statuses(found) == statuses(eager)
        assert (found.evaluations - eager.evaluations).abs().max() <= 1
        torch.testing.assert_close(found.z, eager.z, rtol=0, atol=20 * tolerance)
        again = relative_residual(found.z, compiled_cell(found.z, *part))
        torch.testing.assert_close(found.residual, again, rtol=0, atol=1e-14)

    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        compare(1e-9, slice(None))
        compare(1e-9, slice(5, 35))
        compare(1e-9, slice(39, 40))
    with torch.compiler.set_stance("fail_on_recompile"):
        compare(1e-5, slice(None))
        compare(1e-9, slice(2, 30), 4)


def troubled_cell(z: Tensor, rate: Tensor, fault: Tensor) -> Tensor:
    """A map that is NaN, late or at once, that grows, or that jumps, where ``fault`` (B, 1) says so."""
    image = torch.tanh(rate[:, None] * (z @ TURN)) + 0.3
    image = torch.where(fault == 1, torch.nan, image)
    image = torch.where((fault == 2) & (z.abs() > 0.2), torch.nan, image)
    image = torch.where(fault == 3, z + 1 + z.abs(), image)
    return torch.where(fault == 4, torch.where(z > 0, -1.0, 1.0).to(z), image)


@pytest.mark.usefixtures("_compiler")
@pytest.mark.parametrize("solver", [Anderson(), Broyden(memory=3), HeavyBall(safeguarded=True)], ids=str)
def test_compiled_solvers_are_safeguarded_too(solver: Solver) -> None:
    """Samples are thrown back and led, explained and left alone as they are where nothing is compiled."""
    rates = torch.linspace(0, 0.97, 20, dtype=torch.float64)
    fault = torch.zeros(20, 1, dtype=torch.int64)
    fault[[3, 7, 11, 15, 18], 0] = torch.tensor([1, 2, 3, 4, 1])
    limits = {"context": (rates, fault), "tolerance": 1e-8, "max_evaluations": 400}
    start = torch.zeros(20, 8, dtype=torch.float64)
    eager = solve(troubled_cell, start, solver, **limits)
    found = solve(troubled_cell, start, solver, compiled=True, **limits)
    assert statuses(found) == statuses(eager)
    assert {"nan", "diverged", "stagnated", "converged"} == set(statuses(found))
    tame = fault[:, 0] == 0
    assert found.converged[tame].all()
    assert (found.evaluations - eager.evaluations)[tame].abs().max() <= 1
    torch.testing.assert_close(found.z[tame], eager.z[tame], rtol=0, atol=1e-7)


class Memoryless(NamedTuple):
    """Half a Picard step."""

    safeguarded: bool = False

    def init(self, z: Tensor) -> None:
        """It has no memory."""

    def step(self, z: Tensor, field: Tensor, memory: None) -> tuple[Tensor, None]:
        return z + 0.5 * field, None

    def forget(self, memory: None, samples: Tensor) -> None:
        """Nothing."""

    def select(self, memory: None, samples: Tensor) -> None:
        """Nothing."""


class Momentum(NamedTuple):
    """The state before is all of its memory, at first the start itself."""

    safeguarded: bool = False

    def init(self, z: Tensor) -> Tensor:
        return z

    def step(self, z: Tensor, field: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        return z + 0.3 * (z - memory) + 0.5 * field, z

    def forget(self, memory: Tensor, samples: Tensor) -> Tensor:
        return memory

    def select(self, memory: Tensor, samples: Tensor) -> Tensor:
        return memory[samples]


@pytest.mark.usefixtures("_compiler")
@pytest.mark.parametrize("solver", [Memoryless(), Momentum()], ids=str)
def test_a_users_own_solver_is_compiled(solver: Solver) -> None:
    start = torch.zeros(40, 8, dtype=torch.float64)
    limits = {"context": (RATES, normal(40, 8, seed=1)), "tolerance": 1e-8, "max_evaluations": 400}
    eager = solve(compiled_cell, start, solver, **limits)
    found = solve(compiled_cell, start, solver, compiled=True, **limits)
    assert found.converged.all()
    assert torch.equal(found.evaluations, eager.evaluations)
    torch.testing.assert_close(found.z, eager.z, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("_compiler")
def test_one_map_is_compiled_for_states_of_any_shape_and_any_window() -> None:
    """Sizes that change from solve to solve are no reason to take the window or the state's size for a variable."""
    for shape, window in [((6,), 5), ((9,), 5), ((9,), 2)]:
        start = torch.zeros(4, *shape, dtype=torch.float64)
        limits = {"context": (normal(4, *shape),), "tolerance": 1e-9, "max_evaluations": 100, "compiled": True}
        assert solve(softened, start, Anderson(window=window), **limits).converged.all()


def softened(z: Tensor, offset: Tensor) -> Tensor:
    return torch.tanh(0.5 * z) + offset


def cliff(z: Tensor) -> Tensor:
    return torch.where(z.abs() > 1.5, torch.nan, z + 0.2 * (1 - z**3))


@pytest.mark.usefixtures("_compiler")
def test_a_single_sample_goes_on_compiled_after_it_was_thrown_back() -> None:
    start, limits = torch.zeros(1, 3, dtype=torch.float64), {"tolerance": 1e-9, "max_evaluations": 200}
    eager = solve(cliff, start, Anderson(window=1), **limits)
    found = solve(cliff, start, Anderson(window=1), compiled=True, **limits)
    assert eager.converged.all()
    assert found.converged.all()
    assert (found.evaluations - eager.evaluations).abs().max() <= 1


@every_solver
def test_a_solution_is_nobody_elses(solver: Solver) -> None:
    """Where the start remains the best state, it is a copy that is returned, which may be written to."""
    start = torch.zeros(1, 4).expand(3, 4)
    found = solve(lambda z: 0.5 * z + 1, start, solver, tolerance=1e-5, max_evaluations=1)
    found.z.add_(1)
    assert not start.any()


def test_half_precision_steps_whose_squares_overflow() -> None:
    """Products of steps are taken in float32: in float16 those of 256 already overflow, and Anderson is thrown back."""
    turn = 0.95 * torch.linalg.qr(normal(4, 4)).Q
    offset = 500 * normal(5, 4, seed=1)
    limits = {"tolerance": 8 * torch.finfo(torch.float16).eps, "max_evaluations": 100}
    found = solve(lambda z: z @ turn.half() + offset.half(), torch.zeros(5, 4).half(), Anderson(), **limits)
    assert found.converged.all()
    assert found.evaluations.max() <= 12
