"""Maps that break a solve's assumptions: they write, couple the samples, run away, or return no state."""

from collections.abc import Callable

import pytest
import torch
from compilation import end_compilation_in
from solver_problems import SOLVERS, Counting, every_solver, normal, statuses
from torch import Tensor, nn

from stabdeq.errors import ConfigError
from stabdeq.solvers import Anderson, Implicit, Picard, Solver, Status, Unrolled, fixed_point, loop, norm, solve

LIMITS = {"tolerance": 1e-9, "max_evaluations": 300}


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


# Maps that write into what they are given


def written(z: Tensor, h: Tensor) -> Tensor:
    """z / 2 + h, whose equilibrium is 2 h."""
    return z.mul_(0.5).add_(h)


@every_solver
def test_a_map_may_write_into_its_state(solver: Solver) -> None:
    h = normal(3, 2).requires_grad_()
    start = -torch.ones(3, 2, dtype=torch.float64)
    for adjoint in (Implicit(), Unrolled(40)):
        solution = fixed_point(written, start, solver, inputs=[h], adjoint=adjoint, **LIMITS)
        assert solution.converged.all()
        torch.testing.assert_close(solution.z, 2 * h, rtol=0, atol=1e-8)
        assert torch.equal(start, -torch.ones(3, 2, dtype=torch.float64))
        (gradient,) = torch.autograd.grad(solution.z.sum(), h)
        torch.testing.assert_close(gradient, torch.full_like(h, 2), rtol=0, atol=1e-7)
    jacobian = torch.func.jacrev(lambda h: fixed_point(written, start, solver, inputs=[h], **LIMITS).z[0])(h)
    torch.testing.assert_close(jacobian[:, 0], 2 * torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-7)


def test_compiled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    end_compilation_in("aot_eager", monkeypatch)
    h = normal(3, 2)
    found = solve(written, zeros(3, 2), Picard(), context=[h], compiled=True, **LIMITS)
    assert found.converged.all()
    torch.testing.assert_close(found.z, 2 * h, rtol=0, atol=1e-8)


def test_a_cell_that_begins_with_an_inplace_relu() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 6).double()
    found, expected = (
        solve(lambda z: 0.3 * nn.Sequential(relu, layer)(z) - 1, zeros(4, 6), Anderson(), **LIMITS)  # noqa: B023
        for relu in (nn.ReLU(inplace=True), nn.ReLU())
    )
    assert expected.converged.all()
    assert torch.equal(found.z, expected.z)


@pytest.mark.parametrize("given", ["context", "parameters"])
def test_a_map_must_not_write_into_anything_else(given: str) -> None:
    with pytest.raises(ConfigError, match=r"writes into an input or a parameter.*must return a new tensor"):
        solve(lambda z, h: h.mul_(0.5).add_(0.1 * z), zeros(3, 2), Picard(), **{given: [normal(3, 2)]}, **LIMITS)


def test_a_map_that_returns_one_buffer_each_time_is_told_noisy() -> None:
    generator, buffer = torch.Generator().manual_seed(0), zeros(3, 2)

    def f(z: Tensor) -> Tensor:
        return buffer.copy_(0.5 * z + torch.randn(3, 2, generator=generator, dtype=torch.float64))

    assert statuses(solve(f, zeros(3, 2), Picard(), **LIMITS)) == ["noisy"] * 3


# Samples that depend on each other, though nobody said so


def neighbours(count: int) -> Callable[[Tensor], Tensor]:
    """A graph's cell: each sample reads those before and after it, and each contracts at its own rate."""
    offset = normal(count, 3, seed=2)
    rate = torch.linspace(0.1, 0.95, count, dtype=torch.float64)[:, None]
    return lambda z: rate * (z.roll(1, 0) + z.roll(-1, 0)) / 2 + offset


@every_solver
def test_samples_coupled_without_a_word_have_not_converged(solver: Solver) -> None:
    f = neighbours(6)
    found = solve(f, zeros(6, 3), solver, **LIMITS)
    residual = norm(f(found.z) - found.z) / norm(found.z).clamp(min=1)
    assert ((residual <= LIMITS["tolerance"]) | ~found.converged).all()
    assert "coupled" in statuses(found)
    assert "coupled=True" in found.describe_failures()
    wrong = found.status == Status.coupled
    torch.testing.assert_close(found.residual[wrong], residual[wrong])
    assert solve(f, zeros(6, 3), solver, coupled=True, **LIMITS).converged.all()


