"""Broyden's steps against the dense update, its short memory, its line search and its rate."""

import pytest
import torch
from solver_problems import affine, normal, statuses, with_spectrum
from torch import Tensor

from stabdeq.solvers import Broyden, broyden, solve


def test_broyden_ends_after_twice_as_many_steps_on_linear_maps() -> None:
    """Gay 1979: at most 2 n steps."""
    matrix, offset = with_spectrum(torch.linspace(-0.9, 0.9, 6, dtype=torch.float64)), normal(3, 6)
    solution = solve(affine(matrix, offset), offset, Broyden(), tolerance=1e-9, max_evaluations=50)
    assert solution.converged.all()
    assert solution.evaluations.max() <= 2 * 6 + 2


def test_broyden_is_superlinear_on_a_smooth_map() -> None:
    weight, offset = normal(3, 3) / 2, normal(1, 3, seed=1)
    solution = solve(
        lambda z: torch.tanh(z @ weight.T + offset),
        torch.zeros_like(offset),
        Broyden(),
        tolerance=1e-14,
        max_evaluations=60,
        trace=True,
    )
    residuals = solution.trace.residual[:, 0]
    assert solution.converged.all()
    gains = -residuals.log10().diff()
    # A linear rate gains the same number of digits at every step; a superlinear one more and more.
    assert gains[-3:].mean() > 2 * gains[:3].mean()
    assert gains[-1] > 1


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
