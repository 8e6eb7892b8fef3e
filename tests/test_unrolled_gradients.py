"""Unrolled gradients: those of their steps, which approach the implicit one at the spectral radius."""

import pytest
import torch
from implicit_problems import BATCH, DIM, equilibrium, loss, tanh_cell, weight_and_features
from solver_problems import normal
from torch import Tensor

from stabdeq.solvers.implicit import attach_unrolled_gradient


def linear_case(mixing: float) -> tuple[Tensor, Tensor, Tensor, float]:
    """A symmetric weight with eigenvalues 0.8, 0.3, -0.2, features, a probe, and the rate of the damped iteration."""
    basis = torch.linalg.qr(normal(3, 3, seed=9)).Q
    weight = basis @ torch.diag(torch.tensor([0.8, 0.3, -0.2], dtype=torch.float64)) @ basis.T
    return weight, normal(BATCH, 3, seed=1).requires_grad_(), normal(BATCH, 3, seed=2), 1 - mixing + mixing * 0.8


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("mixing", [1.0, 0.6])
def test_unrolled_gradient_is_that_of_its_steps(steps: int, mixing: float) -> None:
    weight, h = weight_and_features()
    solution = equilibrium(tanh_cell, weight, h, tolerance=1e-4)[1]
    z = solution.z.detach().clone()
    for _ in range(steps):
        z = (1 - mixing) * z + mixing * tanh_cell(z, weight, h)
    z = z + (solution.z - z).detach()  # the value is the solution's own
    ours = attach_unrolled_gradient(lambda z: tanh_cell(z, weight, h), solution, steps=steps, mixing=mixing)
    assert torch.equal(ours, solution.z)
    for found, expected in zip(
        torch.autograd.grad(loss(ours, weight, h), (weight, h)),
        torch.autograd.grad(loss(z, weight, h), (weight, h)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    assert solution.adjoint == []
    assert not solution.z.requires_grad


def test_one_unrolled_step_is_the_jacobian_free_direction() -> None:
    """g' df/dh, the adjoint of J = 0; and it descends: its product with the implicit gradient is positive."""
    weight, h = weight_and_features()
    attached, solution = equilibrium(tanh_cell, weight, h)
    probe = normal(BATCH, DIM, seed=2)
    one = attach_unrolled_gradient(lambda z: tanh_cell(z, weight, h), solution, steps=1)
    (found,) = torch.autograd.grad(one, h, probe)
    torch.testing.assert_close(found, (1 - solution.z.square()) * probe, rtol=1e-10, atol=1e-12)
    (implicit,) = torch.autograd.grad(attached, h, probe)
    assert ((found * implicit).sum(1) > 0).all()
    assert not torch.allclose(found, implicit, rtol=0.01)


@pytest.mark.parametrize("mixing", [1.0, 0.5])
def test_unrolled_gradients_approach_the_implicit_one_at_the_spectral_radius(mixing: float) -> None:
    weight, h, probe, rate = linear_case(mixing)
    _, solution = equilibrium(lambda z, w, h: z @ w.T + h, weight, h)
    exact = torch.linalg.solve(torch.eye(3, dtype=torch.float64) - weight, probe.T).T

    def error(steps: int) -> Tensor:
        z = attach_unrolled_gradient(lambda z: z @ weight.T + h, solution, steps=steps, mixing=mixing)
        return (torch.autograd.grad(z, h, probe)[0] - exact).norm()

    assert (error(40) / error(20)).item() == pytest.approx(rate**20, rel=1e-4)
    assert error(150) < 1e-5


def test_unrolled_gradients_of_a_nonlinear_map_approach_it_too() -> None:
    weight, h = weight_and_features()
    attached, solution = equilibrium(tanh_cell, weight, h)
    probe = normal(BATCH, DIM, seed=2)
    implicit = torch.autograd.grad(attached, (weight, h), probe)
    many = attach_unrolled_gradient(lambda z: tanh_cell(z, weight, h), solution, steps=200)
    for ours, theirs in zip(torch.autograd.grad(many, (weight, h), probe), implicit, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
