"""Implicit gradients against finite differences, the unrolled loop and the dense adjoint solve."""

import pytest
import torch
from implicit_problems import BATCH, DIM, Cell, coupled_cell, equilibrium, tanh_cell, weight_and_features
from solver_problems import every_solver, normal
from torch import Tensor
from torch.autograd import gradcheck

from stabdeq.solvers import Picard, Solver, Status
from stabdeq.solvers.implicit import InexactGradientWarning, attach_gradient


@every_solver
def test_gradcheck(solver: Solver) -> None:
    weight, h = weight_and_features()
    assert gradcheck(lambda w, h: equilibrium(tanh_cell, w, h, solver=solver)[0], (weight, h), fast_mode=True)


def test_gradcheck_of_coupled_samples() -> None:
    weight, h = weight_and_features()
    assert gradcheck(lambda w, h: equilibrium(coupled_cell, w, h, coupled=True)[0], (weight, h), fast_mode=True)


@every_solver
@pytest.mark.parametrize(("cell", "coupled"), [(tanh_cell, False), (coupled_cell, True)])
def test_against_the_unrolled_loop(solver: Solver, cell: Cell, coupled: bool) -> None:
    weight, h = weight_and_features()
    probe = normal(BATCH, DIM, seed=2)
    z = torch.zeros_like(h)
    for _ in range(400):
        z = cell(z, weight, h)
    unrolled = torch.autograd.grad((z * probe).sum(), (weight, h))
    attached, _ = equilibrium(cell, weight, h, solver=solver, coupled=coupled)
    torch.testing.assert_close(attached, z, rtol=0, atol=1e-10)
    implicit = torch.autograd.grad((attached * probe).sum(), (weight, h))
    for ours, theirs in zip(implicit, unrolled, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_against_the_dense_adjoint_solve() -> None:
    weight, h = weight_and_features()
    probe = normal(BATCH, DIM, seed=2)
    attached, solution = equilibrium(tanh_cell, weight, h)
    (gradient,) = torch.autograd.grad((attached * probe).sum(), h)
    for sample in range(BATCH):
        slope = 1 - attached[sample].detach().square()
        jacobian = slope[:, None] * weight.detach()
        adjoint = torch.linalg.solve((torch.eye(DIM, dtype=torch.float64) - jacobian).T, probe[sample])
        torch.testing.assert_close(gradient[sample], slope * adjoint, rtol=1e-10, atol=1e-12)
        unscaled = solution.adjoint[0].z[sample] * probe[sample].norm()
        torch.testing.assert_close(unscaled, adjoint, rtol=1e-10, atol=1e-12)


def test_expanding_map() -> None:
    """The implicit gradient needs an invertible I - J, not a contraction: unrolling would not do."""
    weight = torch.tensor([[3.0, 1.0], [0.0, -2.0]], dtype=torch.float64, requires_grad=True)
    h = normal(3, 2).requires_grad_()
    attached, solution = equilibrium(lambda z, weight, h: z @ weight.T + h, weight, h, tolerance=1e-12)
    inverse = torch.linalg.inv(torch.eye(2, dtype=torch.float64) - weight)
    expected = torch.autograd.grad((h @ inverse.T).square().sum(), (weight, h))
    found = torch.autograd.grad(attached.square().sum(), (weight, h))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
    assert solution.adjoint[0].converged.all()


@every_solver
def test_states_of_images(solver: Solver) -> None:
    kernel = (normal(2, 2, 3, 3) / 10).requires_grad_()
    h = normal(2, 2, 3, 4, seed=1).requires_grad_()

    def cell(z: Tensor, kernel: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(torch.nn.functional.conv2d(z, kernel, padding=1) + h)

    assert gradcheck(lambda k, h: equilibrium(cell, k, h, solver=solver)[0], (kernel, h), fast_mode=True)


# Scale


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1.0, 1e20])
@pytest.mark.parametrize("coupled", [False, True])
def test_tiny_loss_gradients_are_solved_as_well_as_large_ones(scale: float, coupled: bool) -> None:
    """An absolute tolerance would return 0 for a loss averaged over much, or after a saturated softmax."""
    weight, h = weight_and_features()
    cell = coupled_cell if coupled else tanh_cell
    attached, solution = equilibrium(cell, weight, h, tolerance=1e-8, coupled=coupled)
    probe = normal(BATCH, DIM, seed=2)
    (plain,) = torch.autograd.grad(attached, h, probe, retain_graph=True)
    (scaled,) = torch.autograd.grad(attached, h, scale * probe)
    torch.testing.assert_close(scaled / scale, plain, rtol=1e-9, atol=1e-12)
    first, second = solution.adjoint
    assert torch.equal(first.evaluations, second.evaluations)


