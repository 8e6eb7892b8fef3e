"""What a function reads besides its states, against functions written so that it is known."""

import torch
from torch import Tensor

from analysis.evidence.constants import constants_of

STATES = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
WEIGHT, BIAS = torch.eye(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def test_weights_are_read_once_and_results_are_none() -> None:
    def function(states: Tensor) -> Tensor:
        hidden = torch.relu(states @ WEIGHT.T.square() + BIAS)
        return (hidden + BIAS).sum(1) + hidden.new_zeros(3)

    assert same(constants_of(function, STATES), [WEIGHT, BIAS])


def test_views_of_one_memory_are_told_apart() -> None:
    first, second = torch.arange(8.0, dtype=torch.float64).split(4)
    assert same(constants_of(lambda states: (states - first) * second, STATES), [first, second])


def test_derivatives_bring_no_constants_of_their_own() -> None:
    def velocity(states: Tensor) -> Tensor:
        def value(each: Tensor) -> Tensor:
            return torch.sigmoid(each @ WEIGHT).sum()

        with torch.enable_grad():
            leaf = states.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(torch.tanh(leaf * BIAS).sum(), leaf)
        return gradient + torch.func.grad(value)(states)

    found = constants_of(velocity, STATES)
    assert any(tensor is BIAS for tensor in found)
    assert all(torch.equal(tensor, WEIGHT) or tensor is BIAS or tensor.ndim == 0 for tensor in found)


def test_lists_of_tensors_are_looked_into() -> None:
    assert same(constants_of(lambda states: torch.stack([states[0], BIAS]).sum(), STATES), [BIAS])


def test_what_is_computed_once_and_kept_is_read_by_its_result() -> None:
    kept: list[Tensor] = []

    def function(states: Tensor) -> Tensor:
        if not kept:
            kept.append(WEIGHT.sum(1))
        return states * kept[0]

    assert same(constants_of(function, STATES), [BIAS])
