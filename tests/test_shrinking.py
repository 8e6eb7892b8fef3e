"""Witnesses made simpler: rounded, with fewer coordinates, and nearer to the centre."""

import math

import pytest
import torch
from plain_states import close, numbers, random

from analysis.evidence import shrink


def test_offsets_are_rounded_to_ever_more_places() -> None:
    centre, states = numbers(1, -2), numbers(1, -2) + torch.cat([5 * random(5), 0.01 * random(5), numbers(0, 0)[None]])
    found = shrink.rounded(states, centre).view(8, 11, 2)
    for places, rows in enumerate(found):
        for state, row in zip(states, rows, strict=True):
            offset = (state - centre).tolist()
            largest = max(map(abs, offset))
            first = math.floor(math.log10(largest)) if largest else 0
            close(row - centre, [round(one, places - first) for one in offset], 1e-14)


def test_the_largest_coordinates_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    centre, state = numbers(1, 1, 1, 1), numbers(3, -4, 1.5, 2)
    expected = [[1, -4, 1, 1], [3, -4, 1, 1], [3, -4, 1, 2]]
    assert shrink._with_fewer_coordinates(state, centre).tolist() == expected
    assert shrink._with_fewer_coordinates(numbers(3), numbers(1)).tolist() == [[3]]
    assert shrink._with_fewer_coordinates(numbers(3, 4), numbers(1, 1)).tolist() == [[1, 4]]
    monkeypatch.setattr(shrink, "ONE_BY_ONE", 4)
    assert len(shrink._with_fewer_coordinates(state, centre)) == 3
    halved = shrink._with_fewer_coordinates(numbers(5, 4, 3, 2, 1), torch.zeros(5).double())
    assert halved.tolist() == [[5, 0, 0, 0, 0], [5, 4, 0, 0, 0], [5, 4, 3, 2, 0]]


@pytest.mark.parametrize(("nearest", "expected"), [(0.0, 0.2), (1.0, 1.0), (9.0, 5.0)])
def test_a_state_is_pulled_in_as_far_as_it_violates(nearest: float, expected: float) -> None:
    centre, state = numbers(1, 2), numbers(4, 6)
    found = shrink._bisect(state, centre, lambda states: (states - centre).norm(dim=1) > 0.2, nearest)
    close(found, centre + (state - centre) * expected / 5, 2e-5)
    assert float((found - centre).norm()) >= min(5, max(nearest, 0.2)) - 1e-15
    assert torch.equal(shrink._bisect(centre, centre, lambda states: states[:, 0] > 0, nearest), centre)
