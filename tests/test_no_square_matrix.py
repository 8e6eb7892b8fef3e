"""A model of more than 1024 numbers a state trains, is audited and predicts without a tensor of n x n anywhere."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from short_hunts import shorten_hunts
from small_models import generator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from analysis.audit import audit
from analysis.checks import decay, flow, uniqueness
from analysis.evidence.effort import Effort
from analysis.measure import phase_plane, trajectories
from stabdeq.config import AndersonConfig, LyapunovConfig, ModelConfig
from stabdeq.model import StabilisedDEQ
from train.loss import training_loss
from train.recipe import Recipe

SIDE, CHANNELS = 16, 5
N = CHANNELS * SIDE**2


class NothingSquare(TorchDispatchMode):
    """Refuses each tensor with two axes of at least n."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # skipping it would import torch._dynamo

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for tensor in _tensors(results):
            if sum(size >= N for size in tensor.shape) > 1:
                raise AssertionError(f"{func} made a tensor {tuple(tensor.shape)} at n = {N}")
        return results


def _tensors(results: Any) -> Iterator[Tensor]:
    for one in results if isinstance(results, tuple | list) else [results]:
        if isinstance(one, Tensor):
            yield one


def model(network: str, alpha: float = 1.0) -> StabilisedDEQ:
    torch.manual_seed(0)
    config = ModelConfig(
        image_shape=(1, SIDE, SIDE),
        classes=3,
        mean=(0.5,),
        std=(0.3,),
        backbone="conv",
        cell="convolution",
        state_dim=N,
        stability="anchored",
        head="orthogonal",
        solver=AndersonConfig(tolerance=1e-4),
        lyapunov=LyapunovConfig(hidden=2, network=network, alpha=alpha),  # pyrefly: ignore
    )
    return StabilisedDEQ(config)


def images(count: int) -> Tensor:
    return torch.rand(count, 1, SIDE, SIDE, generator=generator())


@pytest.mark.parametrize("network", ["convolutional", "separable", "dense"])
def test_a_training_step(network: str) -> None:
    made = model(network, alpha=30.0).train()
    with NothingSquare():
        prediction = made.predict(images(3))
        recipe = Recipe(jacobian={"weight": 1.0})  # pyrefly: ignore
        loss = training_loss(made, prediction, torch.tensor([0, 1, 2]), recipe, generator())
        loss.total.backward()
    assert bool(prediction.solution.converged.all())
    assert all(one.grad is not None and bool(one.grad.isfinite().all()) for one in made.parameters())
    assert float(loss.decay) > 0


def test_an_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few samples and steps: what is made of each is the same as of many."""
    shorten_hunts(monkeypatch)
    monkeypatch.setattr(Effort, "affordable", lambda self, dim: Effort(samples=32, starts=2, steps=3))
    few = {
        trajectories: {"EVALUATIONS": 10},
        flow: {"HORIZON": 0.1},
        decay: {"DIRECTIONS": 2},
        uniqueness: {"RESTARTS": 2},
    }
    few |= {phase_plane: {"GRID": 3, "ARROWS": 3, "DIRECTIONS": 16, "ITERATIONS": 2, "PATHS": 2}}
    for module, numbers in few.items():
        for name, number in numbers.items():
            monkeypatch.setattr(module, name, number)
    checks = ["positivity", "convexity", "decay", "equilibrium"]
    with NothingSquare():
        report = audit(model("convolutional").eval(), images(1), torch.tensor([0]), checks=checks)
    named = report.named
    proved = ["positivity.zero", "positivity.positive", "convexity.convex", "decay.stabilised"]
    assert {name: named[name].verdict for name in proved} == dict.fromkeys(proved, "PROVED")
    assert named["equilibrium.exists"].verdict == "SUPPORTED"
    assert "That alone was looked at" in named["equilibrium.exists"].evidence
