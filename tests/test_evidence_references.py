"""Climbs, zero sets, landmarks, shrinking and noise, each beside a plain reference, a state and a number at a time."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from plain_states import close, generator, numbers, random
from torch import Tensor

from analysis.evidence import falsifier, landmarks, noise, sampling, shrink
from analysis.evidence.regions import Ball, Pairs
from analysis.evidence.zero_set import ZeroSet, extreme, find_zero_set
from stabdeq.lyapunov.claims import Violation


def violation_of(excess: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Violation]:
    def violation(states: Tensor) -> Violation:
        return Violation(excess(states), torch.ones(len(states), dtype=torch.float64))

    return violation


# --- climbs ---


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


# --- zero sets ---


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


# --- landmarks ---


def test_constants_are_numbers_that_are_finite() -> None:
    whole, broken = torch.arange(2), numbers(torch.nan, 1)
    halves = torch.tensor([0.5, 0.25], dtype=torch.float32)
    scale = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)

    def violation(z: Tensor) -> Violation:
        return violation_of(lambda z: (z * whole + z * broken + z * halves + z * scale).sum(1))(z)

    found = landmarks._constants(violation, Ball(numbers(0, 0), 1.0))
    assert [one.tolist() for one in found] == [[0.5, 0.25], [2, 3]]
    assert all(one.dtype == torch.float64 and not one.requires_grad for one in found)


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [((3,), 1, 0), ((5, 3), 5, 0), ((3, 5), 0, 5), ((3, 3), 3, 3), ((2, 4, 3), 8, 0), ((3, 2, 2), 0, 4), ((), 0, 0), ((4,), 0, 0)],
)  # fmt: skip
def test_the_rows_and_columns_of_a_constant(shape: tuple[int, ...], rows: int, columns: int) -> None:
    constant = torch.arange(math.prod(shape)).double().view(shape)
    found = [row for part in landmarks._rows(constant, 3) for row in part.tolist()]
    flat, width = constant.flatten().tolist(), math.prod(shape[1:])
    expected = [flat[3 * row : 3 * row + 3] for row in range(rows)]
    assert found == expected + [[flat[row * width + column] for row in range(3)] for column in range(columns)]


def test_feet_are_the_points_of_the_hyperplanes_nearest_to_0() -> None:
    weights, biases = random(4, 3), [random(1, 4)[0], random(1, 4, 1)[0]]
    weights[2] = 0
    found = landmarks._feet(weights, [biases[0], random(2, 4), biases[1], random(1, 3)[0]])
    assert len(found) == 4
    for bias, feet in zip((biases[0], biases[0], biases[1], biases[1]), found, strict=True):
        sign = (weights[0] @ feet[0]).sign() * bias[0].sign()
        for row in range(4):
            if row != 2:
                close(weights[row] @ feet[row], sign * bias[row])
                close(torch.linalg.cross(weights[row], feet[row]), [0.0] * 3)
    assert [float((weights[0] @ feet[0]) / biases[0][0]) for feet in found[:2]] == pytest.approx([-1, 1])


def test_states_are_made_of_constants_around_0_and_around_the_centre() -> None:
    region = Ball(numbers(1, 0, 0), 50.0)
    weights, bias = 3 * random(2, 3), numbers(0.5, 2)
    found = landmarks._from_constants([weights, bias], region, generator())
    vectors = torch.cat([weights, *landmarks._feet(weights, [bias])])
    rays = torch.cat([vectors, vectors - region.centre])
    expected = [region.centre + rays]
    unit = rays / rays.norm(dim=1, keepdim=True)
    for fraction in landmarks.FRACTIONS:
        expected.append(torch.cat([region.centre + sign * fraction * 50 * unit for sign in (1, -1)]))
    close(found, region.project(torch.cat(expected)))
    assert float((found - region.centre).norm(dim=1).max()) == pytest.approx(50)


def test_of_many_constants_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarks, "MOST_CONSTANTS", 5)
    table, region = random(9, 3), Ball(numbers(0, 0, 0), 50.0)
    each = 2 * (
        1 + 2 * len(landmarks.FRACTIONS)
    )  # around 0 and around the centre: itself, and along it, forth and back
    assert len(landmarks._from_constants([table[:5]], region, generator())) == 5 * each
    found = landmarks._from_constants([table], region, generator())
    assert len(found) == 5 * each
    assert int((torch.cdist(found[:5], table) < 1e-12).sum()) == 5
    assert torch.equal(found, landmarks._from_constants([table], region, generator()))
    monkeypatch.setattr(landmarks, "CONSTANT_NUMBERS", 6)
    assert len(landmarks._from_constants([table], region, generator())) == 2 * each
    monkeypatch.setattr(landmarks, "CONSTANT_NUMBERS", 2)
    assert len(landmarks._from_constants([table], region, generator())) == each


def test_pairs_lie_around_a_state_at_many_distances() -> None:
    states = random(50, 3)
    pairs = landmarks._pairs_around(states, 2.0, generator())
    first, second = pairs.chunk(2, 1)
    close((first + second) / 2, states.repeat(4, 1))
    sizes = (first - second).norm(dim=1) / 2
    assert 2e-3 <= float(sizes.min()) < 2.2e-3
    assert 1.8 < float(sizes.max()) <= 2
    assert float(sizes.log10().mean()) == pytest.approx(math.log10(2) - 1.5, abs=0.15)


def test_states_lie_along_the_axes_of_curvature_and_along_the_gradient() -> None:
    region, axes = Ball(numbers(1, 0, 2), 4.0), torch.linalg.qr(random(3, 3))[0]

    def excess(z: Tensor) -> Tensor:
        along = (z - region.centre) @ axes
        return (along.square() * numbers(1, -2, 3)).sum(1) / 2 + along[:, 0]

    found = landmarks._along_axes(violation_of(excess), region)
    step = landmarks.FRACTIONS[0] * 4
    slopes = [axes @ numbers(1, 0, sign * 3 * step) for sign in (1, -1)]  # an axis has no sign
    rays = [slopes[0] / slopes[0].norm(), axes[:, 1], axes[:, 0], axes[:, 2]]
    count = 4 * 2 * len(landmarks.FRACTIONS)
    assert found.shape == (count, 3)
    offsets = found - region.centre
    for ray in rays[1:]:
        for sign in (-1, 1):
            for fraction in landmarks.FRACTIONS:
                assert float((offsets - sign * fraction * 4 * ray).norm(dim=1).min()) < 1e-8
    directions = [float((offsets / offsets.norm(dim=1, keepdim=True) - s / s.norm()).norm(dim=1).min()) for s in slopes]
    assert min(directions) < 1e-8
    pairs = landmarks.landmarks(violation_of(lambda z: z.square().sum(1)), Pairs(Ball(numbers(0, 0), 1.0)), generator())
    assert pairs.shape == (5 * 2 * len(landmarks.FRACTIONS), 4)  # no constants: the axes and the gradient alone
    overflowing = violation_of(lambda z: 1.5e308 * (z - region.centre).abs().sum(1))
    assert landmarks._along_axes(overflowing, region).shape == (0, 3)


# --- shrinking ---


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


# --- noise ---


@pytest.mark.parametrize("outputs", [1, 3])
def test_noise_is_a_median_of_sixth_differences(outputs: int) -> None:
    def function(z: Tensor) -> Tensor:
        found = (1e7 * z[:, 0] - 3e7 * z[:, 1] + torch.arange(outputs)[:, None]).sin().mT * (
            1 + z.norm(dim=1)[:, None] * 1e3
        )
        return found.squeeze(1)

    centre = numbers(0.5, -1)
    rays = sampling.directions(16, 2, generator())
    signs, levels = numbers(1, -6, 15, -20, 15, -6, 1), []
    for place in range(13):
        radius = 2 * 10 ** (-9 + place / 2)
        states = torch.stack([centre + radius * (1 + k / 1024) * ray for ray in rays for k in range(7)])
        values = function(states).view(16, 7, outputs)
        sizes = (values * signs[:, None]).sum(1).norm(dim=1).tolist()
        levels.append(sorted(sizes)[7] / 924**0.5)
    assert noise.rounding_noise(function, centre, 2.0, generator()) == pytest.approx(max(levels), rel=1e-4)
    assert max(levels) > 1e-3
    huge = 1e308 * torch.ones(1, dtype=torch.float64)
    assert noise.rounding_noise(lambda z: huge * (1e12 * z[:, 0]).sin().sign(), centre, 2.0, generator()) == 0
