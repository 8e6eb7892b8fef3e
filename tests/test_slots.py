"""The arithmetic on a solver's history: exact enough in every dtype, and the same for a sample whoever is beside it."""

import pytest
import torch
from torch import Tensor

from benchmarks.overhead import peak_bytes
from stabdeq.solvers import Anderson, Broyden, Solver, slots, solve
from tests.solver_problems import normal


@pytest.mark.parametrize("shape", [(1, 3, 4), (5, 2, 7), (3, 1, 600)])
def test_sums_and_inner_products(shape: tuple[int, int, int]) -> None:
    history, weights, vector = normal(*shape), normal(*shape[:2], seed=1), normal(*shape[1:], seed=2)
    expected = vector - torch.einsum("wb,wbn->bn", weights, history)
    for given in (weights, weights.T.contiguous().T):
        torch.testing.assert_close(slots.less_combined(vector, given, history), expected)
    torch.testing.assert_close(slots.inner(history, vector), torch.einsum("wbn,bn->wb", history, vector))


def test_products_of_halves_do_not_overflow() -> None:
    history = torch.full((2, 1, 4), 300.0).half()
    assert slots.inner(history, history[0]).tolist() == [[360000.0], [360000.0]]  # beyond the largest half


@pytest.mark.parametrize("components", [4, 600])
def test_autocast_leaves_them_alone(components: int) -> None:
    history, vector = normal(3, 2, components).float(), normal(2, components, seed=1).float()
    expected = slots.inner(history, vector), slots.less_combined(vector, vector[:, :3].T, history)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = slots.inner(history, vector), slots.less_combined(vector, vector[:, :3].T, history)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("solver", [Anderson(), Broyden()])
def test_a_sample_is_solved_alike_alone_and_among_many(solver: Solver) -> None:
    weight, features = 0.9 * torch.linalg.qr(normal(64, 64)).Q, normal(1024, 64, seed=1)

    def f(z: Tensor, h: Tensor) -> Tensor:
        return torch.tanh((z[:, None] * weight).sum(2)) + h  # a matrix product would take another order for one

    limits = {"tolerance": 1e-9, "max_evaluations": 60}
    together = solve(f, torch.zeros_like(features), solver, context=(features,), **limits).z[7]
    alone = solve(f, torch.zeros(1, 64).double(), solver, context=(features[7:8],), **limits).z[0]
    assert torch.equal(alone, together)


def test_anderson_holds_little_beside_its_history() -> None:
    rate, state = 0.9 + 0.05 * torch.rand(64, generator=torch.Generator().manual_seed(0)), torch.zeros(1024, 64)

    def run() -> object:
        return solve(lambda z: rate * z + 1, state, Anderson(), tolerance=1e-3, max_evaluations=9)

    held = peak_bytes(run) / (4 * state.numel())
    assert held <= 21, f"{held} states: ten are the history"
