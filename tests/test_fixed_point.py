"""The implicit layer in one call: its gradients against finite differences and the unrolled loop, and a toy solver in it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compilation import end_compilation_in
from implicit_problems import BATCH, DIM, coupled_cell, tanh_cell, weight_and_features
from solver_problems import SOLVERS, normal
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from stabdeq.errors import ConfigError
from stabdeq.solvers import (
    Anderson,
    Forward,
    Implicit,
    Picard,
    Solution,
    Solver,
    Unrolled,
    fixed_point,
    solve,
)
from stabdeq.solvers.implicit import InexactGradientWarning

LIMITS: dict[str, Any] = {"tolerance": 1e-13, "max_evaluations": 500}


class HalfStep(Solver):
    """A toy: half a Picard step, without a memory."""

    def init(self, z: Tensor) -> None:
        return None

    def step(self, z: Tensor, field: Tensor, memory: None) -> tuple[Tensor, None]:
        return z + 0.5 * field, None

    def forget(self, memory: None, samples: Tensor) -> None:
        return None

    def select(self, memory: None, samples: Tensor) -> None:
        return None


every_solver = pytest.mark.parametrize("solver", [*SOLVERS, HalfStep()], ids=lambda solver: type(solver).__name__)


def cell(z: Tensor, h: Tensor, weight: Tensor) -> Tensor:
    return tanh_cell(z, weight, h)


def layer(h: Tensor, weight: Tensor, solver: Solver = SOLVERS[0], **options: Any) -> Solution:
    options = {"inputs": (h,), "parameters": (weight,), **LIMITS, **options}
    return fixed_point(cell, torch.zeros_like(h), solver, **options)


def unrolled_loop(h: Tensor, weight: Tensor, f: Any = cell) -> Tensor:
    z = torch.zeros_like(h)
    for _ in range(400):
        z = f(z, h, weight)
    return z


@every_solver
def test_gradients_against_finite_differences(solver: Solver) -> None:
    weight, h = weight_and_features()
    assert gradcheck(lambda w, h: layer(h, w, solver).z, (weight, h), fast_mode=True)


@every_solver
@pytest.mark.parametrize("rows", [False, True])
def test_gradients_against_the_unrolled_loop(solver: Solver, rows: bool) -> None:
    """Given as rows or as parameters, what f reads is the same."""
    weight, h = weight_and_features()
    probe = normal(BATCH, DIM, seed=2)
    expected = torch.autograd.grad((unrolled_loop(h, weight) * probe).sum(), (h, weight))
    given: dict[str, Any] = {} if rows else {"inputs": (), "parameters": (h, weight)}
    solution = layer(h, weight, solver, **given)
    assert solution.converged.all()
    found = torch.autograd.grad((solution.z * probe).sum(), (h, weight))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    assert [one.converged.all().item() for one in solution.adjoint] == [True]


def test_second_derivatives() -> None:
    weight, h = weight_and_features()
    assert gradgradcheck(lambda w, h: layer(h, w).z, (weight, h), fast_mode=True)


class Cell(nn.Module):
    """A map that reads its weight from itself, as most users' do."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach())

    def forward(self, z: Tensor, h: Tensor, *given: Tensor) -> Tensor:
        return cell(z, h, self.weight)


def read_without_being_given(module: Cell, h: Tensor, how: str, adjoint: Implicit | Unrolled) -> Solution:
    start, options = torch.zeros_like(h), {"adjoint": adjoint, **LIMITS}
    if how == "the weight":
        return fixed_point(module, start, Anderson(), inputs=(h,), **options)
    if how == "both":
        return fixed_point(lambda z: module(z, h), start, Anderson(), **options)
    # Named, and not read by that name.
    return fixed_point(module, start, Anderson(), inputs=(h,), parameters=(module.weight,), **options)


@pytest.mark.parametrize("adjoint", [Implicit(), Unrolled(200)], ids=["implicit", "unrolled"])
@pytest.mark.parametrize("how", ["the weight", "both", "named for nothing"])
def test_what_the_map_reads_without_being_given_it_has_its_gradient_too(how: str, adjoint: Implicit | Unrolled) -> None:
    weight, h = weight_and_features()
    probe = normal(BATCH, DIM, seed=2)
    expected = torch.autograd.grad((layer(h, weight).z * probe).sum(), (h, weight))
    module = Cell(weight)
    solution = read_without_being_given(module, h, how, adjoint)
    found = torch.autograd.grad((solution.z * probe).sum(), (h, module.weight))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    assert len(solution.adjoint) == isinstance(adjoint, Implicit)


@pytest.mark.parametrize("how", ["the weight", "named for nothing"])
def test_second_derivatives_by_what_the_map_is_not_given(how: str) -> None:
    weight, h = weight_and_features()

    def slopes(module: Callable[..., Solution], *wanted: Tensor) -> tuple[Tensor, ...]:
        """The gradient of a penalty on the gradient, in which the weight has a part of its own."""
        (gradient,) = torch.autograd.grad(module(h).z.pow(3).sum(), h, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), (h, *wanted))

    module = Cell(weight)
    expected = slopes(lambda h: layer(h, weight), weight)
    found = slopes(lambda h: read_without_being_given(module, h, how, Implicit()), module.weight)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("how", ["the weight", "both"])
def test_a_derivative_of_a_gradient_by_what_the_map_is_not_given_is_refused(how: str) -> None:
    weight, h = weight_and_features()
    module = Cell(weight)
    wanted = h if how == "both" else module.weight
    with pytest.raises(ConfigError, match=r"would be incomplete.* without being given them: name them, in"):
        torch.autograd.grad(read_without_being_given(module, h, how, Implicit()).z.sum(), wanted, create_graph=True)


