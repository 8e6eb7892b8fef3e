"""Anderson's steps against the textbook: plain least squares, distinct eigenvalues, and its own elimination against torch."""

import pytest
import torch
from solver_problems import Map, affine, normal
from torch import Tensor

from stabdeq.solvers import Anderson, Picard, anderson, solve


@pytest.mark.parametrize("size", [1, 2, 4, 6, 8])
def test_full_anderson_ends_after_as_many_steps_as_eigenvalues(size: int) -> None:
    """Walker and Ni 2011, theorem 2.2: on a linear map it is GMRES, which needs n steps."""
    matrix = torch.diag(torch.linspace(-0.9, 0.9, size, dtype=torch.float64))
    offset = normal(3, size) + 2
    solution = solve(
        affine(matrix, offset), torch.zeros_like(offset), Anderson(window=size), tolerance=1e-9, max_evaluations=50
    )
    assert solution.converged.all()
    assert solution.evaluations.max() <= size + 3


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


def test_a_forgotten_history_is_that_of_a_new_start() -> None:
    """Of the samples that are forgotten alone, whatever the history held, NaN and infinity as well."""
    weight, offset = 0.95 * torch.linalg.qr(normal(20, 20)).Q, normal(20, seed=1)

    def f(z: Tensor) -> Tensor:
        return torch.sin(z @ weight.T) + offset

    solver, z = Anderson(window=4), normal(3, 20, seed=2)
    memory = solver.init(z)
    for count in range(9):
        field = f(z) - z
        if count == 6:
            field[2] = torch.nan
        z, memory = solver.step(z, field, memory)
    z[2] = normal(20, seed=3)
    forgotten = torch.tensor([True, False, True])
    memory = solver.forget(memory, forgotten)
    again, fresh = z[forgotten].clone(), solver.init(z[forgotten])
    untouched = z[1:2].clone()
    for _ in range(7):
        z, memory = solver.step(z, f(z) - z, memory)
        again, fresh = solver.step(again, f(again) - again, fresh)
        torch.testing.assert_close(z[forgotten], again, rtol=1e-8, atol=1e-8)
    assert z.isfinite().all()
    assert not torch.equal(z[1:2], untouched)
