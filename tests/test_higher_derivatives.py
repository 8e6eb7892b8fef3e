"""Second and third derivatives of an equilibrium, and those that torch.func takes, against the unrolled loop."""

from collections.abc import Callable

import pytest
import torch
from implicit_problems import BATCH, DIM, Cell, coupled_cell, equilibrium, loss, tanh_cell, weight_and_features
from solver_problems import SOLVERS, every_solver, normal
from torch import Tensor
from torch.autograd import gradgradcheck

from stabdeq.solvers import Picard, Solver, solve
from stabdeq.solvers.implicit import InexactGradientWarning, attach_gradient


def unrolled(cell: Cell, weight: Tensor, h: Tensor, *, steps: int = 250) -> Tensor:
    z = torch.zeros_like(h)
    for _ in range(steps):
        z = cell(z, weight, h)
    return z


both_cells = pytest.mark.parametrize(("cell", "coupled"), [(tanh_cell, False), (coupled_cell, True)])
both_ways = pytest.mark.parametrize("way", ["autograd", "func"])


@every_solver
def test_gradgradcheck(solver: Solver) -> None:
    weight, h = weight_and_features()
    weight, h = weight[:2, :2].detach().requires_grad_(), h[:2, :2].detach().requires_grad_()
    assert gradgradcheck(lambda w, h: equilibrium(tanh_cell, w, h, solver=solver)[0], (weight, h), fast_mode=True)


def test_gradgradcheck_of_coupled_samples() -> None:
    weight, h = weight_and_features()
    assert gradgradcheck(lambda w, h: equilibrium(coupled_cell, w, h, coupled=True)[0], (weight, h), fast_mode=True)


