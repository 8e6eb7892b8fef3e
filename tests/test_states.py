"""States of several tensors: flattened and put back as they were; what cannot be is refused with what to write."""

from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor

from stabdeq.adapters.states import Layout
from stabdeq.errors import ConfigError

Pair = namedtuple("Pair", "high low")


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and all(map(same, one, other))


@pytest.mark.parametrize(
    "state",
    [
        torch.rand(3, 2, 2),
        (torch.rand(3, 2), torch.rand(3)),
        [torch.rand(3, 2), (torch.rand(3, 1, 4), {"a": torch.rand(3, 5)})],
        {"high": torch.rand(3, 2), "low": [torch.rand(3, 1)]},
        Pair(torch.rand(3, 2), torch.rand(3, 7)),
    ],
)
def test_a_state_comes_back_as_it_was(state: Any) -> None:
    layout = Layout.of(state)
    flat = layout.flatten(state)
    assert flat.shape == (3, layout.size)
    assert same(layout.restore(flat), state)
    assert layout.flatten(layout.restore(torch.rand(5, layout.size))).shape == (5, layout.size)


def test_a_dict_in_another_order_and_a_list_for_a_tuple_are_the_same_state() -> None:
    layout = Layout.of({"a": torch.zeros(2, 1), "b": (torch.ones(2, 2), torch.ones(2, 1))})
    flat = layout.flatten({"b": [torch.ones(2, 2), torch.ones(2, 1)], "a": torch.zeros(2, 1)})
    assert flat.tolist() == [[0, 1, 1, 1]] * 2


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ((torch.rand(3, 2), 1.0), r"state\[1\] is a float: expected tensors .* write its tensors"),
        ({"ids": torch.ones(3, dtype=torch.int64)}, r"keep it among the inputs, or write state\['ids'\]\.float\(\)"),
        (torch.tensor(1.0), r"write state\.view\(1, 1\)"),
        ((torch.rand(3, 2), torch.rand(4, 2)), r"state\.movedim\(1, 0\)"),
        ((torch.rand(3, 2), torch.rand(3, 2).double()), r"state\.to\(first\)"),
        ((), "holds no tensor"),
    ],
)
def test_what_cannot_be_flattened_is_refused_with_the_line_to_write(state: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Layout.of(state)


def test_a_state_that_is_put_together_otherwise_is_refused() -> None:
    layout = Layout.of({"a": (torch.rand(2, 1), torch.rand(2, 3))})
    with pytest.raises(ConfigError, match=r"the state is a dict, where the first one was a dict with \['a'\]"):
        layout.flatten({"b": torch.rand(2, 1)})
    with pytest.raises(ConfigError, match=r"the state\['a'\] is a tuple, where the first one was a tuple of 2"):
        layout.flatten({"a": (torch.rand(2, 1),)})
    with pytest.raises(ConfigError, match=r"the state\['a'\]\[1\] is a tensor \(2, 2\), where the first one .* \(3,\)"):
        layout.flatten({"a": (torch.rand(2, 1), torch.rand(2, 2))})
