"""A solver of one's own, and solvers compiled: to roundoff the same as eager ones, and compiled once for each map."""

import shutil
from typing import Any, NamedTuple

import pytest
import torch
from compilation import end_compilation_in
from solver_problems import Crowd, normal, speeds, statuses
from torch import Tensor

from stabdeq.solvers import Anderson, Broyden, Solver, compiled, loop, relative_residual, solve

# PyTorch 2.11 warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")

# A solver of one's own


class HeavyBall(NamedTuple):
    """Picard with momentum, as a user may write it; its memory is the last step and a count."""

    mixing: float = 0.5
    momentum: float = 0.4
    safeguarded: bool = False

    def init(self, z: Tensor) -> dict[str, Tensor]:
        return {"velocity": torch.zeros_like(z), "steps": torch.zeros(len(z), dtype=torch.int64)}

    def step(self, z: Tensor, field: Tensor, memory: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        velocity = self.momentum * memory["velocity"] + self.mixing * field
        return z + velocity, {"velocity": velocity, "steps": memory["steps"] + 1}

    def forget(self, memory: dict[str, Tensor], samples: Tensor) -> dict[str, Tensor]:
        return {"velocity": memory["velocity"].masked_fill(samples[:, None], 0), "steps": memory["steps"]}

    def select(self, memory: dict[str, Tensor], samples: Tensor) -> dict[str, Tensor]:
        return {name: value[samples] for name, value in memory.items()}


@pytest.mark.parametrize("safeguarded", [False, True])
def test_a_users_own_solver(safeguarded: bool, splitting: str) -> None:
    crowd, solver = Crowd(speeds(), {4: "nan"}), HeavyBall(safeguarded=safeguarded)
    limits = {"tolerance": 1e-9, "max_evaluations": 800}
    found, expected = crowd.shrinking(solver, **limits), crowd.whole(solver, **limits)
    assert statuses(found) == ["nan" if sample == 4 else "converged" for sample in range(23)]
    assert torch.equal(found.evaluations, expected.evaluations)
    tame = torch.arange(23) != 4
    torch.testing.assert_close(found.z[tame], expected.z[tame], rtol=0, atol=1e-13)
    reference = crowd.whole(Anderson(), **limits)
    torch.testing.assert_close(found.z[tame], reference.z[tame], rtol=0, atol=1e-6)


def test_a_users_own_solver_is_safeguarded_where_it_asks() -> None:
    """Too much momentum runs away; thrown back, it does in the end what Picard does."""
    wild = {"mixing": 1.5, "momentum": 1.2}

    def f(z: Tensor) -> Tensor:
        return -0.9 * z + 1

    limits = {"tolerance": 1e-8, "max_evaluations": 5000}
    start = torch.zeros(3, 2, dtype=torch.float64)
    assert not solve(f, start, HeavyBall(**wild), **limits).converged.any()
    assert solve(f, start, HeavyBall(**wild, safeguarded=True), **limits).converged.all()


# Compiled; each pair of solver and map is compiled once for the whole module

RATES = torch.linspace(-0.7, 0.9, 40, dtype=torch.float64)
TURN = torch.linalg.qr(normal(8, 8)).Q


def compiled_cell(z: Tensor, rate: Tensor, offset: Tensor) -> Tensor:
    return torch.tanh(rate[:, None] * (z @ TURN)) + offset


@pytest.fixture(scope="module")
def _compiler() -> None:
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        pytest.skip("no C++ compiler")


@pytest.mark.usefixtures("_compiler")
def test_compiled_is_the_same_as_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    require_same(Anderson(window=2), monkeypatch)


@pytest.mark.parametrize("writes", [compiled.WRITES, False], ids=["as here", "copied"])
def test_what_is_compiled_of_broyden_is_the_same_as_eager(writes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the PyTorch that is here, and as with one that is older."""
    monkeypatch.setattr(compiled, "WRITES", writes)
    end_compilation_in("aot_eager", monkeypatch)
    require_same(Broyden(), monkeypatch, alone=True)


def require_same(solver: Solver, monkeypatch: pytest.MonkeyPatch, *, alone: bool = False) -> None:
    """To roundoff, whole, as samples leave and ``alone``; a second tolerance and batch need no second compilation."""
    monkeypatch.setattr(loop, "TILE", 40 * 8)
    monkeypatch.setattr(loop, "FEW", 1)
    context = (RATES, normal(40, 8, seed=1))

    def compare(tolerance: float, rows: slice, budget: int = 300) -> None:
        part = tuple(tensor[rows] for tensor in context)
        start = torch.zeros_like(part[1])
        limits = {"context": part, "tolerance": tolerance, "max_evaluations": budget}
        eager = solve(compiled_cell, start, solver, **limits)
        found = solve(compiled_cell, start, solver, compiled=True, **limits)
        assert statuses(found) == statuses(eager)
        assert (found.evaluations - eager.evaluations).abs().max() <= 1
        torch.testing.assert_close(found.z, eager.z, rtol=0, atol=20 * tolerance)
        again = relative_residual(found.z, compiled_cell(found.z, *part))
        torch.testing.assert_close(found.residual, again, rtol=0, atol=1e-14)

    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        compare(1e-9, slice(None))
        compare(1e-9, slice(5, 35))
        if alone:  # compiled once more
            compare(1e-9, slice(39, 40))
    with torch.compiler.set_stance("fail_on_recompile"):
        compare(1e-5, slice(None))
        compare(1e-9, slice(2, 30), 4)


def troubled_cell(z: Tensor, rate: Tensor, fault: Tensor) -> Tensor:
    """A map that is NaN, late or at once, that grows, or that jumps, where ``fault`` (B, 1) says so."""
    image = torch.tanh(rate[:, None] * (z @ TURN)) + 0.3
    image = torch.where(fault == 1, torch.nan, image)
    image = torch.where((fault == 2) & (z.abs() > 0.2), torch.nan, image)
    image = torch.where(fault == 3, z + 1 + z.abs(), image)
    return torch.where(fault == 4, torch.where(z > 0, -1.0, 1.0).to(z), image)


@pytest.mark.usefixtures("_compiler")
def test_compiled_anderson_is_safeguarded_too() -> None:
    require_safeguarded(Anderson())


@pytest.mark.parametrize("solver", [Broyden(memory=3), HeavyBall(safeguarded=True)], ids=str)
def test_what_is_compiled_of_others_is_safeguarded_too(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    end_compilation_in("aot_eager", monkeypatch)
    require_safeguarded(solver)


def require_safeguarded(solver: Solver) -> None:
    """Samples are thrown back and led, explained and left alone as they are where nothing is compiled."""
    rates = torch.linspace(0, 0.97, 20, dtype=torch.float64)
    fault = torch.zeros(20, 1, dtype=torch.int64)
    fault[[3, 7, 11, 15, 18], 0] = torch.tensor([1, 2, 3, 4, 1])
    limits = {"context": (rates, fault), "tolerance": 1e-8, "max_evaluations": 400}
    start = torch.zeros(20, 8, dtype=torch.float64)
    eager = solve(troubled_cell, start, solver, **limits)
    found = solve(troubled_cell, start, solver, compiled=True, **limits)
    assert statuses(found) == statuses(eager)
    assert {"nan", "diverged", "stagnated", "converged"} == set(statuses(found))
    tame = fault[:, 0] == 0
    assert found.converged[tame].all()
    assert (found.evaluations - eager.evaluations)[tame].abs().max() <= 1
    torch.testing.assert_close(found.z[tame], eager.z[tame], rtol=0, atol=1e-7)


class Memoryless(NamedTuple):
    """Half a Picard step."""

    safeguarded: bool = False

    def init(self, z: Tensor) -> None:
        """It has no memory."""

    def step(self, z: Tensor, field: Tensor, memory: None) -> tuple[Tensor, None]:
        return z + 0.5 * field, None

    def forget(self, memory: None, samples: Tensor) -> None:
        """Nothing."""

    def select(self, memory: None, samples: Tensor) -> None:
        """Nothing."""


class Momentum(NamedTuple):
    """The state before is all of its memory, at first the start itself."""

    safeguarded: bool = False

    def init(self, z: Tensor) -> Tensor:
        return z

    def step(self, z: Tensor, field: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        return z + 0.3 * (z - memory) + 0.5 * field, z

    def forget(self, memory: Tensor, samples: Tensor) -> Tensor:
        return memory

    def select(self, memory: Tensor, samples: Tensor) -> Tensor:
        return memory[samples]


@pytest.mark.parametrize("solver", [Memoryless(), Momentum()], ids=str)
def test_a_users_own_solver_is_compiled(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    end_compilation_in("aot_eager", monkeypatch)
    start = torch.zeros(40, 8, dtype=torch.float64)
    limits = {"context": (RATES, normal(40, 8, seed=1)), "tolerance": 1e-8, "max_evaluations": 400}
    eager = solve(compiled_cell, start, solver, **limits)
    found = solve(compiled_cell, start, solver, compiled=True, **limits)
    assert found.converged.all()
    assert torch.equal(found.evaluations, eager.evaluations)
    torch.testing.assert_close(found.z, eager.z, rtol=0, atol=1e-12)


def test_one_map_is_compiled_for_states_of_any_shape_and_any_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that change from solve to solve are no reason to take the window or the state's size for a variable."""
    sizes: list[Any] = []

    def run(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        sizes.extend(size for one in inputs for size in (one.shape if isinstance(one, Tensor) else [one]))
        return graph.forward

    end_compilation_in(run, monkeypatch)
    for shape, window in [((6,), 5), ((9,), 5), ((9,), 2)]:
        start = torch.zeros(4, *shape, dtype=torch.float64)
        limits = {"context": (normal(4, *shape),), "tolerance": 1e-9, "max_evaluations": 100, "compiled": True}
        assert solve(softened, start, Anderson(window=window), **limits).converged.all()
    assert {type(size) for size in sizes} == {int}


def softened(z: Tensor, offset: Tensor) -> Tensor:
    return torch.tanh(0.5 * z) + offset


def cliff(z: Tensor) -> Tensor:
    return torch.where(z.abs() > 1.5, torch.nan, z + 0.2 * (1 - z**3))


@pytest.mark.usefixtures("_compiler")
def test_a_single_sample_goes_on_compiled_after_it_was_thrown_back() -> None:
    start, limits = torch.zeros(1, 3, dtype=torch.float64), {"tolerance": 1e-9, "max_evaluations": 200}
    eager = solve(cliff, start, Anderson(window=1), **limits)
    found = solve(cliff, start, Anderson(window=1), compiled=True, **limits)
    assert eager.converged.all()
    assert found.converged.all()
    assert (found.evaluations - eager.evaluations).abs().max() <= 1
