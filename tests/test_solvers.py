"""Solvers against dense solves, SciPy and maps of known roots; what a Solution says is true of what it holds."""

import pytest
import torch
from solver_problems import (
    SOLVERS,
    Counting,
    affine,
    both_widths,
    dense_solution,
    every_solver,
    normal,
    statuses,
    with_spectrum,
)
from torch import Tensor

from stabdeq.config import AndersonConfig, BroydenConfig, PicardConfig
from stabdeq.errors import SolverError
from stabdeq.solvers import Anderson, Broyden, Picard, Solver, Status, build_solver, norm, relative_residual, solve

# Known solutions


@every_solver
@both_widths
def test_linear_map_against_the_dense_solve(solver: Solver, dtype: torch.dtype) -> None:
    matrix = with_spectrum(torch.tensor([0.8, -0.7, 0.5, -0.2, 0.1], dtype=torch.float64)).to(dtype)
    offset = normal(16, 5, seed=1).to(dtype)
    tolerance = 20 * torch.finfo(dtype).eps
    solution = solve(affine(matrix, offset), torch.zeros_like(offset), solver, tolerance=tolerance, max_evaluations=500)
    assert solution.converged.all()
    assert solution.z.dtype == solution.residual.dtype == dtype
    expected = dense_solution(matrix.double(), offset.double())
    assert norm(solution.z.double() - expected).max() <= 500 * tolerance * norm(expected).max()


@pytest.mark.parametrize("solver", [Anderson(window=6), Broyden()], ids=["Anderson", "Broyden"])
def test_expanding_linear_map(solver: Solver) -> None:
    """Picard diverges on eigenvalues beyond 1; the others need only 1 not to be one."""
    matrix = with_spectrum(torch.tensor([3.0, -2.0, 0.5, -0.5], dtype=torch.float64))
    offset = normal(4, 4, seed=1)
    solution = solve(affine(matrix, offset), torch.zeros_like(offset), solver, tolerance=1e-9, max_evaluations=200)
    assert solution.converged.all()
    torch.testing.assert_close(solution.z, dense_solution(matrix, offset), rtol=1e-6, atol=1e-6)
    plain = solve(affine(matrix, offset), offset, Picard(), tolerance=1e-9, max_evaluations=200)
    assert statuses(plain) == ["diverged"] * 4


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_smooth_map_against_scipy(solver: Solver) -> None:
    from scipy.optimize import root

    weight, offset = normal(6, 6) / 3, normal(6, seed=1)

    def f(z: Tensor) -> Tensor:
        return torch.tanh(z @ weight.T + offset)

    solution = solve(f, torch.zeros(1, 6, dtype=torch.float64), solver, tolerance=1e-12, max_evaluations=2000)
    reference = root(lambda z: (f(torch.from_numpy(z)[None]) - torch.from_numpy(z)).numpy()[0], [0.0] * 6, tol=1e-13)
    assert reference.success
    assert solution.converged.all()
    torch.testing.assert_close(solution.z[0], torch.from_numpy(reference.x), rtol=1e-9, atol=1e-10)


def test_exact_root_of_a_constant_map() -> None:
    """The second evaluated state solves it exactly, and nothing is divided by zero."""
    for solver in SOLVERS:
        solution = solve(
            lambda z: torch.full_like(z, 3.0), torch.zeros(2, 3), solver, tolerance=1e-6, max_evaluations=9
        )
        assert solution.z.tolist() == [[3.0] * 3] * 2
        assert solution.evaluations.tolist() == [2, 2]
        assert solution.residual.tolist() == [0.0, 0.0]


# Known answers of ZOO: 14, 15, 16, 18


def test_picard_cycles_where_the_flow_is_stable() -> None:
    def f(z: Tensor) -> Tensor:
        return torch.relu(4 - 3 * z)

    start = torch.zeros(1, 1, dtype=torch.float64)
    plain = solve(f, start, Picard(), tolerance=1e-8, max_evaluations=500)
    assert statuses(plain) == ["stagnated"]
    for solver in (Anderson(), Broyden(), Picard(mixing=0.25)):
        solution = solve(f, start, solver, tolerance=1e-8, max_evaluations=200)
        assert solution.converged.all()
        assert solution.z.item() == pytest.approx(1, abs=1e-7)


@every_solver
def test_well_posed_rotation_of_norm_ten(solver: Solver) -> None:
    weight = 10 * torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    offset = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    solution = solve(
        lambda z: torch.relu(z @ weight.T + offset),
        torch.zeros_like(offset),
        solver,
        tolerance=1e-9,
        max_evaluations=300,
    )
    assert solution.converged.all()
    torch.testing.assert_close(solution.z, torch.tensor([[0.0, 2.0]], dtype=torch.float64), rtol=0, atol=1e-7)


@every_solver
def test_continuum_of_equilibria(solver: Solver) -> None:
    start = torch.tensor([[-1.0], [0.0], [3.0]])
    solution = solve(torch.relu, start, solver, tolerance=1e-6, max_evaluations=20)
    assert solution.converged.all()
    assert solution.z[:, 0].tolist() == [0.0, 0.0, 3.0]


def test_three_roots_from_three_starts() -> None:
    def f(z: Tensor) -> Tensor:
        return 3 * torch.relu(z - 1) - 3 * torch.relu(z - 2)

    start = torch.tensor([[0.5], [1.5], [2.5]])
    solution = solve(f, start, Picard(), tolerance=1e-6, max_evaluations=20)
    assert solution.z[:, 0].tolist() == [0.0, 1.5, 3.0]
    assert solution.evaluations.tolist() == [2, 1, 2]
    for solver in (Anderson(), Broyden()):
        found = solve(f, start, solver, tolerance=1e-6, max_evaluations=50)
        assert found.converged.all()
        assert (found.z - torch.tensor([0.0, 1.5, 3.0])).abs().amin(1).max() < 1e-5


