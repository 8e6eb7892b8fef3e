"""States that the constants and the curvature of a function single out, beside plain references."""

import math

import pytest
import torch
from hand_made_claims import violation_of
from plain_states import close, numbers, random
from solver_problems import generator
from torch import Tensor

from analysis.evidence import landmarks
from analysis.evidence.regions import Ball, Pairs
from stabdeq.lyapunov.claims import Violation


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
