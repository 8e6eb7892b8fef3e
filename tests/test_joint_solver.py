"""One history for a batch whose samples are coupled: the solver of their adjoint equation."""

import pytest
import torch
from implicit_problems import coupled_cell, equilibrium
from solver_problems import SOLVERS, normal
from torch import Tensor

from stabdeq.solvers import Anderson, Broyden, Picard, Solver, fixed_point, solve
from stabdeq.solvers.joint import Joint


def mixing(samples: int, dim: int) -> Tensor:
    """A contraction of all samples' states together, (B n, B n)."""
    matrix = normal(samples * dim, samples * dim, seed=3)
    return 0.8 * matrix / torch.linalg.matrix_norm(matrix, 2)


@pytest.mark.parametrize("rule", [Anderson(), Broyden()])
def test_a_coupled_batch_is_solved_as_one_vector_is(rule: Solver) -> None:
    matrix, offset = mixing(6, 3), normal(6, 3, seed=4)

    def f(z: Tensor) -> Tensor:
        return (z.flatten() @ matrix.T).view(-1, 3) + offset

    def flat(z: Tensor) -> Tensor:
        return z @ matrix.T + offset.flatten()

    limits = {"tolerance": 1e-10, "max_evaluations": 300}
    found = solve(f, torch.zeros(6, 3, dtype=torch.float64), Joint(rule), coupled=True, **limits)
    one = solve(flat, torch.zeros(1, 18, dtype=torch.float64), rule, **limits)
    apart = solve(f, torch.zeros(6, 3, dtype=torch.float64), rule, coupled=True, **limits)
    assert found.converged.all()
    assert abs(int(found.evaluations[0]) - int(one.evaluations[0])) <= 3
    assert int(found.evaluations[0]) < 0.7 * int(apart.evaluations[0])
    torch.testing.assert_close(found.z.flatten(), one.z.flatten(), rtol=0, atol=1e-8)


def test_the_adjoint_of_a_coupled_batch_takes_few_evaluations() -> None:
    """16; with a history for each sample, 33."""
    weight = normal(5, 5)
    weight = (0.9 * weight / torch.linalg.matrix_norm(weight, 2)).requires_grad_()
    h = normal(12, 5, seed=1).requires_grad_()
    attached, solution = equilibrium(coupled_cell, weight, h, tolerance=1e-10, coupled=True)
    (gradient,) = torch.autograd.grad((attached * normal(12, 5, seed=2)).sum(), h)
    z = torch.zeros_like(h)
    for _ in range(400):
        z = coupled_cell(z, weight, h)
    (expected,) = torch.autograd.grad((z * normal(12, 5, seed=2)).sum(), h)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-8)
    assert solution.adjoint[0].converged.all()
    assert solution.adjoint[0].evaluations.max() <= 20


@pytest.mark.parametrize("rule", SOLVERS)
def test_an_empty_batch(rule: Solver) -> None:
    empty = torch.zeros(0, 3, dtype=torch.float64)
    found = solve(lambda z: 0.5 * z, empty, Joint(rule), tolerance=1e-9, max_evaluations=9, coupled=True)
    assert found.z.shape == (0, 3)


def test_a_history_is_forgotten_by_all_or_by_none() -> None:
    rule = Joint(Anderson())
    z, target = normal(4, 2), normal(4, 2, seed=5)
    memory = rule.init(z)
    for _ in range(4):
        z, memory = rule.step(z, 0.4 * (target - z), memory)
    field = 0.4 * (target - z)
    forgotten = rule.forget(memory, torch.tensor([False, True, False, False]))
    torch.testing.assert_close(rule.step(z, field, forgotten)[0], z + field, rtol=0, atol=1e-12)
    with pytest.raises(AssertionError, match="do not leave"):
        rule.select(memory, torch.tensor([0]))


def test_picard_is_the_same_jointly() -> None:
    def f(z: Tensor) -> Tensor:
        return 0.5 * torch.cos(z) + z.mean(0) / 4

    limits = {"tolerance": 1e-9, "max_evaluations": 99, "coupled": True}
    start = normal(5, 2)
    assert torch.equal(solve(f, start, Joint(Picard()), **limits).z, solve(f, start, Picard(), **limits).z)


def test_samples_that_are_not_coupled_keep_histories_of_their_own() -> None:
    """Each stops by itself: a joint history would need one that reaches all."""
    rates = torch.linspace(-0.9, 0.9, 30, dtype=torch.float64)[:, None]
    h = normal(30, 2, seed=6).requires_grad_()
    solution = fixed_point(
        lambda z, h, rates: rates * z + h,
        torch.zeros_like(h),
        Anderson(),
        inputs=[h, rates],
        tolerance=1e-9,
        max_evaluations=50,
    )
    solution.z.sum().backward()
    assert solution.adjoint[0].evaluations.max() <= 4


def test_each_row_of_a_coupled_jacobian_is_solved_to_its_own_size() -> None:
    """Beside a large right-hand side a small one looks solved before it is begun."""
    slopes = torch.tensor([0.0, 0.97], dtype=torch.float64)
    weights = torch.tensor([1.0, 1e-9], dtype=torch.float64)

    def outputs(h: Tensor) -> Tensor:
        solved = fixed_point(
            lambda z, h: slopes * z + h,
            torch.zeros_like(h),
            Picard(),
            inputs=(h,),
            tolerance=1e-8,
            max_evaluations=2000,
            coupled=True,
        )
        return solved.z * weights

    rows = torch.func.jacrev(outputs)(torch.ones(1, 2, dtype=torch.float64))[0, :, 0]
    torch.testing.assert_close(rows, torch.diag(weights / (1 - slopes)), rtol=1e-5, atol=0)
