"""``returns="image"``: f at the state that met the tolerance, at no evaluation more, and all else as without it."""

from typing import Any

import pytest
import torch
from compilation import end_compilation_in
from implicit_problems import tanh_cell, weight_and_features
from solver_problems import DIM, Crowd, every_solver, every_variant, normal, speeds

from stabdeq.errors import ConfigError
from stabdeq.solvers import Anderson, Picard, Solution, Solver, fixed_point, loop, relative_residual, solve

LIMITS: dict[str, Any] = {"tolerance": 1e-9, "max_evaluations": 700}


def assert_images(found: Solution, expected: Solution, crowd: Crowd) -> None:
    """``found`` holds the images of the states of ``expected`` where these converged, and elsewhere the states."""
    for name in ("residual", "status", "evaluations"):
        assert torch.equal(getattr(found, name).nan_to_num(), getattr(expected, name).nan_to_num())
    image = torch.where(expected.converged[:, None], crowd(expected.z, *crowd.context), expected.z)
    torch.testing.assert_close(found.z, image, rtol=0, atol=1e-15, equal_nan=True)


@every_variant
@pytest.mark.parametrize("faulty", [False, True])
def test_of_batches_in_parts(solver: Solver, faulty: bool, splitting: str) -> None:
    crowd = Crowd(speeds(slowest=0.9), {2: "nan", 5: "late nan", 14: "jump"} if faulty else {})
    limits = LIMITS | {"max_evaluations": 300}
    expected = crowd.shrinking(solver, **limits)
    calls = len(crowd.calls)
    found = crowd.shrinking(solver, **limits, returns="image")
    assert calls <= len(crowd.calls) <= calls + 1  # one of all, where they did not stay together
    assert_images(found, expected, crowd)


@every_solver
def test_of_a_whole_batch_at_no_evaluation_more(solver: Solver) -> None:
    crowd = Crowd(speeds())
    expected = crowd.whole(solver, **LIMITS)
    calls = len(crowd.calls)
    found = crowd.whole(solver, **LIMITS, returns="image")
    assert len(crowd.calls) == 2 * calls
    assert_images(found, expected, crowd)
    residual = relative_residual(found.z, crowd(found.z, *crowd.context))
    assert (residual <= found.residual).all()
    assert (residual < 0.97 * found.residual).any()


def test_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    end_compilation_in("aot_eager", monkeypatch)
    h = normal(5, 3, seed=1)

    def f(z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.5 * z.roll(1, 1) + h)

    for solver in (Anderson(), Picard()):
        eager, compiled = (
            solve(f, torch.zeros_like(h), solver, **LIMITS, compiled=compiled, returns="image")
            for compiled in (False, True)
        )
        assert torch.equal(compiled.evaluations, eager.evaluations)
        torch.testing.assert_close(compiled.z, eager.z, rtol=0, atol=1e-14)
        torch.testing.assert_close(compiled.residual, eager.residual, rtol=1e-3, atol=1e-15)


def test_the_gradient_is_that_of_the_equilibrium_at_the_image() -> None:
    weight, h = weight_and_features()
    options: dict[str, Any] = {"inputs": (h,), "parameters": (weight,), "tolerance": 1e-4, "max_evaluations": 500}

    def cell(z: torch.Tensor, h: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return tanh_cell(z, weight, h)

    def error(returns: Any, tolerance: float = 1e-4) -> tuple[torch.Tensor, ...]:
        solution = fixed_point(
            cell, torch.zeros_like(h), Picard(), **options | {"tolerance": tolerance}, returns=returns
        )
        return torch.autograd.grad(solution.z.square().sum(), (h, weight))

    exact, state, image = error("state", 1e-14), error("state"), error("image")
    for truth, rough, finer in zip(exact, state, image, strict=True):
        assert (finer - truth).norm() < 0.95 * (rough - truth).norm()


def test_the_adjoint_equation_has_its_image_too() -> None:
    """Where f is linear and the loss is a sum, the gradient's error is the adjoint's alone."""

    def error(returns: Any) -> float:
        h = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
        limits: dict[str, Any] = {"tolerance": 1e-3, "max_evaluations": 500}
        solution = fixed_point(
            lambda z, h: 0.8 * z + h, torch.zeros_like(h), Picard(), inputs=(h,), returns=returns, **limits
        )
        return float((torch.autograd.grad(solution.z.sum(), h)[0] - 5).norm())

    assert error("image") == pytest.approx(0.8 * error("state"), rel=1e-6)


@pytest.mark.parametrize(("max_evaluations", "converged"), [(700, 6), (5, 0)])
def test_where_the_lost_have_left(max_evaluations: int, converged: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that are left all converge, or none."""
    monkeypatch.setattr(loop, "FEW", 7 * DIM)  # so that the six that are left stay together
    crowd = Crowd(torch.full((23,), 0.9, dtype=torch.float64), dict.fromkeys(range(3, 20), "nan"))
    limits = {"tolerance": 1e-9, "max_evaluations": max_evaluations}
    expected = crowd.shrinking(Picard(), **limits)
    found = crowd.shrinking(Picard(), **limits, returns="image")
    assert min(map(len, crowd.calls)) == 6  # the others left
    assert found.converged.sum() == converged
    assert_images(found, expected, crowd)


def test_anything_else_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected .state. or .image., not 'images'"):
        solve(lambda z: z / 2, torch.zeros(1, 1), Picard(), tolerance=1e-3, max_evaluations=9, returns="images")  # pyrefly: ignore
