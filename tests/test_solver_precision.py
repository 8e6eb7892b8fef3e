"""Half precision, noise that is told from stagnation, and maps that change their own buffers."""

from collections.abc import Callable

import pytest
import torch
from solver_problems import every_solver, every_variant, generator, normal, statuses
from torch import Tensor, nn

from stabdeq.errors import ConfigError
from stabdeq.solvers import Anderson, Picard, Solution, Solver, loop, relative_residual, solve

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


def test_half_precision_steps_whose_squares_overflow() -> None:
    """Products of steps are taken in float32: in float16 those of 256 already overflow, and Anderson is thrown back."""
    turn = 0.95 * torch.linalg.qr(normal(4, 4)).Q
    offset = 500 * normal(5, 4, seed=1)
    limits = {"tolerance": 8 * torch.finfo(torch.float16).eps, "max_evaluations": 100}
    found = solve(lambda z: z @ turn.half() + offset.half(), torch.zeros(5, 4).half(), Anderson(), **limits)
    assert found.converged.all()
    assert found.evaluations.max() <= 12
