"""Sets {b = 0}: where states are moved to, what belongs to them, and how they are looked for, beside plain references."""

import math

import pytest
import torch
from plain_states import close, numbers, random
from solver_problems import generator
from torch import Tensor

from analysis.evidence.regions import Ball
from analysis.evidence.zero_set import ZeroSet, extreme, find_zero_set


def sloped(z: Tensor) -> Tensor:
    """So steep far out that twice a step of its tangent does not reach its zero."""
    height = z[:, 0] + z[:, 1].pow(3) - 0.2
    return height + 20 * height.pow(3)


def of_slope() -> ZeroSet:
    base = Ball(numbers(0.1, 0), 1.0)
    states = base.sample(60, generator(7))
    value = sloped(states)

    def gradient(z: Tensor) -> Tensor:
        height = z[:, 0] + z[:, 1].pow(3) - 0.2
        return torch.stack([torch.ones_like(height), 3 * z[:, 1].square()], 1) * (1 + 60 * height.square())[:, None]

    return ZeroSet(base, sloped, gradient, states[value <= 0][:20], states[value > 0][:20], 0.5, 0.05)


def test_a_state_is_moved_to_the_zero_beyond_the_tangent_s_or_towards_the_nearest_anchor() -> None:
    zeros = of_slope()
    states = zeros.base.project(zeros.base.sample(40, generator()))
    moved, kinds = zeros.project(states), set()
    for state, there in zip(states, moved, strict=True):
        value, slope = float(sloped(state[None])), zeros.gradient(state[None])[0]
        end = zeros.base.project((state - 2 * value * slope / slope.square().sum())[None])[0]
        is_missed = (float(sloped(end[None])) > 0) == (value > 0)
        if is_missed:
            anchors = zeros.below if value > 0 else zeros.above
            end = min(anchors, key=lambda anchor: math.dist(anchor.tolist(), state.tolist()))
        kinds.add(is_missed)
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            is_same = (float(sloped((state + middle * (end - state))[None])) > 0) == (value > 0)
            low, high = (middle, high) if is_same else (low, middle)
        close(there, state + low * (end - state))
        assert abs(float(sloped(there[None]))) <= 4e-16
    assert len(kinds) == 2
    shells = zeros.shells(40, generator())
    close(shells, zeros.project(zeros.base.shells(40, generator())))
    drawn = zeros.sample(40, generator())
    assert float(sloped(drawn).abs().max()) < 1e-15
    near = numbers(0.2, 0) - zeros.centre
    assert zeros.contains(torch.stack([numbers(0.2, 0), numbers(0.1, 0.1 ** (1 / 3))])).tolist() == [True, True]
    assert float(near.norm()) > 0.05
    assert (zeros.radius, zeros.is_curved) == (1.0, True)
    assert zeros.words == "the states with B = 0 of the ball of radius 1 around the centre"
    assert zeros.drawn.startswith("on segments from states drawn uniformly by volume")


def test_a_state_whose_tangent_says_nothing_goes_to_the_nearest_anchor() -> None:
    base, below, above = Ball(numbers(0, 0), 4.0), numbers(-1, 1)[None], torch.stack([numbers(1, 2), numbers(2, 3)])
    states = torch.stack([numbers(-0.5, 0), numbers(0.5, 0)])
    for slope in (
        torch.nan,
        torch.inf,
        0.0,
        1e-160,
        -1e-160,
    ):  # the last two have squares that underflow, and endless steps
        zeros = ZeroSet(base, lambda z: z[:, 0], lambda z, slope=slope: 0 * z + slope, below, above, 1.0)
        # On the segments to (1, 2) and to (-1, 1).
        close(zeros.project(states), [[0.0, 2 / 3], [0.0, 1 / 3]])
    # Where twice the tangent's step is a zero, that is it.
    zeros = ZeroSet(base, lambda z: z[:, 0], lambda z: 2 * torch.eye(2).double()[0].expand_as(z), below, above, 1.0)
    close(zeros.project(numbers(3, 0)[None]), [[0.0, 0.0]])


@pytest.mark.parametrize("steepness", [1.0, 100.0])
def test_a_state_belongs_to_a_zero_set_where_b_is_rounding(steepness: float) -> None:
    base = Ball(numbers(0, 0), 2.0)
    zeros = ZeroSet(
        base, lambda z: steepness * (z[:, 0] - 0.5), lambda z: steepness * torch.eye(2).double()[0].expand_as(z),
        random(1), random(1), 1.0, 0.6,
    )  # fmt: skip
    off = [0.0, 1.9e-9, -1.9e-9, 2.1e-9, -2.1e-9]
    states = torch.stack([numbers(0.5 + by, 1) for by in off])
    assert zeros.contains(states).tolist() == [True, True, True, False, False]
    assert zeros.contains(torch.stack([numbers(0.5, 0.1), numbers(0.5, 1.99)])).tolist() == [False, False]
    flat = ZeroSet(base, lambda z: 5e-13 * z[:, 0], torch.zeros_like, random(1), random(1), 1.0)
    assert flat.contains(torch.stack([numbers(1, 1), numbers(3, 0)])).tolist() == [True, False]


def test_zero_sets_are_looked_for_at_both_ends() -> None:
    base = Ball(numbers(0, 0), 1.0)
    for sign in (-1, 1):  # of one sign at all states that are drawn, but for a corner that climbs reach
        found = find_zero_set(base, lambda z, sign=sign: sign * (0.9999 - z[:, 0]), torch.ones_like, 1.0, inner=0.25)
        assert isinstance(found, ZeroSet)
        assert (found.size, found.inner) == (1.0, 0.25)
        few, many = (found.below, found.above) if sign > 0 else (found.above, found.below)
        assert 0 < len(few) <= 64
        assert len(many) == 256
    state, value = find_zero_set(
        base, lambda z: torch.where(z[:, 0] > 0, -2 - z[:, 0], torch.nan), torch.ones_like, 1.0
    )
    assert (value, float(state[0])) == (pytest.approx(-2, abs=1e-3), pytest.approx(0, abs=1e-3))
    drawn = base.sample(100, generator())
    nan_low = extreme(base, lambda z: torch.where(z[:, 0] < 0, torch.nan, z[:, 0]), drawn, -1, generator())
    assert bool((nan_low[0] >= 0)[0])
    assert nan_low.shape == (32, 2)
