"""What a proof about a wide network does once: its weights become balls, and nothing slow is imported."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from analysis.proofs.balls import exact
from analysis.proofs.balls import graph as balls_graph
from analysis.proofs.decompositions import DECOMPOSITIONS
from analysis.proofs.tracing import trace
from tests.solver_problems import normal

WEIGHT = normal(3, 2)


def energy(z: Tensor) -> Tensor:
    return torch.tanh(z @ WEIGHT.T).square().sum(1)


def test_constants_become_balls_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, constant = [], balls_graph.constant
    monkeypatch.setattr(balls_graph, "constant", lambda tensor: made.append(tensor) or constant(tensor))
    traced = trace(energy, torch.zeros(1, 2, dtype=torch.float64))
    for state in normal(3, 2).tolist():
        value = balls_graph.evaluate(traced, exact(torch.tensor(state, dtype=torch.float64))).value
        assert float(value) == pytest.approx(float(energy(torch.tensor([state], dtype=torch.float64))))
    assert len(made) == sum(node.op == "get_attr" for node in traced.graph.nodes) > 0


@pytest.mark.parametrize(("name", "function"), [("tanh_backward", torch.tanh), ("sigmoid_backward", torch.sigmoid)])
def test_derivatives_of_activations(name: str, function: Callable[[Tensor], Tensor]) -> None:
    z, upstream = normal(7).requires_grad_(), normal(7, seed=1)
    image = function(z)
    (expected,) = torch.autograd.grad(image, z, upstream)
    found: Any = DECOMPOSITIONS[getattr(torch.ops.aten, name).default](upstream, image.detach())
    torch.testing.assert_close(found, expected)
