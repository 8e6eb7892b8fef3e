"""How often a function is called to be read, what its first call may do, and who follows it meanwhile."""

import sys
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

from analysis.proofs.tracing import TraceError, read

STATES = torch.tensor([[0.5, -1.0], [2.0, 0.25]], dtype=torch.float64)


def test_what_its_first_call_raises_and_catches_means_nothing() -> None:
    kept: dict[str, Tensor] = {}

    def function(z: Tensor) -> Tensor:
        try:
            weight = kept["weight"]
        except KeyError:
            weight = kept["weight"] = torch.tensor([1.0, 2.0], dtype=torch.float64)
        return z @ weight

    assert torch.equal(read(function, STATES)(STATES[:1]), function(STATES[:1]))


def test_what_every_call_raises_and_catches_refuses() -> None:
    def function(z: Tensor) -> Tensor:
        try:
            raise LookupError("nothing there")
        except LookupError:
            return z.sum(1)

    with pytest.raises(TraceError, match="it raises LookupError: nothing there"):
        read(function, STATES)


def test_it_is_recorded_once_in_each_of_four_ways_and_evaluated_once() -> None:
    kinds: list[tuple[bool, int, bool]] = []

    def function(z: Tensor) -> Tensor:
        kinds.append((type(z) is Tensor, len(z), torch.is_grad_enabled()))
        return torch.nn.functional.softplus(z).sum(1)

    read(function, STATES)
    ways = [(1, False), (2, False), (1, True), (2, True)]
    assert kinds == [(is_plain, *way) for way in ways for is_plain in (False, True)]


def test_who_followed_before_sees_the_lines_of_a_function_that_is_recorded() -> None:
    seen: set[tuple[str, str]] = set()

    def follow(frame: FrameType, event: str, argument: Any) -> Any:
        seen.add((frame.f_code.co_name, event))
        return follow

    def followed(z: Tensor) -> Tensor:
        return z.square().sum(1)

    before = sys.gettrace()
    sys.settrace(follow)
    try:
        read(followed, STATES)
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert after is follow
    assert {("followed", "line"), ("__torch_dispatch__", "line")} <= seen