def test_rotation_of_radius_close_to_one() -> None:
    matrix = 0.99 * torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    offset = torch.tensor([[1e-3, 2e-3]], dtype=torch.float64)
    expected = dense_solution(matrix, offset)
    plain = solve(affine(matrix, offset), 0 * offset, Picard(), tolerance=1e-9, max_evaluations=3000, trace=True)
    residuals = plain.trace.residual[:, 0]
    torch.testing.assert_close(residuals[1:] / residuals[:-1], torch.full_like(residuals[1:], 0.99))
    for solver in (Anderson(), Broyden()):
        solution = solve(affine(matrix, offset), 0 * offset, solver, tolerance=1e-9, max_evaluations=12)
        assert solution.converged.all()
        torch.testing.assert_close(solution.z, expected, rtol=1e-5, atol=0)


# What the Solution says


@every_solver
@pytest.mark.parametrize("budget", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("coupled", [False, True])
def test_residual_is_that_of_the_returned_state(solver: Solver, budget: int, coupled: bool) -> None:
    weight, offset = normal(5, 5), normal(8, 5, seed=1)

    def f(z: Tensor) -> Tensor:
        return torch.tanh(z @ weight.T + offset)

    solution = solve(f, torch.zeros_like(offset), solver, tolerance=1e-10, max_evaluations=budget, coupled=coupled)
    torch.testing.assert_close(solution.residual, relative_residual(solution.z, f(solution.z)), rtol=0, atol=0)
    assert torch.equal(solution.converged, solution.residual <= 1e-10)


@every_solver
@pytest.mark.parametrize("coupled", [False, True])
def test_evaluations_are_calls_of_the_map(solver: Solver, coupled: bool) -> None:
    rates = torch.tensor([[0.0], [0.5], [0.9], [-0.95]], dtype=torch.float64)
    counting = Counting(lambda z: torch.sin(rates * z) + 1)
    start = torch.zeros(4, 3, dtype=torch.float64)
    solution = solve(counting, start, solver, tolerance=1e-8, max_evaluations=300, coupled=coupled, trace=True)
    assert solution.converged.all()
    assert solution.evaluations.max() == len(counting.states) == len(solution.trace.residual)
    for sample, evaluations in enumerate(solution.evaluations.tolist()):
        # The sample stopped at the first state that met the tolerance: the one that is returned.
        residuals = solution.trace.residual[:, sample] if not coupled else solution.trace.residual.amax(1)
        assert (residuals[: evaluations - 1] > 1e-8).all()
        assert residuals[evaluations - 1] <= 1e-8
        assert torch.equal(counting.states[evaluations - 1][sample], solution.z[sample])


@every_solver
def test_trace_rows_are_the_residuals_of_the_evaluated_states(solver: Solver) -> None:
    weight = normal(4, 4) / 4
    counting = Counting(lambda z: torch.cos(z @ weight.T))
    solution = solve(
        counting, torch.zeros(3, 4, dtype=torch.float64), solver, tolerance=1e-9, max_evaluations=30, trace=True
    )
    for row, state in zip(solution.trace.residual, counting.states, strict=True):
        assert torch.equal(row, relative_residual(state, counting.f(state)))
    plain = solve(counting.f, torch.zeros(3, 4, dtype=torch.float64), solver, tolerance=1e-9, max_evaluations=30)
    assert plain.trace is None
    assert torch.equal(plain.z, solution.z)


@every_solver
def test_best_state_is_kept(solver: Solver) -> None:
    """Out of evaluations, it is the best one seen that is returned, not the last."""
    matrix = torch.tensor([[0.0, 8.0], [-0.5, 0.0]], dtype=torch.float64)
    solution = solve(
        affine(matrix, torch.ones(1, 2, dtype=torch.float64)),
        torch.zeros(1, 2, dtype=torch.float64),
        solver,
        tolerance=1e-14,
        max_evaluations=3,
        trace=True,
    )
    assert solution.residual == solution.trace.residual.min()
    assert statuses(solution) == ["max_steps"]
    assert solution.evaluations.tolist() == [3]


@every_solver
def test_two_cycle_stagnates(solver: Solver) -> None:
    """z = -z in (0, 1] has no root at all: the sign jumps."""
    solution = solve(
        lambda z: torch.where(z > 0, -1.0, 1.0).to(z),
        torch.ones(1, 1, dtype=torch.float64),
        solver,
        tolerance=1e-8,
        max_evaluations=2000,
    )
    assert statuses(solution) == ["stagnated"]


@every_solver
def test_throw(solver: Solver) -> None:
    def f(z: Tensor) -> Tensor:
        return 0.999 * z + 1

    start = torch.tensor([[0.0], [1000.0]], dtype=torch.float64)
    with pytest.raises(SolverError, match=r"1 of 2 ran out of evaluations \(max_steps: raise max_evaluations"):
        solve(f, start, solver, tolerance=1e-9, max_evaluations=2, throw=True)
    assert solve(f, start[1:], solver, tolerance=1e-9, max_evaluations=2, throw=True).converged.all()


def test_every_status_has_a_remedy() -> None:
    assert len({status.remedy for status in Status}) == len(Status)


def test_build_solver() -> None:
    assert build_solver(AndersonConfig(window=3, mixing=0.5)) == Anderson(window=3, mixing=0.5)
    assert build_solver(BroydenConfig()) == Broyden()
    assert build_solver(PicardConfig(mixing=0.5)) == Picard(mixing=0.5)
