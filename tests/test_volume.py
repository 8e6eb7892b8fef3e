"""Bounds of a sublevel set's volume: the truth lies between them, and they are close."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from check_runs import run
from torch import Tensor

from analysis.evidence.regions import Ball, Box
from analysis.evidence.sublevel import Sublevel
from analysis.proofs.volume import volume

pytestmark = pytest.mark.usefixtures("short_hunts")


def square(states: Tensor) -> Tensor:
    return states.square().sum(1)


def slanted(states: Tensor) -> Tensor:
    x, y = states.unbind(1)
    return 10 * x**2 + 6 * x * y + y**2


def taxicab(states: Tensor) -> Tensor:
    return states.abs().sum(1)


def ball(dim: int, radius: float) -> Ball:
    return Ball(torch.zeros(dim, dtype=torch.float64), radius)


def box(low: list[float], high: list[float]) -> Box:
    corners = [torch.tensor(corner, dtype=torch.float64) for corner in (low, high)]
    return Box(torch.zeros(len(low), dtype=torch.float64), *corners)


@pytest.mark.parametrize(
    ("value", "base", "level", "truth"),
    [
        (square, ball(1, 3.0), 4.0, 4.0),
        (square, ball(2, 2.0), 1.0, math.pi),
        (square, ball(2, 1.0), 9.0, math.pi),  # the base ends first
        (square, box([0.0, -2.0], [2.0, 2.0]), 1.0, math.pi / 2),
        (slanted, ball(2, 6.0), 1.0, math.pi),
        (taxicab, ball(2, 2.0), 1.0, 2.0),
    ],
)
def test_the_true_volume_lies_between_close_bounds(
    value: Callable[[Tensor], Tensor], base: Ball | Box, level: float, truth: float
) -> None:
    found = volume(Sublevel(base, value, level))
    assert found is not None
    assert found.low <= truth <= found.high
    assert found.high - found.low <= 0.025 * found.high


def test_bounds_are_true_where_the_boxes_are_spent() -> None:
    found = volume(Sublevel(ball(4, 2.0), square, 1.0))
    assert found is not None
    assert found.low < math.pi**2 / 2 < found.high


def test_the_words_are_rounded_outwards() -> None:
    found = volume(Sublevel(ball(2, 2.0), square, 1.0))
    assert found is not None
    assert found.words.startswith("The area of {V <= 1} within 2 of the centre is between ")
    least, most = (float(word.rstrip(",")) for word in found.words.split() if word[0] == "3")
    assert found.low - 1e-3 <= least <= found.low < found.high <= most <= found.high + 1e-3


def test_nothing_is_said_of_a_function_that_cannot_be_bounded() -> None:
    def hidden(states: Tensor) -> Tensor:
        return torch.from_numpy(states.detach().numpy() ** 2).sum(1)

    assert volume(Sublevel(ball(2, 2.0), hidden, 1.0)) is None


def test_nothing_is_said_where_no_box_lies_inside() -> None:
    assert volume(Sublevel(ball(2, 2.0), square, -1.0)) is None


@pytest.mark.usefixtures("zoo_on_path")
def test_attraction_names_the_area_of_its_set(tmp_path: Path) -> None:
    words = ["zoo:square", "--dim", "2", "--dynamics", "zoo:sink", "--sublevel", "1", "--claims", "attraction"]
    _, findings = run(words, tmp_path)
    assert "The area of {V <= 1} within" in findings["attraction"]["evidence"]
