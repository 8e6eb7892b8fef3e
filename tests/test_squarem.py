"""SQUAREM: its contract, a loop written out beside it, maps of known answer, and its gradients."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from solver_problems import affine, dense_solution, normal, statuses, with_spectrum
from test_solver_rates import converges_where_picard_does, random_contraction
from torch import Tensor

from benchmarks.slow_maps import deaths_starts, deaths_step
from stabdeq.config import SquaremConfig
from stabdeq.solvers import Picard, Squarem, build_solver, fixed_point, solve
from stabdeq.testing import assert_solver


def test_it_meets_the_contract() -> None:
    assert_solver(Squarem())
    assert build_solver(SquaremConfig()) == Squarem()


def test_it_is_a_loop_written_out() -> None:
    """Three evaluations a cycle, each sample at its own place in it once one was forgotten."""
    weight, h = normal(5, 5).square() / 8, normal(3, 5, seed=1)  # of positive entries: jumps are long

    def f(z: Tensor) -> Tensor:
        return torch.tanh(z @ weight + h)

    def states(sample: int, count: int) -> list[Tensor]:
        z, seen = torch.zeros(5, dtype=torch.float64), []
        while True:
            one = torch.tanh(z @ weight + h[sample])
            two = torch.tanh(one @ weight + h[sample])
            r, v = one - z, two - 2 * one + z
            a = -max(1.0, math.sqrt(float(r @ r) / float(v @ v)))
            jump = z - 2 * a * r + a * a * v
            seen += [z, one, jump]
            if len(seen) >= count:
                return seen[:count]
            z = torch.tanh(jump @ weight + h[sample])

    solver = Squarem()
    z = torch.zeros(3, 5, dtype=torch.float64)
    memory = solver.init(z)
    expected = [states(sample, 15) for sample in range(3)]
    for step in range(10):
        torch.testing.assert_close(z, torch.stack([each[step] for each in expected]), rtol=1e-9, atol=1e-12)
        z, memory = solver.step(z, f(z) - z, memory)
    forgotten = torch.tensor([False, True, False])
    memory = solver.forget(memory, forgotten)
    z = torch.where(forgotten[:, None], 0, z)
    for step in range(10, 15):
        rows = [each[step - 10 if sample == 1 else step] for sample, each in enumerate(expected)]
        torch.testing.assert_close(z, torch.stack(rows), rtol=1e-9, atol=1e-12)
        z, memory = solver.step(z, f(z) - z, memory)


@pytest.mark.parametrize("rate", [0.5, 0.99, 0.9999])
def test_one_jump_solves_a_map_of_one_eigenvalue(rate: float) -> None:
    offset = normal(4, 6)
    z0 = torch.zeros_like(offset)
    found = solve(lambda z: rate * z + (1 - rate) * offset, z0, Squarem(), tolerance=1e-11, max_evaluations=3)
    assert found.evaluations.tolist() == [3] * 4, statuses(found)
    torch.testing.assert_close(found.z, offset, rtol=0, atol=1e-6)


@pytest.mark.parametrize("largest", [0.9, 0.99])
def test_its_rate_is_that_of_the_root_of_the_gap(largest: float) -> None:
    """Plain steps take 1 / (1 - largest) evaluations for a digit, as many jumps as its root and a small multiple."""
    matrix = with_spectrum(torch.linspace(0, largest, 8, dtype=torch.float64))
    offset = normal(5, 8)
    found = solve(affine(matrix, offset), 0 * offset, Squarem(), tolerance=1e-8, max_evaluations=5000)
    assert found.converged.all()
    assert int(found.evaluations.max()) <= 9 * math.log(1e8) / math.sqrt(1 - largest)
    torch.testing.assert_close(found.z, dense_solution(matrix, offset), rtol=1e-3, atol=1e-4)


def test_expectation_maximisation_reaches_the_published_estimate() -> None:
    """Hasselblad's mixture of two Poisson laws: plain steps take thousands, as Varadhan and Roland report."""
    found = solve(deaths_step, deaths_starts(), Squarem(), tolerance=1e-9, max_evaluations=300)
    assert found.converged.all(), statuses(found)
    estimate = torch.tensor([0.3599, 1.2561, 2.6634], dtype=torch.float64)
    torch.testing.assert_close(found.z, estimate.expand_as(deaths_starts()), rtol=0, atol=1e-3)
    plain = solve(deaths_step, deaths_starts(), Picard(), tolerance=1e-9, max_evaluations=1000)
    assert not plain.converged.any()


