"""assert_solver: ours pass, a user's can, and each planted fault fails with its sentence."""

import re
import shutil
from typing import Any

import pytest
import torch
from compilation import end_compilation_in
from heavy_ball import HeavyBall
from torch import Tensor

from stabdeq.solvers import Anderson, Broyden, Picard, Solver
from stabdeq.testing import assert_solver

OURS = [
    Anderson(),
    Anderson(window=1, mixing=0.5),
    Anderson(window=20),
    Broyden(),
    Broyden(memory=1),
    Broyden(memory=3),
    Broyden(line_search=True),
    Picard(),
    Picard(mixing=0.3),
]


@pytest.mark.parametrize("solver", [*OURS, HeavyBall()], ids=str)
def test_ours_and_a_users_meet_the_contract(solver: Solver) -> None:
    assert_solver(solver)


def test_compiled() -> None:
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        pytest.skip("no C++ compiler")
    assert_solver(Picard(mixing=0.9), compiled=True)


def test_what_is_compiled_of_a_users(monkeypatch: pytest.MonkeyPatch) -> None:
    end_compilation_in("aot_eager", monkeypatch)
    assert_solver(HeavyBall(mixing=0.6), compiled=True)


class Duck:
    """The same methods, and no base class."""

    safeguarded = True
    init, step, forget, select = HeavyBall.init, HeavyBall.step, HeavyBall.forget, HeavyBall.select
    mixing, momentum = 0.5, 0.4


def test_a_solver_without_the_base_class_meets_it_too() -> None:
    assert_solver(Duck())


# Planted faults


class NoSelect(Duck):
    select = None


class Narrowing(HeavyBall):
    def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
        z, memory = super().step(z, field, memory)
        return z.float(), memory


class StateAlone(HeavyBall):
    def step(self, z: Tensor, field: Tensor, memory: Any) -> Any:
        return z


class InPlace(HeavyBall):
    def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
        return z.add_(self.mixing * field), memory


class InPlaceLater(HeavyBall):
    """The velocity is written into the field, from the second step on."""

    def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
        if memory.any():
            field.mul_(0.5)
        return super().step(z, field, memory)


class Restless(HeavyBall):
    def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
        z, memory = super().step(z, field, memory)
        return z + 1e-3 * torch.randn(z.shape).to(z), memory


class Averaging(HeavyBall):
    """The step's length is chosen for the batch."""

    def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
        return super().step(z, field / (1 + field.norm()), memory)


class Masking(HeavyBall):
    """Alone each sample is right; one that is NaN reaches the others through 0 times NaN."""

    def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
        z, velocity = super().step(z, field, memory)
        return z + 0 * field.sum(), velocity


class DeafSelect(HeavyBall):
    """The first samples' memory in place of those asked for."""

    def select(self, memory: Any, samples: Tensor) -> Any:
        return memory[: len(samples)]


class SortedSelect(HeavyBall):
    def select(self, memory: Any, samples: Tensor) -> Any:
        return memory[samples.sort().values]


class DeafForget(HeavyBall):
    def forget(self, memory: Any, samples: Tensor) -> Any:
        return memory


class ForgetfulOfAll(HeavyBall):
    def forget(self, memory: Any, samples: Tensor) -> Any:
        return torch.zeros_like(memory)


class ForgetByZero(HeavyBall):
    """0 times NaN is NaN."""

    def forget(self, memory: Any, samples: Tensor) -> Any:
        return memory * (~samples[:, None])


class Clumsy(HeavyBall):
    def forget(self, memory: Any, samples: Tensor) -> Any:
        raise KeyError("no such sample")


class Biased(HeavyBall):
    """It settles beside the equilibrium, where the residual is not small."""

    def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
        return super().step(z, field + 1e-3, memory)


FAULTS = {
    NoSelect(): "lacks the method select(memory, samples)",
    Narrowing(): "(5, 6) torch.float64: it proposed a tensor (5, 6) torch.float32",
    StateAlone(): "step must return (state, memory), it returned a tensor (5, 6)",
    InPlace(): "step changes the state or the field that it is given",
    InPlaceLater(): "step 2 changes the state or the field that it is given: expected it to work on a copy",
    Restless(): "after 4 steps from the same states it proposes others",
    Averaging(): "the proposals to 4 samples of a batch of 5, alone, are others than in the batch",
    Masking(): "where the map is NaN for one sample, the proposals to others change",
    DeafSelect(): "after select(memory, [3, 1]) these samples go on otherwise than in the whole batch",
    SortedSelect(): "after select(memory, [3, 1]) these samples go on otherwise",
    DeafForget(): "after forget(memory, samples) the next proposals to samples are others than to samples that begin there",
    ForgetfulOfAll(): "after forget(memory, samples) the other samples go on otherwise than before",
    ForgetByZero(): "the next proposals to samples that were NaN are others than to samples that begin there",
    Clumsy(): "forget(memory, samples) raises KeyError: 'no such sample'",
    Biased(): "expected to solve a linear map that contracts by 0.8 or less, to 1e-08 within 1000 evaluations",
    Picard(mixing=0.001): "expected to solve a linear map",
    Picard: "is the class Picard: make an instance of it",
}


@pytest.mark.parametrize(("solver", "said"), FAULTS.items(), ids=[type(one).__name__ for one in FAULTS])
def test_a_planted_fault_is_named(solver: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)) as caught:
        assert_solver(solver)
    assert str(caught.value).startswith("solver ")


def test_a_step_that_cannot_be_compiled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    end_compilation_in("aot_eager", monkeypatch)

    class Growing(HeavyBall):
        """Its memory grows by a slot a step."""

        def init(self, z: Tensor) -> Any:
            return torch.zeros(0, *z.shape, dtype=z.dtype)

        def step(self, z: Tensor, field: Tensor, memory: Any) -> tuple[Tensor, Any]:
            return z + 0.5 * field, torch.cat([memory, field[None]])

        def forget(self, memory: Any, samples: Tensor) -> Any:
            return memory.masked_fill(samples[:, None], 0)

        def select(self, memory: Any, samples: Tensor) -> Any:
            return memory[:, samples]

    assert_solver(Growing())
    with pytest.raises(AssertionError, match="solver Growing: expected to run compiled"):
        assert_solver(Growing(), compiled=True)