@every_solver
@both_cells
@both_ways
def test_hessian_vector_product_against_the_unrolled_loop(solver: Solver, cell: Cell, coupled: bool, way: str) -> None:
    inputs = weight_and_features()
    probes = normal(DIM, DIM, seed=5), normal(BATCH, DIM, seed=6)

    def found(w: Tensor, h: Tensor) -> Tensor:
        return loss(equilibrium(cell, w, h, solver=solver, coupled=coupled)[0], w, h)

    def expected(w: Tensor, h: Tensor) -> Tensor:
        return loss(unrolled(cell, w, h), w, h)

    def product(function: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        if way == "autograd":
            first = torch.autograd.grad(function(*inputs), inputs, create_graph=True)
            return torch.autograd.grad(first, inputs, probes)

        def slope(w: Tensor, h: Tensor) -> Tensor:
            first = torch.func.grad(function, argnums=(0, 1))(w, h)
            return sum((one * probe).sum() for one, probe in zip(first, probes, strict=True))

        return torch.func.grad(slope, argnums=(0, 1))(*(tensor.detach() for tensor in inputs))

    for ours, theirs in zip(product(found), product(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


@both_ways
def test_third_derivative(way: str) -> None:
    weight, h = (tensor.detach() for tensor in weight_and_features())
    direction = normal(BATCH, DIM, seed=7)

    def third(solved: Callable[[Tensor], Tensor]) -> float:
        """d^3/dt^3 of the loss at h + t direction."""

        def along(t: Tensor) -> Tensor:
            return loss(solved(h + t * direction), weight, h)

        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        if way == "func":
            return torch.func.grad(torch.func.grad(torch.func.grad(along)))(t.detach()).item()
        value = along(t)
        for order in range(3):
            (value,) = torch.autograd.grad(value, t, create_graph=order < 2)
        return value.item()

    expected = third(lambda h: unrolled(tanh_cell, weight, h))
    assert abs(expected) > 0.1
    assert third(lambda h: equilibrium(tanh_cell, weight, h)[0]) == pytest.approx(expected, rel=1e-8)


@every_solver
def test_vjp_and_jacobian_of_torch_func(solver: Solver) -> None:
    weight, h = (tensor.detach() for tensor in weight_and_features())
    probe = normal(BATCH, DIM, seed=2)

    def found(w: Tensor, h: Tensor) -> Tensor:
        return equilibrium(tanh_cell, w, h, solver=solver)[0]

    def expected(w: Tensor, h: Tensor) -> Tensor:
        return unrolled(tanh_cell, w, h)

    z, pull_back = torch.func.vjp(found, weight, h)
    torch.testing.assert_close(z, expected(weight, h), rtol=0, atol=1e-10)
    for ours, theirs in zip(pull_back(probe), torch.func.vjp(expected, weight, h)[1](probe), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    for which in (0, 1):
        ours = torch.func.jacrev(found, argnums=which)(weight, h)
        torch.testing.assert_close(ours, torch.func.jacrev(expected, argnums=which)(weight, h), rtol=1e-9, atol=1e-10)


def test_jacobian_of_coupled_samples() -> None:
    weight, h = (tensor.detach() for tensor in weight_and_features())
    ours = torch.func.jacrev(lambda h: equilibrium(coupled_cell, weight, h, coupled=True)[0])(h)
    theirs = torch.func.jacrev(lambda h: unrolled(coupled_cell, weight, h))(h)
    assert theirs[0, :, 1].abs().max() > 1e-3  # a sample does feel its neighbour
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_second_derivative_of_an_expanding_map() -> None:
    """Where unrolling would diverge: z* = (I - W)^{-1} h is known."""
    weight = torch.tensor([[3.0, 1.0], [0.0, -2.0]], dtype=torch.float64, requires_grad=True)
    h = normal(3, 2).requires_grad_()
    probe = normal(2, 2, seed=1)

    def product(z: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(z.pow(3).sum(), weight, create_graph=True)
        return torch.autograd.grad((first * probe).sum(), weight)[0]

    inverse = torch.linalg.inv(torch.eye(2, dtype=torch.float64) - weight)
    found = equilibrium(lambda z, weight, h: z @ weight.T + h, weight, h, tolerance=1e-12)[0]
    torch.testing.assert_close(product(found), product(h @ inverse.T), rtol=1e-7, atol=1e-8)


def test_every_adjoint_solve_of_a_double_backward_pass_is_recorded() -> None:
    """One for the gradient; for its derivative, one for the adjoint's own adjoint and one for what then reaches z*."""
    weight, h = weight_and_features()
    attached, solution = equilibrium(tanh_cell, weight, h, tolerance=1e-11)
    (first,) = torch.autograd.grad(attached.pow(3).sum(), h, create_graph=True)
    assert len(solution.adjoint) == 1
    first.sum().backward()
    assert len(solution.adjoint) == 3
    for adjoint in solution.adjoint:
        assert adjoint.converged.all()
        assert (adjoint.residual <= 1e-11).all()
        assert adjoint.z.shape == (BATCH, DIM)
    assert not solution.adjoint[0].z.requires_grad


def test_a_failed_second_adjoint_says_so() -> None:
    weight, h = weight_and_features()
    solution = equilibrium(tanh_cell, weight, h, tolerance=1e-10)[1]
    tight = attach_gradient(tanh_cell, (weight, h), solution, Picard(), tolerance=1e-10, max_evaluations=2)
    with pytest.warns(InexactGradientWarning):
        (first,) = torch.autograd.grad(tight.pow(3).sum(), h, create_graph=True)
    with pytest.warns(InexactGradientWarning):
        first.sum().backward()
    assert [adjoint.converged.any().item() for adjoint in solution.adjoint] == [False] * 3


@both_ways
def test_features_that_depend_on_the_weights(way: str) -> None:
    """An input computed from another: partial derivatives only, or the weight would be counted twice."""
    weight, x = weight_and_features()
    probe = normal(DIM, DIM, seed=5)

    def found(w: Tensor) -> Tensor:
        return equilibrium(tanh_cell, w, torch.sin(x @ w))[0].pow(3).sum()

    def expected(w: Tensor) -> Tensor:
        return unrolled(tanh_cell, w, torch.sin(x @ w)).pow(3).sum()

    def derivatives(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        if way == "func":
            slope = torch.func.grad(function)
            return slope(weight.detach()), torch.func.grad(lambda w: (slope(w) * probe).sum())(weight.detach())
        (first,) = torch.autograd.grad(function(weight), weight, create_graph=True)
        return first, torch.autograd.grad((first * probe).sum(), weight)[0]

    for ours, theirs in zip(derivatives(found), derivatives(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_derivative_by_the_incoming_gradient() -> None:
    """The gradient is linear in dL/dz; its derivative by dL/dz is the tangent of z* (the double-backward trick)."""
    weight, h = weight_and_features()
    direction = normal(BATCH, DIM, seed=3)

    def tangent(z: Tensor) -> Tensor:
        cotangent = normal(BATCH, DIM, seed=4).requires_grad_()
        (pulled,) = torch.autograd.grad(z, h, cotangent, create_graph=True)
        return torch.autograd.grad(pulled, cotangent, direction)[0]

    ours = tangent(equilibrium(tanh_cell, weight, h)[0])
    step = 1e-6
    with torch.no_grad():
        above, below = (equilibrium(tanh_cell, weight, h + sign * step * direction)[0] for sign in (1, -1))
    torch.testing.assert_close(ours, (above - below) / (2 * step), rtol=1e-7, atol=1e-8)


def test_second_derivative_with_inputs_that_need_none() -> None:
    """A frozen weight, integers, and an input the map ignores."""
    weight, h = weight_and_features()
    labels, idle = torch.tensor([2, 0, 1, 0]), torch.ones(3, dtype=torch.float64, requires_grad=True)
    table = normal(3, DIM, seed=8).requires_grad_()

    def cell(z: Tensor, w: Tensor, labels: Tensor, idle: Tensor, table: Tensor) -> Tensor:
        return torch.tanh(z @ w.T + table[labels])

    inputs = (weight.detach(), labels, idle, table)
    with torch.no_grad():
        solution = solve(
            lambda z: cell(z, *inputs), torch.zeros_like(h), SOLVERS[0], tolerance=1e-13, max_evaluations=300
        )
    attached = attach_gradient(cell, inputs, solution, SOLVERS[0], tolerance=1e-13, max_evaluations=300)

    def second(z: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(z.pow(3).sum(), table, create_graph=True)
        return torch.autograd.grad(first.square().sum(), table)[0]

    expected = second(unrolled(tanh_cell, weight.detach(), table[labels]))
    torch.testing.assert_close(second(attached), expected, rtol=1e-8, atol=1e-9)