# Found by search: without the safeguard these jumps lead away for good.
@pytest.mark.parametrize(("seed", "kind"), [(34, "relu"), (72, "relu"), (6, "linear"), (127, "linear")])
def test_it_converges_wherever_picard_does(seed: int, kind: str) -> None:
    converges_where_picard_does(random_contraction(seed, 4, 0.9, 3.0, kind), 4, [Squarem()])


def test_a_translation_is_no_equilibrium_and_makes_no_nan() -> None:
    """Its field does not change from step to step: there is no length to jump, and plain steps are what is left."""
    z = torch.zeros(2, 3, dtype=torch.float64)
    memory = Squarem().init(z)
    for count in range(1, 7):
        z, memory = Squarem().step(z, torch.ones_like(z), memory)
        assert (z == count).all()
    found = solve(
        lambda z: z + 1, torch.zeros(2, 3, dtype=torch.float64), Squarem(), tolerance=1e-9, max_evaluations=100
    )
    assert set(statuses(found)) <= {"diverged", "stagnated", "max_steps"}
    assert found.z.isfinite().all()


def test_scipy_finds_the_same() -> None:
    weight, h = 0.2 * normal(4, 4), normal(3, 4, seed=1)
    found = solve(
        lambda z: torch.tanh(z @ weight + h), torch.zeros_like(h), Squarem(), tolerance=1e-12, max_evaluations=500
    )
    assert found.converged.all()
    for z, row in zip(found.z, h, strict=True):
        other = scipy.optimize.root(
            lambda z, row=row: np.tanh(z @ weight.numpy() + row.numpy()) - z, np.zeros(4), tol=1e-13
        )
        assert np.abs(other.x - z.numpy()).max() < 1e-9


def test_where_the_map_expands_that_is_said() -> None:
    found = solve(
        lambda z: 3 * z + 1, torch.zeros(2, 3, dtype=torch.float64), Squarem(), tolerance=1e-9, max_evaluations=200
    )
    # One eigenvalue is solved by the jump all the same; two of another sign are not.
    matrix = torch.diag(torch.tensor([3.0, -4.0], dtype=torch.float64))
    other = solve(
        affine(matrix, normal(2, 2)),
        torch.zeros(2, 2, dtype=torch.float64),
        Squarem(),
        tolerance=1e-9,
        max_evaluations=200,
    )
    assert set(statuses(other)) <= {"diverged", "stagnated", "max_steps"}
    assert other.z.isfinite().all()
    assert found.z.isfinite().all()


def test_a_rotation_and_a_map_that_is_nan() -> None:
    quarter = torch.tensor([[0.0, 0.9], [-0.9, 0.0]], dtype=torch.float64)
    offset = normal(3, 2)
    found = solve(affine(quarter, offset), 0 * offset, Squarem(), tolerance=1e-9, max_evaluations=400)
    torch.testing.assert_close(found.z, dense_solution(quarter, offset), rtol=0, atol=1e-7)
    broken = solve(lambda z: z / 0 * 0, 0 * offset, Squarem(), tolerance=1e-9, max_evaluations=50)
    assert statuses(broken) == ["nan"] * 3


def test_half_precision_does_not_overflow() -> None:
    offset = torch.full((2, 4096), 30.0, dtype=torch.float16)
    found = solve(lambda z: 0.5 * z + offset, torch.zeros_like(offset), Squarem(), tolerance=0.01, max_evaluations=50)
    assert found.converged.all()
    assert found.z.isfinite().all()


def test_gradients_are_those_of_the_equilibrium() -> None:
    def equilibrium(h: Tensor, weight: Tensor) -> Tensor:
        return fixed_point(
            lambda z, h, weight: torch.tanh(z @ weight + h),
            torch.zeros_like(h),
            Squarem(),
            inputs=[h],
            parameters=[weight],
            tolerance=1e-13,
            max_evaluations=500,
        ).z

    inputs = (normal(2, 2, seed=1).requires_grad_(), (0.3 * normal(2, 2)).requires_grad_())
    assert torch.autograd.gradcheck(equilibrium, inputs)
    assert torch.autograd.gradgradcheck(equilibrium, inputs)
