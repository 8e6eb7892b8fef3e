"""What a solver is given: bad samples beside good ones, coupled samples, shapes, dtypes, and the norm of a residual."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from solver_problems import SOLVERS, Counting, Map, both_widths, every_solver, normal, statuses
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.solvers import Anderson, Picard, Solver, loop, norm, relative_residual, solve

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


@pytest.mark.parametrize(
    ("start", "tolerance", "said"),
    [(torch.zeros(3), 1e-3, "add a dimension"), (torch.zeros(3, 1), float("nan"), "is below what")],
)
def test_states_without_components_and_nan_tolerances_are_refused(start: Tensor, tolerance: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        solve(lambda z: z / 2, start, Anderson(), tolerance=tolerance, max_evaluations=5)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_states_that_are_no_real_numbers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ConfigError, match="expected states of a floating-point dtype"):
        solve(lambda z: z, torch.zeros(2, 3, dtype=dtype), Anderson(), tolerance=1e-3, max_evaluations=5)


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


@every_solver
def test_a_solution_is_nobody_elses(solver: Solver) -> None:
    """Where the start remains the best state, it is a copy that is returned, which may be written to."""
    start = torch.zeros(1, 4).expand(3, 4)
    found = solve(lambda z: 0.5 * z + 1, start, solver, tolerance=1e-5, max_evaluations=1)
    found.z.add_(1)
    assert not start.any()
