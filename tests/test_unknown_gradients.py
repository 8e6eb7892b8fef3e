"""Gradients that are not known are NaN, never 0; those that are known are found where f hides it."""

from collections.abc import Callable

import pytest
import torch
from solver_problems import every_solver
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.solvers import Anderson, Forward, Implicit, Picard, Solution, Solver, Status, Unrolled, fixed_point
from stabdeq.solvers.implicit import InexactGradientWarning

IMPLICIT = Implicit()
LIMITS = {"tolerance": 1e-10, "max_evaluations": 99}
ways = pytest.mark.parametrize("adjoint", [Implicit(), Unrolled(1), Unrolled(3)], ids=str)


def half(z: Tensor, h: Tensor) -> Tensor:
    return 0.5 * torch.tanh(z) + h


def leaf(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64, requires_grad=True)


def layer(f: Callable[..., Tensor], h: Tensor, solver: Solver, adjoint: Implicit | Unrolled = IMPLICIT) -> Solution:
    return fixed_point(f, torch.zeros_like(h), solver, inputs=[h], adjoint=adjoint, **LIMITS)


@every_solver
@ways
def test_nan_from_above_stays_nan(solver: Solver, adjoint: Implicit | Unrolled) -> None:
    h = leaf([0.1, 0.2], [0.3, 0.1])
    for bad in (torch.nan, torch.inf):
        solution = layer(half, h, solver, adjoint)
        (gradient,) = torch.autograd.grad((solution.z * torch.tensor([[bad], [1.0]])).sum(), h)
        assert not gradient[0].isfinite().any()
        assert gradient[1].isfinite().all()
        assert (gradient[1] >= 1).all()


@every_solver
@ways
def test_where_the_equilibrium_is_nan_so_is_its_gradient(solver: Solver, adjoint: Implicit | Unrolled) -> None:
    h = leaf([torch.nan, 1.0], [1.0, 1.0])
    solution = layer(half, h, solver, adjoint)
    assert solution.status.tolist() == [Status.nan, Status.converged]
    (gradient,) = torch.autograd.grad(solution.z.sum(), h)
    assert gradient[0].isnan().all()
    assert (gradient[1] >= 1).all()


def test_in_higher_derivatives_and_jacobians_too() -> None:
    h = leaf([torch.nan, 1.0], [1.0, 1.0])
    (first,) = torch.autograd.grad(layer(half, h, Anderson()).z.pow(2).sum(), h, create_graph=True)
    (second,) = torch.autograd.grad(first[1].sum(), h, retain_graph=True)
    assert second[1].isfinite().all()
    assert first[0].isnan().all()
    jacobian = torch.func.jacrev(lambda h: layer(half, h, Anderson()).z)(h.detach())
    assert jacobian[0, :, 0].isnan().any(0).all()
    assert jacobian[1, :, 1].isfinite().all()


def test_a_diverged_adjoint_is_no_gradient() -> None:
    """The equilibrium is found, its adjoint equation is not: u -> J' u + g turns and grows threefold."""
    rotation = 3 * torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    h = leaf([0.1, 0.2], [0.3, 0.1])
    adjoint = Implicit(solver=Picard())
    solution = layer(lambda z, h: torch.cat([(z @ rotation)[:1], 0.5 * z[1:]]) + h, h, Anderson(), adjoint)
    assert solution.converged.all()
    solution.z.sum().backward()
    assert solution.adjoint[0].status.tolist() == [Status.diverged, Status.converged]
    assert h.grad[0].isnan().all()
    torch.testing.assert_close(h.grad[1], torch.full((2,), 2.0, dtype=torch.float64))


def test_one_short_of_its_tolerance_says_so() -> None:
    h = leaf([0.1, 0.2])
    solution = layer(lambda z, h: 0.99 * z + h, h, Anderson(), Implicit(solver=Picard(), max_evaluations=50))
    with pytest.warns(InexactGradientWarning, match="look at `adjoint`"):
        solution.z.sum().backward()
    assert h.grad.isfinite().all()


@every_solver
def test_a_map_that_ignores_the_state_has_the_gradient_of_itself(solver: Solver) -> None:
    h = leaf([0.1, 0.2])
    solution = layer(lambda z, h: torch.tanh(h), h, solver)
    (gradient,) = torch.autograd.grad(solution.z.sum(), h, create_graph=True)
    torch.testing.assert_close(gradient, 1 - torch.tanh(h) ** 2)
    (second,) = torch.autograd.grad(gradient.sum(), h)
    torch.testing.assert_close(second, -2 * torch.tanh(h) * (1 - torch.tanh(h) ** 2))


def test_a_map_that_ignores_everything_has_none() -> None:
    h = leaf([0.1, 0.2])
    solution = layer(lambda z, h: torch.ones(1, 2, dtype=torch.float64), h, Anderson())
    solution.z.sum().backward()
    assert h.grad is None


@pytest.mark.parametrize("adjoint", [Implicit(), Unrolled(2)], ids=str)
def test_a_slower_map_of_another_shape_is_refused_where_it_is_differentiated(adjoint: Implicit | Unrolled) -> None:
    h = leaf([0.1, 0.2])
    forward = Forward(half, (h.detach(),))
    for returned, message in ((lambda z, h: (half(z, h), 1), "one tensor"), (lambda z, h: half(z, h)[:, :1], "shape")):
        with pytest.raises(ConfigError, match=message):
            fixed_point(
                returned, torch.zeros_like(h), Anderson(), inputs=[h], adjoint=adjoint, forward=forward, **LIMITS
            ).z.sum().backward()
