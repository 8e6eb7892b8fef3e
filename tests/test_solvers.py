"""Solvers against dense solves, SciPy and maps of known rate; what a Solution says is true of what it holds."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stabdeq.config import SolverConfig
from stabdeq.errors import ConfigError, SolverError
from stabdeq.solvers import (
    Anderson,
    Broyden,
    Picard,
    Solution,
    Solver,
    Status,
    build_solver,
    norm,
    relative_residual,
    solve,
)

SOLVERS = [Anderson(), Broyden(), Picard()]
Map = Callable[[Tensor], Tensor]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
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
    with pytest.raises(SolverError, match=r"1 of 2 max_steps \(raise max_evaluations"):
        solve(f, start, solver, tolerance=1e-9, max_evaluations=2, throw=True)
    assert solve(f, start[1:], solver, tolerance=1e-9, max_evaluations=2, throw=True).converged.all()


def test_every_status_has_a_remedy() -> None:
    assert len({status.remedy for status in Status}) == len(Status)


# Neighbours


def hostile(sample: int, fault: str) -> Map:
    """A contraction whose ``sample`` returns NaN, infinity, or runs away."""
    rates = torch.linspace(-0.9, 0.9, 5, dtype=torch.float64)[:, None]
    turn = normal(4, 4) / 3

    def f(z: Tensor) -> Tensor:
        fz = torch.tanh(rates * (z @ turn)) + rates + 0.1
        bad = {
            "none": fz,
            "nan": torch.full_like(fz, torch.nan),
            "infinity": torch.full_like(fz, torch.inf),
            "late nan": torch.where(z.abs() > 0.05, torch.nan, fz),
            "divergence": 3 * z + 1,
        }[fault]
        return torch.where((torch.arange(5) == sample)[:, None], bad, fz)

    return f


@every_solver
@pytest.mark.parametrize("fault", ["nan", "infinity", "late nan", "divergence"])
def test_a_bad_sample_leaves_its_neighbours_bitwise_alone(solver: Solver, fault: str) -> None:
    start = torch.zeros(5, 4, dtype=torch.float64)
    clean = solve(hostile(2, "none"), start, solver, tolerance=1e-10, max_evaluations=300)
    solution = solve(hostile(2, fault), start, solver, tolerance=1e-10, max_evaluations=300)
    others = torch.tensor([0, 1, 3, 4])
    assert clean.converged.all()
    for name in ("z", "residual", "status", "evaluations"):
        assert torch.equal(getattr(solution, name)[others], getattr(clean, name)[others]), name
    assert solution.z.isfinite().all()


@pytest.mark.parametrize(
    ("fault", "status"),
    [("nan", "nan"), ("infinity", "nan"), ("late nan", "nan"), ("divergence", "diverged")],
)
def test_the_bad_sample_says_why(fault: str, status: str) -> None:
    solution = solve(
        hostile(2, fault), torch.zeros(5, 4, dtype=torch.float64), Picard(), tolerance=1e-10, max_evaluations=300
    )
    assert statuses(solution)[2] == status
    assert solution.evaluations[2] < 30


def test_nan_from_the_start_is_seen_by_every_solver() -> None:
    for solver in SOLVERS:
        solution = solve(lambda z: z * torch.nan, torch.zeros(2, 3), solver, tolerance=1e-5, max_evaluations=50)
        assert statuses(solution) == ["nan", "nan"]
        assert solution.evaluations.tolist() == [1, 1]
        assert solution.residual.isinf().all()
        assert torch.equal(solution.z, torch.zeros(2, 3))


@every_solver
def test_without_a_root_nobody_claims_one(solver: Solver) -> None:
    """z = z + 1: far out the relative residual is tiny, and it is no solution."""
    solution = solve(
        lambda z: z + 1 + z.abs(), torch.zeros(1, 2, dtype=torch.float64), solver, tolerance=1e-6, max_evaluations=500
    )
    assert not solution.converged.any()


# Coupled samples


@every_solver
def test_coupled_samples_stop_together_at_one_joint_state(solver: Solver) -> None:
    rates = torch.tensor([[0.1], [0.5], [0.9]], dtype=torch.float64)

    def f(z: Tensor) -> Tensor:
        return rates * (z - 0.3 * z.mean(0)) + 1

    counting = Counting(f)
    start = torch.zeros(3, 2, dtype=torch.float64)
    solution = solve(counting, start, solver, tolerance=1e-9, max_evaluations=400, coupled=True)
    assert solution.converged.all()
    assert solution.evaluations.tolist() == [len(counting.states)] * 3
    assert torch.equal(solution.z, counting.states[-1])
    early = solve(f, start, solver, tolerance=1e-9, max_evaluations=4, coupled=True)
    assert any(torch.equal(early.z, state) for state in counting.states[:4])
    assert torch.equal(early.residual, relative_residual(early.z, f(early.z)))


# Shapes and dtypes


@every_solver
@both_widths
def test_states_of_images(solver: Solver, dtype: torch.dtype) -> None:
    kernel = normal(3, 3, 3, 3).to(dtype) / 20
    offset = normal(2, 3, 4, 5, seed=1).to(dtype)

    def f(z: Tensor) -> Tensor:
        assert z.shape == (2, 3, 4, 5)
        return torch.tanh(torch.nn.functional.conv2d(z, kernel, padding=1) + offset)

    solution = solve(f, torch.zeros_like(offset), solver, tolerance=1e-5, max_evaluations=200)
    assert solution.converged.all()
    assert solution.z.shape == (2, 3, 4, 5)
    assert solution.z.dtype == dtype
    torch.testing.assert_close(solution.z, f(solution.z), rtol=0, atol=1e-3)
    strided = torch.zeros_like(offset).to(memory_format=torch.channels_last)
    again = solve(f, strided, solver, tolerance=1e-5, max_evaluations=200)
    torch.testing.assert_close(again.z, solution.z, rtol=0, atol=1e-4)


@every_solver
@pytest.mark.parametrize("shape", [(0, 3), (0, 2, 4, 4)])
@pytest.mark.parametrize("coupled", [False, True])
def test_empty_batch(solver: Solver, shape: tuple[int, ...], coupled: bool) -> None:
    solution = solve(
        torch.tanh,
        torch.zeros(shape),
        solver,
        tolerance=1e-4,
        max_evaluations=9,
        coupled=coupled,
        trace=True,
        throw=True,
    )
    assert solution.z.shape == shape
    assert len(solution.residual) == len(solution.status) == len(solution.evaluations) == 0
    assert solution.describe_failures() == ""


def test_the_start_is_left_alone() -> None:
    for solver in SOLVERS:
        start = torch.ones(2, 3)
        solve(torch.cos, start, solver, tolerance=1e-5, max_evaluations=50)
        assert torch.equal(start, torch.ones(2, 3))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-8), (torch.float64, 1e-16), (torch.float32, -1.0)])
def test_tolerance_below_roundoff_is_refused(dtype: torch.dtype, tolerance: float) -> None:
    with pytest.raises(ConfigError, match="below what torch"):
        solve(torch.tanh, torch.zeros(1, 1, dtype=dtype), Picard(), tolerance=tolerance, max_evaluations=5)


@pytest.mark.parametrize(
    "f",
    [lambda z: z[:, :2], lambda z: z.double(), lambda z: z[:1], lambda z: z[:, :, None]],
    ids=["narrower", "another dtype", "fewer samples", "another dimension"],
)
@every_solver
def test_map_that_changes_shape_or_dtype_is_refused(f: Map, solver: Solver) -> None:
    with pytest.raises(ConfigError, match="keep the state's shape and dtype"):
        solve(f, torch.zeros(2, 3), solver, tolerance=1e-4, max_evaluations=5)


def test_build_solver() -> None:
    assert build_solver(SolverConfig(name="anderson", window=3, mixing=0.5)) == Anderson(window=3, mixing=0.5)
    assert build_solver(SolverConfig(name="broyden")) == Broyden()
    assert build_solver(SolverConfig(name="picard", mixing=0.5)) == Picard(mixing=0.5)


# The norm and the residual


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=6),
    st.integers(-300, 300),
)
def test_norm_neither_overflows_nor_underflows(values: list[float], exponent: int) -> None:
    z = torch.tensor([values], dtype=torch.float64) * 10.0**exponent
    assert norm(z).item() == pytest.approx(math.hypot(*z[0].tolist()), rel=1e-14, abs=1e-320)


def test_norm_of_the_unusual() -> None:
    z = torch.tensor([[0.0, 0.0], [torch.inf, 1.0], [torch.nan, 1.0]])
    assert norm(z)[0] == 0
    assert norm(z)[1].isinf()
    assert norm(z)[2].isnan()
    assert norm(torch.zeros(2, 0)).tolist() == [0.0, 0.0]


def test_residual_is_relative_above_one_and_absolute_below() -> None:
    z = torch.tensor([[0.1, 0.0], [30.0, 40.0]])
    assert relative_residual(z, z + torch.tensor([0.3, 0.4])).tolist() == pytest.approx([0.5, 0.01], rel=1e-5)


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


@pytest.mark.parametrize(
    ("start", "tolerance", "said"),
    [(torch.zeros(3), 1e-3, "add a dimension"), (torch.zeros(3, 1), float("nan"), "is below what")],
)
def test_states_without_components_and_nan_tolerances_are_refused(start: Tensor, tolerance: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        solve(lambda z: z / 2, start, Anderson(), tolerance=tolerance, max_evaluations=5)