@every_solver
@pytest.mark.parametrize("size", [1, 5, 40])
def test_coupled_samples_in_parts_and_as_they_leave(solver: Solver, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As BatchNorm couples: solved one at a time, in parts, or with ever fewer others, each has another equilibrium."""
    monkeypatch.setattr(loop, "TILE", size * 3)
    monkeypatch.setattr(loop, "FEW", 1)
    rates, offset = torch.linspace(0, 0.9, 40, dtype=torch.float64)[:, None], normal(40, 3, seed=2)

    def f(z: Tensor, rates: Tensor, offset: Tensor) -> Tensor:
        return rates * torch.tanh(z - z.mean(0)) + offset

    found = solve(f, zeros(40, 3), solver, context=(rates, offset), **LIMITS)
    residual = norm(f(found.z, rates, offset) - found.z) / norm(found.z).clamp(min=1)
    assert (residual <= LIMITS["tolerance"])[found.converged].all()
    assert (found.status == Status.coupled).sum() > 20


def test_noise_is_not_called_coupling() -> None:
    """A map that was quiet until the first sample arrived."""
    generator, calls = torch.Generator().manual_seed(0), []

    def f(z: Tensor) -> Tensor:
        calls.append(0)
        noise = torch.rand(2, 1, generator=generator, dtype=torch.float64) if len(calls) > 3 else 0
        return torch.tensor([[0.0], [0.9]], dtype=torch.float64) * z + 1 + noise

    assert statuses(solve(f, zeros(2, 1), Picard(), **LIMITS)) == ["noisy", "noisy"]


@every_solver
def test_samples_that_arrived_wait_and_no_call_is_added(solver: Solver) -> None:
    rates = torch.tensor([[0.0], [0.5], [0.9]], dtype=torch.float64)
    counting = Counting(lambda z: torch.sin(rates * z) + 1)
    found = solve(counting, zeros(3, 2), solver, **LIMITS)
    assert len(counting.states) == found.evaluations.max() > found.evaluations.min()
    assert torch.equal(counting.states[-1], found.z)


# States that run away


@pytest.mark.parametrize("first", [0.0, 60.0, 99.0])
@every_solver
def test_a_state_that_grows_by_equal_steps_has_not_converged(solver: Solver, first: float) -> None:
    """Its residual, relative to the state, falls below any tolerance."""
    start = torch.full((1, 1), first, dtype=torch.float64)
    for f in (lambda z: z + 1, lambda z: z + 1.1 + 0.1 * torch.sin(z)):
        for coupled in (False, True):
            found = solve(f, start, solver, tolerance=1e-2, max_evaluations=200, coupled=coupled)
            assert statuses(found) in (["diverged"], ["max_steps"], ["stagnated"])


@every_solver
def test_a_state_that_turns_as_it_grows(solver: Solver) -> None:
    """A spiral outwards, by steps of length 1: but for its centre, no state is near an equilibrium."""

    def f(z: Tensor) -> Tensor:
        radius = z.norm(dim=1, keepdim=True).clamp(min=1)
        turn = torch.stack([-z[:, 1], z[:, 0]], 1) / radius
        return z + (z / radius + turn) / 2**0.5

    found = solve(f, torch.ones(1, 2, dtype=torch.float64), solver, tolerance=1e-2, max_evaluations=400)
    assert not (found.converged & (norm(found.z) > 1e-2)).any()


@every_solver
def test_a_slow_map_with_a_far_equilibrium_arrives(solver: Solver) -> None:
    rate = torch.tensor([[0.5], [0.99], [0.999]], dtype=torch.float64)
    found = solve(lambda z: rate * z + 1000 * (1 - rate), zeros(3, 1), solver, tolerance=1e-2, max_evaluations=2000)
    assert found.converged.all()
    # More than half of the way is behind.
    assert ((found.z - 1000).abs() < 500).all()


def test_a_warm_start_stops_at_once() -> None:
    found = solve(lambda z: 0.5 * z + 1, torch.full((2, 1), 2.01), Picard(), tolerance=1e-2, max_evaluations=9)
    assert found.converged.all()
    assert found.evaluations.tolist() == [1, 1]


# What is no state


@pytest.mark.parametrize("state", [(torch.zeros(2, 3),) * 2, {"a": torch.zeros(2, 3)}, [[0.0]], None], ids=repr)
def test_states_are_one_tensor(state: object) -> None:
    for run in (solve, fixed_point):
        with pytest.raises(ConfigError, match=r"one tensor .*flatten several"):
            run(lambda z: z, state, Picard(), tolerance=1e-4, max_evaluations=9)


@pytest.mark.parametrize(
    "returned", [lambda z: (z, z), lambda z: {"z": z}, lambda z: None], ids=["tuple", "dict", "None"]
)
def test_a_map_returns_one_tensor(returned: Callable[[Tensor], object]) -> None:
    with pytest.raises(ConfigError, match=r"must return one tensor, the next state.*return the state alone"):
        solve(returned, zeros(2, 3), Picard(), tolerance=1e-4, max_evaluations=9)


def test_inputs_are_tensors() -> None:
    with pytest.raises(ConfigError, match="not a tensor: write"):
        fixed_point(lambda z, h: h, zeros(2, 3), Picard(), inputs=zeros(2, 3), **LIMITS)
    for given in ("inputs", "parameters"):
        with pytest.raises(ConfigError, match="not a float"):
            fixed_point(lambda z, h: h * z, zeros(2, 3), Picard(), **{given: [0.5]}, **LIMITS)


# The remedies


def test_no_one_is_sent_to_float64_from_there() -> None:
    for dtype in (torch.float32, torch.float64):
        found = solve(
            lambda z: (z <= 0).to(z), torch.zeros(2, 1, dtype=dtype), Anderson(), **LIMITS | {"tolerance": 1e-5}
        )
        assert statuses(found) == ["stagnated"] * 2
        assert ("float64" in found.describe_failures()) == (dtype != torch.float64)
        with pytest.raises(ConfigError, match="is below what") as caught:
            solve(lambda z: z, torch.zeros(2, 1, dtype=dtype), SOLVERS[0], tolerance=1e-30, max_evaluations=9)
        assert ("or use float64" in str(caught.value)) == (dtype != torch.float64)
