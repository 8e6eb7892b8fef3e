"""The parts that evidence is made of, on numbers that are known: regions, zero sets, landmarks, smoothed functions, shrinking."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from plain_states import numbers
from torch import Tensor

from analysis.evidence import falsifier, landmarks, smoothing, zero_set
from analysis.evidence.claim import Claim
from analysis.evidence.effort import Effort
from analysis.evidence.judge import judge
from analysis.evidence.noise import rounding_noise
from analysis.evidence.regions import Ball, Box, Outside, Pairs
from analysis.evidence.shrink import shrink
from analysis.evidence.sublevel import Sublevel
from analysis.evidence.zero_set import ZeroSet, extreme, find_zero_set
from stabdeq.lyapunov.claims import Violation


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


BOX = Box(numbers(1, 0), numbers(-2, -1), numbers(2, 3))


# --- regions ---


def test_the_radius_of_a_box_is_that_of_its_farthest_corner() -> None:
    assert BOX.radius == pytest.approx((3**2 + 3**2) ** 0.5)
    assert Box(numbers(0), numbers(-1), numbers(4)).radius == 4


def test_a_box_holds_its_sides_and_little_more() -> None:
    inside = torch.stack([numbers(-2, -1), numbers(2, 3), numbers(-2 - 1e-13, 3 + 1e-13)])
    outside = torch.stack([numbers(-2 - 1e-9, 0), numbers(2 + 1e-9, 0), numbers(0, -1 - 1e-9), numbers(0, 3 + 1e-9)])
    assert bool(BOX.contains(inside).all())
    assert not bool(BOX.contains(outside).any())
    assert BOX.exit(torch.stack([numbers(1, 0), numbers(-1, 0), numbers(0, -1)])).flatten().tolist() == [1, 3, 1]


def test_projected_states_lie_in_the_region_and_those_inside_stay() -> None:
    states = 3 * torch.randn(200, 2, generator=generator(), dtype=torch.float64)
    ball = Ball(numbers(1, 0), 0.7)
    for region in (ball, BOX, Outside(ball, 0.3)):
        found = region.project(states)
        assert bool(region.contains(found).all())
    near = ball.centre + 0.1 * states
    inner = (Outside(ball, 0.3).project(near) - ball.centre).norm(dim=1)
    assert int(((near - ball.centre).norm(dim=1) < 0.3).sum()) > 50
    assert bool((inner >= 0.3).all())  # not within by a rounding
    assert bool(((ball.project(states) - ball.centre).norm(dim=1) <= 0.7).all())
    few = ball.centre + 0.5 * torch.eye(2, dtype=torch.float64)
    assert torch.equal(Outside(ball, 0.3).project(few), few)
    pairs = Pairs(ball).project(torch.cat([states, few.repeat(100, 1)], 1))
    assert torch.equal(pairs[:, :2], ball.project(states))
    assert torch.equal(pairs[:, 2:], few.repeat(100, 1))


def norm_of(z: Tensor) -> Tensor:
    return z.norm(dim=1)


def test_the_states_between_two_levels() -> None:
    base = Ball(numbers(0, 0), 2.0)
    ring = Sublevel(base, norm_of, level=1.0, lower=0.5)
    radii = ring.sample(500, generator()).norm(dim=1)
    assert bool((radii >= 0.5 - 1e-9).all() & (radii <= 1 + 1e-9).all())
    assert float((radii**2).mean()) == pytest.approx((1 + 0.25) / 2, abs=0.03)  # uniform by volume
    states = torch.stack([numbers(0.5, 0), numbers(0, 1), numbers(0.49, 0), numbers(0, 1.01)])
    assert ring.contains(states).tolist() == [True, True, False, False]
    assert ring.project(states).norm(dim=1).tolist() == pytest.approx([0.5, 1, 0.5, 1], abs=1e-9)
    assert ring.reach(numbers(1, 0)[None]).item() == pytest.approx(1, abs=1e-12)


def test_a_set_that_is_nowhere_is_drawn_at_its_centre() -> None:
    nowhere = Sublevel(Ball(numbers(1, 2), 2.0), lambda z: z.norm(dim=1) + 5, level=4.0, lower=1.0)
    assert torch.equal(nowhere.sample(5, generator()), numbers(1, 2).repeat(5, 1))


def test_the_boundary_of_a_level_is_not_where_the_base_ends() -> None:
    wide, narrow = (
        Sublevel(Ball(numbers(0, 0), radius), norm_of, level=1.0, on_boundary=True) for radius in (2.0, 0.9)
    )
    assert wide.contains(torch.stack([numbers(1, 0), numbers(0.99, 0), numbers(1.01, 0)])).tolist() == [
        True,
        False,
        False,
    ]
    assert not bool(narrow.contains(numbers(0.9, 0)[None]))
    assert wide.sample(50, generator()).norm(dim=1).tolist() == pytest.approx([1.0] * 50, abs=1e-12)


# --- zero sets ---


def circle(z: Tensor) -> Tensor:
    return z.square().sum(1) - 1


def of_circle(inner: float = 0.0) -> ZeroSet:
    angles = torch.linspace(0, 2 * torch.pi, 65, dtype=torch.float64)[1:]
    rays = torch.stack([angles.cos(), angles.sin()], 1)
    base = Box(numbers(0, 0), numbers(-2, -2), numbers(2, 2))
    return ZeroSet(base, circle, lambda z: 2 * z, 0.5 * rays, 1.5 * rays, 1.0, inner)


def test_the_zeros_of_a_circle() -> None:
    found = of_circle()
    drawn = found.sample(100, generator())
    assert drawn.norm(dim=1).tolist() == pytest.approx([1.0] * 100, abs=1e-12)
    states = torch.stack([numbers(0.9, 0), numbers(0, 1.2), numbers(0, 0), numbers(1, 0)])
    moved = found.project(states)
    assert moved.norm(dim=1).tolist() == pytest.approx([1.0] * 4, abs=1e-12)
    torch.testing.assert_close(moved[[0, 1, 3]], torch.stack([numbers(1, 0), numbers(0, 1), numbers(1, 0)]))
    assert found.contains(torch.stack([numbers(1, 0), numbers(0.6, 0.8), numbers(1 + 1e-6, 0)])).tolist() == [
        True,
        True,
        False,
    ]
    assert found.contains(numbers(3, 0)[None]).tolist() == [False]
    assert not bool(of_circle(inner=1.5).contains(numbers(1, 0)[None]))


def test_a_state_that_is_pushed_out_of_a_ball_stays_on_a_zero_set() -> None:
    on_it = numbers(1, 0)
    outside = Outside(replace(of_circle(), base=Box(on_it, numbers(-2, -2), numbers(2, 2))), 0.1)
    moved = outside.project(torch.stack([numbers(1, 0.05), numbers(0.99, -0.02)]))
    assert bool(outside.contains(moved).all())


def test_a_zero_set_is_found_between_states_of_both_signs() -> None:
    found = find_zero_set(Ball(numbers(0, 0), 2.0), circle, lambda z: 2 * z, 1.0)
    assert isinstance(found, ZeroSet)
    assert (len(found.below), len(found.above)) == (256, 256)
    assert bool((circle(found.below) <= 0).all() & (circle(found.above) > 0).all())


def test_a_state_that_is_a_zero_stays_and_a_flat_one_goes_to_the_nearest_anchor() -> None:
    found = of_circle()
    states = torch.stack([numbers(0.6, 0.8), numbers(0, 0), numbers(-1, 0)])
    moved = found.project(states)
    assert torch.equal(moved[2], states[2])
    torch.testing.assert_close(moved[0], states[0], rtol=0, atol=1e-12)
    assert float(moved[1].norm()) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(found._nearest(numbers(0, 0.9)[None], numbers(-1.0)), numbers(0, 1.5)[None])
    torch.testing.assert_close(found._nearest(numbers(0, -1.9)[None], numbers(1.0)), numbers(0, -0.5)[None])


def test_of_two_zeros_to_rounding_the_nearer_is_taken() -> None:
    found = of_circle()
    states = torch.stack([numbers(0.3, 0), numbers(1.7, 0.2)])
    ends = torch.stack([numbers(1.9, 0.1), numbers(0.2, -0.3)])
    between = found._between(states, ends, circle(states))
    low, high = states, ends
    for place in range(2):
        along = between[place] + (high - low)[place] * numbers(-1e-15, 1e-15)[:, None]
        assert float(circle(between)[place].abs()) <= float(circle(along).abs().max())
    assert float(circle(between).abs().max()) <= 4e-16


def test_what_has_one_sign_has_no_zeros_and_tells_its_least() -> None:
    base = Ball(numbers(0, 0), 1.0)
    found = find_zero_set(base, lambda z: z.square().sum(1) + 0.5, lambda z: 2 * z, 1.0)
    assert not isinstance(found, ZeroSet)
    state, value = found
    assert value == pytest.approx(0.5, abs=1e-4)
    assert float(state.norm()) < 1e-2


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_ends_of_climbs_are_in_order(sign: int) -> None:
    base = Ball(numbers(0, 0), 1.0)
    drawn = base.sample(100, generator())
    ends = extreme(base, lambda z: z[:, 0], drawn, sign, generator())
    assert ends.shape == (zero_set.CLIMBS, 2)
    heights = (sign * ends[:, 0]).tolist()
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == pytest.approx(1, abs=1e-3)


# --- landmarks ---


def test_a_function_without_constants_or_curvature_has_no_landmarks_of_them() -> None:
    centre = numbers(0, 0)
    assert landmarks._from_constants([], Ball(centre, 1.0), generator()).shape == (0, 2)

    def broken(z: Tensor) -> Violation:
        return Violation((z[:, 0] * torch.inf).square(), torch.ones_like(z[:, 0]))

    assert landmarks._along_axes(broken, Ball(centre, 1.0)).shape[1] == 2
    large = Ball(torch.zeros(landmarks.LARGEST_HESSIAN + 1, dtype=torch.float64), 1.0)
    assert landmarks._along_axes(broken, large).shape == (0, landmarks.LARGEST_HESSIAN + 1)


def test_constants_are_looked_at_all_where_they_are_few() -> None:
    region = Ball(numbers(0, 0), 10.0)
    rows = torch.arange(1, 11, dtype=torch.float64).view(5, 2)
    states = landmarks._from_constants([rows], region, generator())
    for row, column in zip(rows, rows.view(5, 2).flip(0), strict=True):
        for state in (row, column):
            near = region.project(state[None])
            assert float((states - near).norm(dim=1).min()) < 1e-12
    unmoved = states[: len(rows)]
    torch.testing.assert_close(unmoved, region.project(rows))  # in their order, none drawn


# --- smoothed functions ---


def evaluated(excess: Callable[[Tensor], Tensor], width: float = 1e-9) -> list[float]:
    states = numbers(-2, -0.5, 0.5, 2).view(4, 1).requires_grad_()
    return smoothing.smoothed(lambda z: Violation(excess(z)[:, 0], z[:, 0]), width)(states).excess.tolist()


@pytest.mark.parametrize(
    "excess",
    [
        torch.relu,
        lambda z: z.clamp(-1, 1),
        lambda z: z.clamp(min=-1),
        lambda z: z.clamp(max=1),
        lambda z: torch.nn.functional.hardtanh(z),
        lambda z: torch.nn.functional.relu6(4 * z),
        lambda z: torch.maximum(z, -z),
        lambda z: torch.minimum(z, -z),
        lambda z: torch.where(z > 1, z, -z),
        lambda z: torch.where(z < 1, z, -z),
        lambda z: (z >= 1) * z,
        lambda z: z * (z <= -1),
        lambda z: (z > 0).double(),
        lambda z: (z < 0).to(torch.float64) * z,
        torch.tanh,
        torch.sigmoid,
        torch.exp,
        torch.nn.functional.softplus,
    ],
)
def test_a_function_smoothed_by_next_to_nothing_is_itself(excess: Callable[[Tensor], Tensor]) -> None:
    plain = excess(numbers(-2, -0.5, 0.5, 2).view(4, 1))[:, 0].tolist()
    assert evaluated(excess) == pytest.approx(plain, abs=1e-6)


def test_a_smoothed_step_has_a_slope_everywhere() -> None:
    states = numbers(-2, -0.5, 0.5, 2).view(4, 1).requires_grad_()
    excess = smoothing.smoothed(lambda z: Violation((z > 0).double()[:, 0], z[:, 0]), 1.0)(states).excess
    (slope,) = torch.autograd.grad(excess.sum(), states)
    assert bool((slope > 0).all())
    assert excess.tolist() == sorted(excess.tolist())
    assert float((excess[0] + excess[3]).detach()) == pytest.approx(1)


def test_a_choice_by_a_smoothed_step_has_a_slope() -> None:
    states = numbers(-2, -0.5, 0.5, 2).view(4, 1).requires_grad_()
    one = torch.ones(4, 1, dtype=torch.float64)
    chosen = smoothing.smoothed(lambda z: Violation(torch.where(z > 0, one, 0 * one)[:, 0], z[:, 0]), 1.0)
    (slope,) = torch.autograd.grad(chosen(states).excess.sum(), states)
    assert bool((slope > 0).all())


def test_a_softplus_is_stretched_where_the_width_is_more_than_its_own() -> None:
    width = 2 * (4.25 / 2) ** 0.5  # twice the root mean square of the states
    plain = width * torch.nn.functional.softplus(numbers(-2, -0.5, 0.5, 2) / width)
    assert evaluated(torch.nn.functional.softplus, 2.0) == pytest.approx(plain.tolist())


# --- climbing, shrinking, judging ---


def test_the_best_of_climbs_is_kept_and_what_is_not_finite_is_told() -> None:
    def violation(z: Tensor) -> Violation:
        value = 1 - (z - 0.3).square().sum(1)
        return Violation(torch.where(z[:, 0] < -0.9, torch.nan, value), torch.ones_like(value))

    starts = torch.stack([numbers(0.5, 0.5), numbers(-0.95, 0), numbers(0.31, 0.3)])
    region = Box(numbers(0, 0), numbers(-1, -1), numbers(1, 1))
    found = falsifier.falsify(
        violation, starts, region.project, first_step=numbers(0.1, 0.0, 0.1), generator=generator()
    )
    assert found.relative == pytest.approx(1, abs=1e-6)
    assert found.relative == float(found.relatives.max())
    assert found.relatives[1] == -torch.inf
    assert found.not_finite is not None
    assert found.not_finite.tolist() == [-0.95, 0]
    assert found.evaluations == 3 * 81


def test_newton_steps_reach_a_maximum_at_once() -> None:
    def violation(z: Tensor) -> Violation:
        value = -(z[:, 0] - 0.2).square() - 5 * (z[:, 1] + 0.1).square() + (z[:, 0] - 0.2) * (z[:, 1] + 0.1)
        return Violation(value, torch.ones_like(value))

    region = Ball(numbers(0, 0), 1.0)
    found = falsifier.polish(violation, numbers(0.5, 0.3)[None], region.project, reach=numbers(1.0), steps=3)
    torch.testing.assert_close(found, numbers(0.2, -0.1)[None], rtol=0, atol=1e-7)
    hessian = falsifier.hessians(lambda z: violation(z).relative, numbers(0.5, 0.3)[None], numbers(1e-4))
    torch.testing.assert_close(hessian[0], torch.stack([numbers(-2, 1), numbers(1, -10)]), rtol=1e-6, atol=1e-6)


def test_a_witness_is_shrunk_no_nearer_than_is_allowed() -> None:
    def violates(states: Tensor) -> Tensor:
        return states.norm(dim=1) > 0.25

    found = shrink(numbers(0.83, 0.1), numbers(0, 0), violates)
    assert found.tolist() == [0.3, 0.0]
    moved = shrink(numbers(1.83, 3.1), numbers(1, 3), lambda states: violates(states - numbers(1, 3)))
    assert moved.tolist() == pytest.approx([1.3, 3.0])
    held = shrink(numbers(0.83, 0.1), numbers(0, 0), violates, nearest=0.5)
    assert float(held.norm()) == pytest.approx(0.5)


def test_of_many_coordinates_1_2_4_and_so_on_are_kept() -> None:
    state = torch.arange(2000, 0, -1, dtype=torch.float64)
    for count, kept in ((3, 4), (4, 4), (9, 16)):
        found = shrink(state, torch.zeros_like(state), lambda states, count=count: states[:, count - 1] > 1000)
        assert int((found != 0).sum()) == kept


@pytest.mark.parametrize(("excess", "is_refuted"), [(1e-14, True), (0.0, True), (-1e-3, False)])
def test_equality_refutes_a_strict_claim_and_is_said(excess: float, is_refuted: bool) -> None:
    def violation(z: Tensor) -> Violation:
        return Violation(torch.full_like(z[:, 0], excess), torch.ones_like(z[:, 0]))

    for is_strict in (True, False):
        claim = Claim(
            check="claim", name="claim", sentence="It holds.", violation=violation, tolerance=1e-12, strict=is_strict
        )
        region = Outside(Ball(numbers(0, 0), 1.0), 0.1)
        found = judge(claim, region, seed=0, effort=Effort(samples=64, starts=4, steps=3))
        assert (found.verdict.name == "REFUTED") is (is_refuted and is_strict)
        if is_refuted and is_strict:
            assert "Equality, to rounding," in found.evidence


def test_the_noise_of_a_value_and_of_none() -> None:
    centre = numbers(0, 0)
    assert rounding_noise(lambda z: z[:, 0], centre, 1.0, generator()) < 1e-17

    def noisy(z: Tensor) -> Tensor:
        return 1e-6 * torch.randn(len(z), generator=generator(1), dtype=torch.float64)

    assert 3e-7 < rounding_noise(noisy, centre, 1.0, generator()) < 3e-6
    assert rounding_noise(lambda z: z[:, 0] * torch.nan, centre, 1.0, generator()) == 0


def test_out_of_a_ball_a_state_is_moved_along_its_ray_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set along rays is entered once for all states: finding where its rays end is what a falsifier's time goes into."""
    entered: list[int] = []
    true = Sublevel.project

    def counted(region: Sublevel, states: Tensor) -> Tensor:
        entered.append(len(states))
        return true(region, states)

    monkeypatch.setattr(Sublevel, "project", counted)
    region = Outside(Sublevel(Ball(numbers(0, 0), 2.0), lambda z: z.square().sum(1), 1.0), 0.5)
    states = region.project(torch.randn(40, 2, generator=generator(), dtype=torch.float64) / 2)
    assert entered == [40]
    assert bool(region.contains(states).all())
