"""Solvers on maps of known rate: how many evaluations each needs, and who is told of no progress."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from solver_problems import SOLVERS, Map, affine, dense_solution, generator, normal, statuses, with_spectrum

from stabdeq.solvers import Anderson, Broyden, Picard, Solver, solve

# Rates


@pytest.mark.parametrize("radius", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("mixing", [1.0, 0.5])
def test_picard_converges_at_the_spectral_radius(radius: float, mixing: float) -> None:
    matrix = with_spectrum(torch.tensor([radius, -0.3 * radius, 0.1], dtype=torch.float64))
    offset = 1e-3 * normal(1, 3)  # small states, so that the residual is absolute
    solution = solve(
        affine(matrix, offset),
        torch.zeros_like(offset),
        Picard(mixing),
        tolerance=1e-10,
        max_evaluations=4000,
        trace=True,
    )
    assert solution.converged.all()
    residuals = solution.trace.residual[:, 0]
    rate = (residuals[-1] / residuals[-21]) ** (1 / 20)
    assert rate == pytest.approx(1 - mixing + mixing * radius, rel=1e-4)


def test_slow_progress_is_progress() -> None:
    """At spectral radius 0.9995 no single step gains a thousandth, and still Picard arrives."""
    solution = solve(
        lambda z: 0.9995 * z + 1, torch.zeros(1, 1, dtype=torch.float64), Picard(), tolerance=2e-4, max_evaluations=5000
    )
    assert statuses(solution) == ["converged"]
    # The residual of z_k = 2000 (1 - 0.9995^k) is 0.9995^k / z_k.
    assert solution.evaluations.item() == pytest.approx(math.log(1 - 1 / 1.4) / math.log(0.9995), abs=2)


# The safeguard: Anderson and Broyden converge wherever Picard does


def random_contraction(seed: int, size: int, radius: float, skew: float, kind: str) -> Map:
    """A linear map of this spectral radius, far from normal where ``skew`` is large, or a ReLU or tanh map."""
    drawn = normal(size, size, seed=seed)
    offset = 10 * normal(size, seed=seed + 1)
    if kind == "linear":
        eigenvalues = 2 * torch.rand(size, generator=generator(seed), dtype=torch.float64) - 1
        eigenvalues = eigenvalues * radius / eigenvalues.abs().max()
        basis = torch.linalg.qr(normal(size, size, seed=seed + 2)).Q
        return affine(basis @ (torch.triu(skew * drawn, 1) + torch.diag(eigenvalues)) @ basis.T, offset)
    matrix = drawn / torch.linalg.matrix_norm(drawn, 2) * radius * (1 + skew)
    activation = {"relu": torch.relu, "tanh": torch.tanh}[kind]
    return lambda z: activation(z @ matrix.T + offset)


def converges_where_picard_does(f: Map, size: int, solvers: list[Solver]) -> None:
    start = torch.zeros(1, size, dtype=torch.float64)
    plain = solve(f, start, Picard(), tolerance=1e-7, max_evaluations=2000)
    if not plain.converged.all():
        return
    for solver in solvers:
        # However slowly: with a short memory, on such maps, a sample may be thrown back many times first.
        budget = 20 * int(plain.evaluations) + 1000
        solution = solve(f, start, solver, tolerance=1e-7, max_evaluations=budget)
        assert solution.converged.all(), (solver, statuses(solution), solution.residual, plain.evaluations)


@given(st.data())
def test_safeguarded_solvers_converge_wherever_picard_does(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 8))
    f = random_contraction(
        data.draw(st.integers(0, 2**20)),
        size,
        data.draw(st.sampled_from([0.3, 0.9, 0.98])),
        data.draw(st.sampled_from([0.0, 0.3, 1.0, 3.0, 10.0])),
        data.draw(st.sampled_from(["linear", "relu", "tanh"])),
    )
    converges_where_picard_does(
        f,
        size,
        [Anderson(), Anderson(window=1), Anderson(window=20), Anderson(mixing=0.5), Broyden(), Broyden(memory=3)],
    )


# Found by search: a short memory ran out of progress while Picard, from the start, had none of these troubles.
@pytest.mark.parametrize(("seed", "size", "radius", "skew"), [(1, 7, 0.98, 1.0), (2, 6, 0.98, 3.0), (3, 8, 0.9, 1.0)])
def test_short_memory_on_maps_far_from_normal(seed: int, size: int, radius: float, skew: float) -> None:
    f = random_contraction(seed, size, radius, skew, "linear")
    converges_where_picard_does(f, size, [Broyden(memory=2), Broyden(memory=3), Anderson(window=1), Anderson(window=2)])


def test_best_state_may_lie_where_picard_cycles() -> None:
    """Found by search: from the start Picard converges, from the best state of a short-memory Broyden it never does."""
    f = random_contraction(6352, 4, 0.9, 3.0, "relu")
    converges_where_picard_does(f, 4, [Broyden(memory=3), Broyden(), Anderson()])


def test_jordan_block_whose_residual_rises_first() -> None:
    matrix = 0.5 * torch.eye(6, dtype=torch.float64) + torch.diag(torch.full((5,), 4.0, dtype=torch.float64), 1)
    offset = torch.ones(1, 6, dtype=torch.float64)
    expected = dense_solution(matrix, offset)
    for solver in SOLVERS:
        solution = solve(affine(matrix, offset), 0 * offset, solver, tolerance=1e-9, max_evaluations=400)
        assert solution.converged.all(), solver
        torch.testing.assert_close(solution.z, expected, rtol=1e-4, atol=0)
