"""Modules that a model's functions reach by closures, globals or defaults: an audit widens and quiets them like those it is given."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stabdeq
from stabdeq.adapters import from_functions, looped
from stabdeq.adapters.reached import modules_of

NET = nn.Linear(4, 4)


def by_global(z: Tensor, h: Tensor) -> Tensor:
    return (lambda z: torch.tanh(NET(z)) / 2 + h)(z)


class Holder:
    """No module, and has one."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        return self.net(z) + h

    __call__ = step


def reaching(net: nn.Module) -> list[Any]:
    def inner(z: Tensor) -> Tensor:
        return net(z)

    nets = {"first": [net]}
    return [
        lambda z, h: net(z) + h,
        lambda z, h: inner(z) + h,
        lambda z, h: nets["first"][0](z) + h,
        lambda z, h, net=net: net(z) + h,
        partial(lambda net, z, h: net(z) + h, net),
        partial(Holder(net).step, h=0),
        Holder(net).step,
        Holder(net),
    ]


@pytest.mark.parametrize("place", range(8))
def test_modules_are_found_wherever_a_function_holds_them(place: int) -> None:
    net = nn.Linear(2, 2)
    assert modules_of(reaching(net)[place]) == [net]


def test_modules_are_found_among_globals_and_no_others() -> None:
    assert modules_of(by_global) == [NET]
    assert modules_of(lambda z, h: torch.tanh(z) + h) == []

    def loop(z: Tensor) -> Tensor:
        return loop(unset)

    assert modules_of(loop) == []
    if place := modules_of(by_global):
        unset = place[0]
    assert modules_of(loop) == [NET]


@pytest.mark.parametrize("make", [from_functions, partial(looped, loops=20)])
def test_a_module_in_a_lambda_is_audited_in_evaluation_mode_and_in_float64(make: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = make(lambda z, h: 0.3 * torch.tanh(net(z)) + h, lambda x: x.flatten(1), lambda z: z[:, :2])
    if make is from_functions:
        model = make(lambda x: x.flatten(1), lambda z, h: 0.3 * torch.tanh(net(z)) + h, lambda z: z[:, :2])
    report = stabdeq.audit(model, torch.rand(4, 1, 2, 2), torch.arange(4) % 2, checks=["equilibrium"])
    assert {finding.verdict for finding in report.findings} == {"SUPPORTED"}
    assert net.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


class Keeper(nn.Module):
    """A module that keeps a model of its own parts."""

    def __init__(self, make: Any, by_method: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
        cell = self.step if by_method else lambda z, h: self.step(z, h)
        self.model = make(cell)

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        return 0.3 * torch.tanh(self.net(z)) + h


@pytest.mark.parametrize("by_method", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda cell: from_functions(lambda x: x.flatten(1), cell, lambda z: z[:, :2]),
        lambda cell: looped(cell, lambda x: x.flatten(1), lambda z: z[:, :2], loops=20),
    ],
)
def test_a_module_may_keep_a_model_of_its_own_functions(make: Any, by_method: bool) -> None:
    torch.manual_seed(0)
    keeper = Keeper(make, by_method)
    assert list(keeper.state_dict()) == ["net.0.weight", "net.0.bias"]
    keeper.load_state_dict(keeper.state_dict())
    assert len(list(keeper.parameters())) == len(list(keeper.model.parameters())) == 2
    assert len(list(keeper.named_parameters(remove_duplicate=False))) >= 2
    report = stabdeq.audit(keeper.model, torch.rand(4, 1, 2, 2), torch.arange(4) % 2, checks=["equilibrium"])
    assert {finding.verdict for finding in report.findings} == {"SUPPORTED"}
    assert keeper.net.training
    assert {one.dtype for one in keeper.parameters()} == {torch.float32}
    assert not keeper.eval().net[1].training
    keeper.model.train()
    assert keeper.net[1].training
