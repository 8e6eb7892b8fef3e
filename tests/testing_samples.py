"""Samples for the public properties, and the failure of one."""

from collections.abc import Callable
from typing import TypeVar

import torch
from hypothesis import Phase, find, settings
from hypothesis import strategies as st
from torch import Tensor

EXAMPLES = settings(max_examples=50, deadline=None, derandomize=True, database=None)
Drawn = TypeVar("Drawn")


def only(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def found(strategy: st.SearchStrategy[Drawn], check: Callable[[Drawn], None]) -> Drawn:
    def fails(drawn: Drawn) -> bool:
        try:
            check(drawn)
        except AssertionError:
            return True
        return False

    quick = settings(max_examples=300, derandomize=True, database=None, phases=(Phase.generate, Phase.shrink))
    return find(strategy, fails, settings=quick)
