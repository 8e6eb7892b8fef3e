"""Climbs to a violation: each beside a plain reference, a state and a number at a time."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from hand_made_claims import violation_of
from plain_states import close, numbers, random
from solver_problems import generator
from torch import Tensor

from analysis.evidence import falsifier, sampling
from analysis.evidence.regions import Ball
from stabdeq.lyapunov.claims import Violation


def slope_of(function: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
    leaf = state.clone()[None].requires_grad_()
    value = function(leaf)
    if not value.requires_grad:
        return torch.zeros_like(state)
    slope = torch.autograd.grad(value.sum(), leaf)[0][0]
    return torch.where(slope.isfinite(), slope, 0)


def hills(z: Tensor) -> Tensor:
    """Two hills, a plateau between them, no number beyond the one, and infinite beyond the other."""
    x, y = z.unbind(1)
    found = torch.relu(1 - (x - 1).square() - y.square()) + torch.relu(2 - (x + 2).square() - y.square())
    return torch.where(x > 1.2, torch.nan, torch.where(x < -2.5, torch.inf, found))


def test_each_start_climbs_by_itself() -> None:
    starts = torch.cat([3 * random(20), numbers(0, 2)[None]])
    first, region, steps = torch.rand(21, generator=generator(), dtype=torch.float64), Ball(numbers(0, 0), 3.0), 12
    found = falsifier.falsify(
        violation_of(hills), starts, region.project, first_step=first, generator=generator(), steps=steps
    )
    same = generator()
    drawn = [sampling.directions(21, 2, same) for _ in range(steps)]
    arrived, heights = [], []
    for place in range(21):
        state, length = region.project(starts[place][None])[0], float(first[place])
        for step in range(steps):
            slope = slope_of(hills, state)
            is_random = not bool(slope.any()) or step % 3 == 2
            direction = drawn[step][place] if is_random else slope / slope.norm()
            trial = region.project((state + length * direction)[None])[0]
            before, after = (float(hills(one[None])) for one in (state, trial))
            before, after = (one if math.isfinite(one) else -math.inf for one in (before, after))
            if after > before:
                state, length = trial, length * falsifier.GROW
            else:
                length *= falsifier.SHRINK_RANDOM if is_random else falsifier.SHRINK
        arrived.append(state)
        heights.append(before if after <= before else after)
    close(found.states, torch.stack(arrived), 1e-5)  # at the top of a hill, what rises is rounding
    close(found.relatives, heights, 1e-5)
    best = heights.index(max(heights))
    assert torch.equal(found.state, found.states[best])
    assert found.relative == pytest.approx(heights[best])
    assert (found.evaluations, len(set(heights)) >= 5, -math.inf in heights) == (21 * 13, True, True)
    assert found.not_finite is not None
    assert not math.isfinite(float(hills(found.not_finite[None])))


def test_the_first_state_that_is_not_finite_is_told() -> None:
    def kept(starts: Tensor) -> Tensor | None:
        ball = Ball(numbers(0, 0), 9.0)
        first_step = torch.full((len(starts),), 0.3).double()
        found = falsifier.falsify(
            violation_of(hills), starts, ball.project, first_step=first_step, generator=generator()
        )
        return found.not_finite

    starts = torch.stack([numbers(0.5, 0), numbers(5, 1), numbers(-6, 2)])
    assert torch.equal(kept(starts), starts[1])
    assert float(kept(starts[:1])[0]) > 1.2  # met on the way
    assert kept(numbers(0, 8)[None]) is None


def test_gradients_are_0_where_there_are_none() -> None:
    states = torch.stack([numbers(0, 4), numbers(1, 9)])
    for function in (lambda z: z[:, 0].sqrt(), lambda z: -z[:, 0].sqrt(), lambda z: (z[:, 0] ** 2).sqrt()):
        value, slope = falsifier.gradients(lambda z, function=function: function(z) + z[:, 1].sqrt(), states)
        assert torch.equal(value, function(states) + states[:, 1].sqrt())
        assert slope[0].tolist() == [0, 0.25]
        assert [value.requires_grad, slope.requires_grad] == [False, False]
    value, slope = falsifier.gradients(lambda z: z.detach()[:, 1], states)
    assert (value.tolist(), slope.tolist()) == ([4, 9], [[0, 0], [0, 0]])
    _, slope = falsifier._score_and_gradient(violation_of(lambda z: 1e-250 * (3 * z[:, 0] + 4 * z[:, 1])), states)
    close(slope, [[0.6, 0.8]] * 2)


def bumpy(z: Tensor) -> Tensor:
    """It has saddles, and is no number far out on one side."""
    x, y = z.unbind(1)
    found = x.square() - 2 * y.square() + x * y / 3 + x.pow(3) / 5 - x.pow(4) / 8
    return torch.where(x > 1.6, torch.nan, found)


@pytest.mark.parametrize("curvature", [1, torch.nan])
def test_a_polishing_step_is_the_best_of_damped_newton_steps(curvature: float) -> None:
    def function(z: Tensor) -> Tensor:
        return bumpy(z) if curvature == 1 else bumpy(z).detach() + (z - z.detach()).abs().sqrt().sum(1)

    states, reach = 0.8 * random(15).clamp(max=1.5), torch.linspace(0.05, 2, 15).double()
    region = Ball(numbers(0, 0), 1.3)
    states = region.project(states)
    found = falsifier.polish(violation_of(function), states, region.project, reach=reach, steps=1)
    if curvature != 1:
        assert torch.equal(found, states)
        return
    lengths, steps_taken = [], set()
    for place, state in enumerate(states):
        matrix = torch.autograd.functional.hessian(lambda one: bumpy(one[None])[0], state)
        sizes, axes = torch.linalg.eigh(matrix)
        sizes, slope = sizes.abs(), axes.T @ slope_of(bumpy, state)
        tried, heights = [state], [float(bumpy(state[None]))]
        for damping in falsifier.DAMPINGS:
            offset = axes @ (slope / (sizes + damping * sizes.max()))
            offset = offset * min(1, float(reach[place] / offset.norm()))
            tried.append(region.project((state + offset)[None])[0])
            height = float(bumpy(tried[-1][None]))
            heights.append(height if math.isfinite(height) else -math.inf)
        best = heights.index(max(heights))
        steps_taken.add(best)
        lengths.append(float((tried[best] - state).norm()))
        close(found[place], tried[best], 1e-6)
    assert len(steps_taken) >= 3
    assert sum(length == pytest.approx(float(most), abs=1e-9) for length, most in zip(lengths, reach, strict=True)) >= 2
    twice = falsifier.polish(violation_of(bumpy), found, region.project, reach=reach, steps=1)
    assert torch.equal(falsifier.polish(violation_of(bumpy), states, region.project, reach=reach, steps=2), twice)


def test_a_blurred_climb_keeps_its_distance_while_the_blur_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    centre, region, starts = numbers(1, 0), Ball(numbers(0, 0), 5.0), numbers(1, 0) + random(6)
    widths, kept, climbed = [], [], []

    def smoothed(violation: object, width: float) -> object:
        widths.append(width)
        return violation, width

    def falsify(climbing: object, states: Tensor, project: Callable, **options: object) -> SimpleNamespace:
        climbed.append((climbing, states, options))
        moved = project(centre + 2 * random(6, seed=len(widths)))
        kept.append((moved - centre).norm(dim=1) / (starts - centre).norm(dim=1))
        close(project(centre[None].repeat(6, 1)), centre[None].repeat(6, 1))  # which lies on no ray
        return SimpleNamespace(states=moved)

    monkeypatch.setattr(falsifier, "smoothed", smoothed)
    monkeypatch.setattr(falsifier, "falsify", falsify)
    options = {"first_step": numbers(*range(6)), "generator": generator(), "steps": 7}
    found = falsifier.approach(violation_of(bumpy), starts, region.project, centre=centre, **options)
    assert widths == list(falsifier.WIDTHS) == sorted(widths, reverse=True)
    for width, ratio, seed in zip(widths, kept, range(1, 6), strict=True):
        if width >= falsifier.WIDE:
            close(ratio, [1.0] * 6)
        else:
            expected = region.project(centre + 2 * random(6, seed=seed))
            close(ratio * (starts - centre).norm(dim=1), (expected - centre).norm(dim=1))
    assert widths[1] == falsifier.WIDE
    assert climbed[0][1] is starts
    assert all(one[2] == options for one in climbed)
    for place in range(4):  # each goes on from where the wider one came
        assert climbed[place][1].shape == starts.shape
    directed = (found - centre) / (found - centre).norm(dim=1, keepdim=True)
    drawn = region.project(centre + 2 * random(6, seed=5)) - centre
    close(directed, drawn / drawn.norm(dim=1, keepdim=True))


def test_what_cannot_be_smoothed_stays_where_it_is() -> None:
    def violation(z: Tensor) -> Violation:
        if z.requires_grad:
            raise ValueError("no gradient is known")
        return violation_of(bumpy)(z)

    options = {"centre": numbers(0, 0), "first_step": torch.ones(3).double(), "generator": generator()}
    assert torch.equal(falsifier.approach(violation, random(3), lambda states: states, **options), random(3))