def test_a_jacobian_under_torch_func_of_a_map_that_reads_more() -> None:
    weight, h = weight_and_features()
    module = Cell(weight)
    found = torch.func.jacrev(lambda h: read_without_being_given(module, h, "the weight", Implicit()).z)(h.detach())
    expected = torch.func.jacrev(lambda h: layer(h, weight.detach()).z)(h.detach())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_frozen_weights_that_the_map_is_not_given_receive_none() -> None:
    weight, h = weight_and_features()
    frozen = Cell(weight).requires_grad_(False)
    assert not fixed_point(frozen, torch.zeros_like(h), Anderson(), inputs=(h.detach(),), **LIMITS).z.requires_grad


def test_coupled_samples() -> None:
    weight, h = weight_and_features()

    def found(weight: Tensor, h: Tensor) -> Tensor:
        z0 = torch.zeros_like(h)
        return fixed_point(
            lambda z, h, w: coupled_cell(z, w, h),
            z0,
            Anderson(),
            inputs=(h,),
            parameters=(weight,),
            coupled=True,
            **LIMITS,
        ).z

    assert gradcheck(found, (weight, h), fast_mode=True)


def test_of_many_steps_the_unrolled_gradient_is_the_implicit_one() -> None:
    weight, h = weight_and_features()
    exact = torch.autograd.grad(layer(h, weight).z.sum(), (h, weight))
    for steps, close in ((200, True), (1, False)):
        solution = layer(h, weight, adjoint=Unrolled(steps))
        found = torch.autograd.grad(solution.z.sum(), (h, weight))
        assert torch.allclose(found[1], exact[1], rtol=1e-9, atol=1e-10) == close
        assert solution.adjoint == []
    with pytest.raises(ConfigError, match="at least 1 step, not 0"):
        Unrolled(0)


def test_where_grad_is_off_the_solution_is_that_of_solve() -> None:
    weight, h = weight_and_features()
    with torch.no_grad():
        found = layer(h, weight)
    expected = solve(cell, torch.zeros_like(h), SOLVERS[0], context=(h,), parameters=(weight,), **LIMITS)
    assert torch.equal(found.z, expected.z)
    assert not found.z.requires_grad
    assert torch.equal(found.evaluations, expected.evaluations)


def test_the_adjoint_may_have_a_solver_and_limits_of_its_own() -> None:
    weight, h = weight_and_features()
    own = layer(h, weight, adjoint=Implicit(solver=Picard(), tolerance=1e-3, max_evaluations=3))
    with pytest.warns(InexactGradientWarning):
        own.z.sum().backward()
    (adjoint,) = own.adjoint
    assert adjoint.evaluations.max() <= 3
    loose = layer(h, weight, adjoint=Implicit(solver=Picard(), tolerance=1e-2))
    loose.z.sum().backward()
    tight = layer(h, weight, adjoint=Implicit(solver=Picard()))
    tight.z.sum().backward()
    assert loose.adjoint[0].evaluations.max() < tight.adjoint[0].evaluations.max()
    assert torch.equal(loose.z, tight.z)


def test_a_faster_map_is_solved_and_a_linearisation_asked_in_the_place_of_f() -> None:
    weight, h = weight_and_features()
    asked: list[str] = []

    def faster(z: Tensor, h: Tensor) -> Tensor:
        asked.append("forward")
        assert not z.requires_grad
        return torch.tanh(torch.addmm(h, z, weight.detach().T))

    def linearise(z: Tensor) -> Any:
        asked.append("linearise")
        slope = 1 - z.square()
        return lambda u, slope: (u * slope) @ weight.detach(), (slope,)

    def once(z: Tensor, h: Tensor, weight: Tensor) -> Tensor:
        asked.append("f")
        return cell(z, h, weight)

    solution = fixed_point(
        once,
        torch.zeros_like(h),
        Anderson(),
        inputs=(h,),
        parameters=(weight,),
        adjoint=Implicit(linearise=linearise),
        forward=Forward(faster, (h.detach(),)),
        **LIMITS,
    )
    assert set(asked) == {"forward"}
    asked.clear()
    found = torch.autograd.grad(solution.z.sum(), (h, weight))
    assert asked == ["f", "linearise"]
    for ours, theirs in zip(found, torch.autograd.grad(layer(h, weight).z.sum(), (h, weight)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_the_start_receives_no_gradient_and_what_needs_none_gets_none() -> None:
    weight, h = weight_and_features()
    start = torch.ones_like(h).requires_grad_()
    solution = fixed_point(cell, start, Anderson(), inputs=(h.detach(),), parameters=(weight,), **LIMITS)
    assert torch.autograd.grad(solution.z.sum(), (start, weight), allow_unused=True)[0] is None


def test_parameters_are_no_rows() -> None:
    """Of a batch solved in parts each part reads all of them, and one that is not a row for each sample is no input."""
    weight, h = weight_and_features()
    with pytest.raises(ConfigError, match="a row of context for each of 4 samples"):
        fixed_point(cell, torch.zeros_like(h), Anderson(), inputs=(h, weight), **LIMITS)


def test_compiled_with_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    end_compilation_in("aot_eager", monkeypatch)
    weight, h = weight_and_features()
    compiled = layer(h, weight, Picard(), compiled=True)
    eager = layer(h, weight, Picard())
    torch.testing.assert_close(compiled.z, eager.z, rtol=0, atol=1e-12)
    found, expected = (torch.autograd.grad(one.z.square().sum(), (h, weight)) for one in (compiled, eager))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
