"""The arithmetic on a solver's history: the same in both of its forms, and without room for a product of all of it."""

import pytest
import torch

from benchmarks.overhead import peak_bytes
from stabdeq.solvers import Anderson, slots, solve
from tests.solver_problems import normal


@pytest.mark.parametrize("many", [1, 2**16], ids=["slot by slot", "at once"])
@pytest.mark.parametrize("shape", [(1, 3, 4), (5, 2, 7), (3, 1, 600)])
def test_sums_and_inner_products(monkeypatch: pytest.MonkeyPatch, many: int, shape: tuple[int, int, int]) -> None:
    monkeypatch.setattr(slots, "MANY", many)
    history, weights, start = normal(*shape), normal(*shape[:2], seed=1), normal(*shape[1:], seed=2)
    expected = start + torch.einsum("wb,wbn->bn", weights, history)
    torch.testing.assert_close(slots.add_combination(start, weights, history), expected)
    torch.testing.assert_close(slots.inner(history, start), torch.einsum("wbn,bn->wb", history, start))


@pytest.mark.parametrize("many", [1, 2**16], ids=["slot by slot", "at once"])
def test_halves_are_added_up_in_float32(monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    monkeypatch.setattr(slots, "MANY", many)
    history, start = torch.full((2, 1, 4), 300.0).half(), torch.ones(1, 4).half()
    assert slots.inner(history, history[0]).tolist() == [[360000.0], [360000.0]]  # beyond the largest half
    found = slots.add_combination(start, torch.tensor([[1000.0], [-1000.0]]), history)
    assert found.dtype == torch.float16
    assert found.tolist() == [[1.0] * 4]


def test_anderson_holds_little_beside_its_history() -> None:
    rate, state = 0.9 + 0.05 * torch.rand(64, generator=torch.Generator().manual_seed(0)), torch.zeros(1024, 64)

    def run() -> object:
        return solve(lambda z: rate * z + 1, state, Anderson(), tolerance=1e-3, max_evaluations=9)

    held = peak_bytes(run) / (4 * state.numel())
    assert held <= 20, f"{held} states: ten are the history"
