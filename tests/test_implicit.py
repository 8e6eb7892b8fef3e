"""Implicit gradients against finite differences, the unrolled loop and the dense adjoint solve."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from stabdeq.solvers import Anderson, Broyden, Picard, Solution, Solver, Status, solve
from stabdeq.solvers.implicit import attach_gradient, attach_unrolled_gradient

SOLVERS = [Anderson(), Broyden(), Picard()]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
BATCH, DIM = 4, 3
Cell = Callable[[Tensor, Tensor, Tensor], Tensor]  # (z, weight, h) -> next z


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tanh_cell(z: Tensor, weight: Tensor, h: Tensor) -> Tensor:
    return torch.tanh(z @ weight.T + h)


def coupled_cell(z: Tensor, weight: Tensor, h: Tensor) -> Tensor:
    """Each sample sees the batch's mean and variance, as under BatchNorm in training."""
    z = torch.tanh(z @ weight.T + h)
    return 0.4 * (z - z.mean(0)) / (z.var(0, correction=0) + 0.1).sqrt() + 0.2 * h


def weight_and_features() -> tuple[Tensor, Tensor]:
    weight = normal(DIM, DIM)
    weight = 0.9 * weight / torch.linalg.matrix_norm(weight, 2)
    return weight.requires_grad_(), normal(BATCH, DIM, seed=1).requires_grad_()


def equilibrium(
    cell: Cell,
    weight: Tensor,
    h: Tensor,
    *,
    solver: Solver = SOLVERS[0],
    tolerance: float = 1e-13,
    coupled: bool = False,
    max_evaluations: int = 500,
) -> tuple[Tensor, Solution]:
    """The equilibrium with its gradient attached, and the solution that holds the adjoint's."""

    def f(z: Tensor) -> Tensor:
        return cell(z, weight, h)

    with torch.no_grad():
        solution = solve(
            f, torch.zeros_like(h), solver, tolerance=tolerance, max_evaluations=max_evaluations, coupled=coupled
        )
    attached = attach_gradient(
        cell,
        (weight, h),
        solution,
        solver,
        tolerance=tolerance,
        max_evaluations=max_evaluations,
        coupled=coupled,
    )
    return attached, solution


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


# Second derivatives and beyond


def unrolled(cell: Cell, weight: Tensor, h: Tensor, *, steps: int = 250) -> Tensor:
    z = torch.zeros_like(h)
    for _ in range(steps):
        z = cell(z, weight, h)
    return z


both_cells = pytest.mark.parametrize(("cell", "coupled"), [(tanh_cell, False), (coupled_cell, True)])
both_ways = pytest.mark.parametrize("way", ["autograd", "func"])


def loss(z: Tensor, weight: Tensor, h: Tensor) -> Tensor:
    """Nonlinear in z, so that dL/dz depends on it, and with a path beside z."""
    return (z.pow(3) / 3 + torch.sin(2 * z)).sum() + (weight.square().sum() * h).sum()


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
    (first,) = torch.autograd.grad(tight.pow(3).sum(), h, create_graph=True)
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


# Unrolled gradients


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