def test_float32_with_a_gradient_of_1e_20() -> None:
    weight, h = (tensor.detach().float().requires_grad_() for tensor in weight_and_features())
    attached, solution = equilibrium(tanh_cell, weight, h, tolerance=1e-5)
    probe = normal(BATCH, DIM, seed=2).float()
    (plain,) = torch.autograd.grad(attached, h, probe, retain_graph=True)
    (scaled,) = torch.autograd.grad(attached, h, probe * 1e-20)
    torch.testing.assert_close(scaled * 1e20, plain, rtol=1e-4, atol=1e-4)
    assert all(adjoint.converged.all() for adjoint in solution.adjoint)


def test_samples_of_very_different_gradients() -> None:
    """Uncoupled, each sample is solved at its own scale; one without a gradient costs one evaluation and gets 0."""
    weight, h = weight_and_features()
    attached, solution = equilibrium(tanh_cell, weight, h, tolerance=1e-10)
    probe = normal(BATCH, DIM, seed=2)
    (plain,) = torch.autograd.grad(attached, h, probe, retain_graph=True)
    scales = torch.tensor([[1e-20], [1.0], [0.0], [1e10]], dtype=torch.float64)
    (scaled,) = torch.autograd.grad(attached, h, scales * probe)
    torch.testing.assert_close(scaled[[0, 1, 3]] / scales[[0, 1, 3]], plain[[0, 1, 3]], rtol=1e-8, atol=1e-11)
    assert torch.equal(scaled[2], torch.zeros(DIM, dtype=torch.float64))
    assert solution.adjoint[1].evaluations[2] == 1


# What is recorded, and what is refused


def test_adjoint_is_recorded_at_each_backward_pass() -> None:
    weight, h = weight_and_features()
    attached, solution = equilibrium(tanh_cell, weight, h, tolerance=1e-10)
    assert solution.adjoint == []
    attached.sum().backward(retain_graph=True)
    attached.sum().backward()
    assert len(solution.adjoint) == 2
    for adjoint in solution.adjoint:
        assert adjoint.converged.all()
        assert (adjoint.residual <= 1e-10).all()
        assert adjoint.z.shape == (BATCH, DIM)


def test_failed_adjoint_says_so() -> None:
    weight, h = weight_and_features()
    solution = equilibrium(tanh_cell, weight, h, tolerance=1e-10)[1]
    tight = attach_gradient(tanh_cell, (weight, h), solution, Picard(), tolerance=1e-10, max_evaluations=2)
    with pytest.warns(InexactGradientWarning, match="max_evaluations"):
        tight.sum().backward()
    assert not solution.adjoint[0].converged.any()
    assert [Status(int(status)) for status in solution.adjoint[0].status] == [Status.max_steps] * BATCH
    assert h.grad.isfinite().all()


def test_inputs_that_need_no_gradient() -> None:
    weight, h = weight_and_features()
    frozen = weight.detach()
    attached, _ = equilibrium(tanh_cell, frozen, h)
    (ours,) = torch.autograd.grad(attached.sum(), h)
    both, _ = equilibrium(tanh_cell, weight, h)
    (expected,) = torch.autograd.grad(both.sum(), h)
    assert torch.equal(ours, expected)
    untouched, _ = equilibrium(tanh_cell, frozen, h.detach())
    assert not untouched.requires_grad


def test_input_that_the_map_ignores() -> None:
    _, h = weight_and_features()
    idle = torch.ones(3, requires_grad=True)
    attached, _ = equilibrium(lambda z, weight, h: torch.tanh(z / 2 + h), idle, h)
    attached.sum().backward()
    assert idle.grad is None
    assert h.grad.abs().min() > 0


def test_features_computed_by_a_backbone() -> None:
    """The gradient goes on through what h was computed from."""
    weight, x = weight_and_features()
    backbone = normal(DIM, DIM, seed=3).requires_grad_()

    def target(weight: Tensor, backbone: Tensor, x: Tensor) -> Tensor:
        return equilibrium(tanh_cell, weight, torch.tanh(x @ backbone))[0]

    assert gradcheck(target, (weight, backbone, x), fast_mode=True)


def test_weights_changed_before_the_backward_pass_are_noticed() -> None:
    weight, h = weight_and_features()
    attached, _ = equilibrium(tanh_cell, weight, h)
    with torch.no_grad():
        weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        attached.sum().backward()


@pytest.mark.parametrize("coupled", [False, True])
def test_empty_batch(coupled: bool) -> None:
    weight, _ = weight_and_features()
    h = torch.zeros(0, DIM, dtype=torch.float64, requires_grad=True)
    attached, _ = equilibrium(tanh_cell, weight, h, coupled=coupled)
    attached.sum().backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))
    assert h.grad.shape == (0, DIM)


def test_solution_itself_is_left_alone() -> None:
    weight, h = weight_and_features()
    attached, solution = equilibrium(tanh_cell, weight, h)
    assert torch.equal(attached, solution.z)
    assert attached.data_ptr() != solution.z.data_ptr()
    assert not solution.z.requires_grad
