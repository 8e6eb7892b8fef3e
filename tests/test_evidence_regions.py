"""Regions, what is drawn in them, and what lies in them for certain, each beside a plain reference, a state at a time."""

import math
from collections.abc import Callable
from dataclasses import astuple

import pytest
import torch
from plain_states import close, numbers, random
from solver_problems import generator
from torch import Tensor

from analysis.evidence import sampling, sublevel
from analysis.evidence.effort import Effort
from analysis.evidence.membership import surely_contains
from analysis.evidence.promising import Promising, best_by_distance
from analysis.evidence.regions import Ball, Box, Outside, Pairs, Region, polar
from analysis.evidence.sublevel import Sublevel

INFINITE = math.inf
CENTRE = (1.0, 0.0)
BALL = Ball(numbers(*CENTRE), 0.7)
BOX = Box(numbers(*CENTRE), numbers(-2, -1), numbers(2, 3))
STATES = numbers(1, 0) + 2 * random(100)


# --- balls and boxes ---


def test_a_ball_is_what_its_distances_say() -> None:
    moved, inside, beyond = BALL.project(STATES), BALL.contains(STATES), BALL.beyond(STATES)
    for one, there, is_inside, by in zip(
        STATES.tolist(), moved.tolist(), inside.tolist(), beyond.tolist(), strict=True
    ):
        distance = math.dist(one, CENTRE)
        shorter = min(1, 0.7 / distance)
        assert is_inside is (distance <= 0.7)
        assert by == pytest.approx(distance / 0.7 - 1, abs=1e-12)
        assert there == pytest.approx([c + (x - c) * shorter for x, c in zip(one, CENTRE, strict=True)], abs=1e-12)
        assert math.dist(there, CENTRE) <= 0.7
        assert not is_inside or there == one
    assert BALL.contains(numbers(*CENTRE) + numbers(0.7 * (1 + 1e-13), 0)[None]).tolist() == [True]
    assert BALL.exit(torch.eye(2).double()).tolist() == [[0.7], [0.7]]
    assert BALL.drawn == "uniformly by volume"
    assert (BALL.moving, BALL.is_curved) == (2, False)
    assert (BALL.words, BALL.within) == ("the ball of radius 0.7 around the centre", "0.7 of the centre")


def test_a_box_is_what_its_sides_say() -> None:
    moved, inside, beyond = BOX.project(STATES), BOX.contains(STATES), BOX.beyond(STATES)
    ends = BOX.exit(STATES - numbers(*CENTRE))
    for place, (x, y) in enumerate(STATES.tolist()):
        assert moved[place].tolist() == [min(max(x, -2), 2), min(max(y, -1), 3)]
        assert bool(inside[place]) is (-2 <= x <= 2 and -1 <= y <= 3)
        assert float(beyond[place]) == pytest.approx(max(max(x - 2, -2 - x) / 4, max(y - 3, -1 - y) / 4), abs=1e-12)
        across = (2 - 1 if x > 1 else -2 - 1) / (x - 1), (3 if y > 0 else -1) / y
        assert float(ends[place]) == pytest.approx(min(across), abs=1e-12)
    assert BOX.exit(numbers(0, -2)[None]).tolist() == [[0.5]]
    assert BOX.drawn == "uniformly by volume"
    assert (BOX.moving, BOX.is_curved, BOX.radius) == (2, False, pytest.approx(18**0.5))
    assert BOX.within == BOX.words == "the box [-2, 2] x [-1, 3]"
    assert Box(numbers(0, 0), numbers(-1, -1), numbers(1, 1)).words == "the box [-1, 1]^2"
    assert Box(numbers(0), numbers(-1), numbers(1)).words == "the box [-1, 1]"


def test_the_rays_of_states() -> None:
    distance, rays = polar(torch.cat([STATES, numbers(*CENTRE)[None]]), numbers(*CENTRE))
    for one, length, (x, y) in zip(STATES.tolist(), distance[:-1].flatten().tolist(), rays[:-1].tolist(), strict=True):
        assert length == pytest.approx(math.dist(one, CENTRE), abs=1e-12)
        assert one == pytest.approx([1 + length * x, length * y], abs=1e-12)
    assert (float(distance[-1]), rays[-1].tolist()) == (0, [1, 0])


# --- regions of regions ---


def test_pairs_are_of_two_states_of_the_region() -> None:
    pairs = Pairs(BALL)
    assert pairs.centre.tolist() == [*CENTRE, *CENTRE]
    assert pairs.radius == pytest.approx(0.7 * 2**0.5)
    assert (pairs.words, pairs.is_curved) == (BALL.words, False)
    assert pairs.drawn == "in independent pairs, each uniformly by volume,"
    for states in (pairs.sample(64, generator()), pairs.shells(64, generator())):
        assert states.shape == (64, 4)
        first, second = states.chunk(2, 1)
        assert bool(BALL.contains(first).all() & BALL.contains(second).all())
        assert bool((first != second).any(1).all())
    inside, outside = CENTRE, (5.0, 0.0)
    both = [[*one, *other] for one in (inside, outside) for other in (inside, outside)]
    assert pairs.contains(numbers(*both)).tolist() == [True, False, False, False]


def test_what_is_outside_of_a_ball_is_at_least_so_far_away() -> None:
    outside = Outside(BALL, 0.5)
    assert (outside.radius, outside.is_curved, outside.drawn) == (0.7, False, BALL.drawn)
    assert outside.centre is BALL.centre
    assert outside.words == "the ball of radius 0.7 around the centre, further than 0.5 from the centre"
    moved, within, inside = outside.project(STATES), BALL.project(STATES), outside.contains(STATES)
    for one, between, there, is_inside in zip(*map(Tensor.tolist, (STATES, within, moved, inside)), strict=True):
        distance = math.dist(between, CENTRE)
        longer = max(1, 0.5 / distance)
        assert there == pytest.approx([c + (x - c) * longer for x, c in zip(between, CENTRE, strict=True)], abs=1e-12)
        assert math.dist(there, CENTRE) >= 0.5
        assert is_inside is (0.5 <= math.dist(one, CENTRE) <= 0.7)
    assert 0 < int(inside.sum()) < len(STATES)
    for states in (outside.sample(50, generator()), outside.shells(50, generator())):
        assert len(states) == 50
        assert float((states - BALL.centre).norm(dim=1).min()) >= 0.5
    close(outside.project(numbers(*CENTRE)[None]), [[1.5, 0.0]])


class Rim(Ball):
    """The circle of radius 1 through the centre (1, 0), around (0, 0)."""

    entered = 0

    @property
    def is_curved(self) -> bool:
        return True

    def project(self, states: Tensor) -> Tensor:
        Rim.entered += 1
        return states / states.norm(dim=1, keepdim=True)


def test_out_of_a_ball_on_a_curve_a_state_is_pushed_until_it_stays_out() -> None:
    region = Outside(Rim(numbers(1, 0), 2.0), 0.3)
    start = numbers(math.cos(0.01), math.sin(0.01))[None]
    Rim.entered = 0
    moved = region.project(torch.cat([start, -start]))
    assert 2 < Rim.entered <= 1 + 8
    distance = (moved - numbers(1, 0)).norm(dim=1)
    assert float(distance[0]) == pytest.approx(0.3, abs=1e-9)
    close(moved.norm(dim=1), [1.0, 1.0])
    torch.testing.assert_close(moved[1], -start[0], rtol=0, atol=1e-15)
    Rim.entered = 0
    region.project(-start)
    assert Rim.entered == 1  # nothing is near, and nothing is pushed


def norm_of(z: Tensor) -> Tensor:
    return z.norm(dim=1)


def ulp(number: float, towards: float) -> float:
    return math.nextafter(number, towards)


@pytest.mark.parametrize(
    ("region", "inside", "outside"),
    [
        (Ball(numbers(0, 0), 5.0), [(3, 4), (0, -5)], [(3, ulp(4, 9)), (ulp(5, 9), 0), (4, 4)]),
        (Ball(numbers(10, 20), 5.0), [(13, 24), (10, 15)], [(13, ulp(24, 30)), (ulp(5, 0), 20)]),
        (BOX, [(-2, -1), (2, 3), (0, 0)], [(ulp(-2, -9), 0), (0, ulp(-1, -9)), (ulp(2, 9), 0), (0, ulp(3, 9))]),
        (Outside(Ball(numbers(0, 0), 9.0), 5.0), [(3, 4), (6, 6)], [(3, ulp(4, 0)), (30, 40), (4, 1)]),
        (Pairs(Ball(numbers(0, 0), 5.0)), [(3, 4, 4, 3)], [(3, 4, 3, ulp(4, 9)), (3, ulp(4, 9), 3, 4)]),
        (Sublevel(Ball(numbers(0, 0), 5.0), norm_of, 3.0), [(2, 2)], [(3, 1), (3, ulp(4, 9))]),
        (Sublevel(Ball(numbers(0, 0), 5.0), norm_of, 9.0), [(3, 4)], [(3, ulp(4, 9))]),
    ],
)
def test_what_lies_in_a_region_for_certain(region: Region, inside: list[tuple], outside: list[tuple]) -> None:
    assert [surely_contains(region, numbers(*state)) for state in inside] == [True] * len(inside)
    assert [surely_contains(region, numbers(*state)) for state in outside] == [False] * len(outside)


# --- sets between levels ---

DIRECTIONS = torch.stack([torch.linspace(0.1, 6.3, 24).double().cos(), torch.linspace(0.1, 6.3, 24).double().sin()], 1)
LEVELS = [(INFINITE, -INFINITE), (0.8, -INFINITE), (0.8, 0.3), (INFINITE, 0.3), (5.0, 4.0), (-0.1, -0.2), (0.8, -0.1)]


def hilly(z: Tensor) -> Tensor:
    """It falls again behind hills."""
    x, y = (z - numbers(*CENTRE)).unbind(1)
    return x.square() / 2 + y.square() + 0.8 * (2 * x + y).sin().square() + x.pow(3) / 8


def hilly_along(x: float, y: float, length: float) -> float:
    x, y = length * x, length * y
    return x * x / 2 + y * y + 0.8 * math.sin(2 * x + y) ** 2 + x**3 / 8


def first_beyond(value: Callable[[float], float], exit_: float, level: float) -> float:
    """Return where ``value`` first exceeds ``level``, ``exit_`` where it does not: by many steps, and halving the last."""
    steps = [exit_ * number / 512 for number in range(513)]
    last = next((number for number, length in enumerate(steps) if value(length) > level), None)
    if not last:
        return exit_ if last is None else 0.0
    low, high = steps[last - 1], steps[last]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if value(middle) <= level else (low, middle)
    return low


@pytest.mark.parametrize(("level", "lower"), LEVELS)
@pytest.mark.parametrize("base", [Ball(BALL.centre, 2.0), BOX], ids=["ball", "box"])
def test_a_set_between_levels_begins_and_ends_where_v_first_exceeds_them(
    base: Ball | Box, level: float, lower: float
) -> None:
    region = Sublevel(base, hilly, level, lower)
    found, reach = torch.cat(region._ends(DIRECTIONS), 1), region.reach(DIRECTIONS)
    states, expected, inside = [], [], []
    for (x, y), ends, far, exit_ in zip(
        DIRECTIONS.tolist(),
        found.tolist(),
        reach.flatten().tolist(),
        base.exit(DIRECTIONS).flatten().tolist(),
        strict=True,
    ):

        def value(length: float, x: float = x, y: float = y) -> float:
            return hilly_along(x, y, length)

        end = first_beyond(value, exit_, level)
        begin = min(end, first_beyond(value, exit_, lower)) if lower > -INFINITE else 0.0
        assert ends == pytest.approx([begin, end], abs=1e-12)
        assert far == ends[1]
        for length in (0.0, begin / 2, (begin + end) / 2, (end + exit_) / 2, 1.5 * exit_):
            moved = min(max(length, begin), end)
            states.append([1 + length * x, length * y])
            expected.append([1 + moved * x, moved * y])
            inside.append(length <= end and (lower == -INFINITE or value(length) >= lower))
    if level > -0.1:  # else no state is in the set, and all are moved to its centre
        assert region.contains(numbers(*states)).tolist() == inside
    directed = [place for place in range(len(states)) if place % 5]  # the centre is on no ray of its own
    close(region.project(numbers(*states))[directed], [expected[place] for place in directed])


@pytest.mark.parametrize("base", [Ball(BALL.centre, 0.9), BOX], ids=["ball", "box"])
def test_a_boundary_is_where_v_first_exceeds_its_level(base: Ball | Box) -> None:
    region = Sublevel(base, hilly, 0.8, 0.3, on_boundary=True)
    exits = base.exit(DIRECTIONS).flatten().tolist()
    ends = [
        first_beyond(lambda length, x=x, y=y: hilly_along(x, y, length), exit_, 0.8)
        for (x, y), exit_ in zip(DIRECTIONS.tolist(), exits, strict=True)
    ]
    at = [[1 + end * x, end * y] for end, (x, y) in zip(ends, DIRECTIONS.tolist(), strict=True)]
    close(region.project(numbers(*CENTRE) + 0.1 * DIRECTIONS), at)
    close(region.project(numbers(*CENTRE) + 5 * DIRECTIONS), at)
    is_ended = [end < exit_ * (1 - 1e-6) for end, exit_ in zip(ends, exits, strict=True)]
    assert any(is_ended)
    assert region.contains(numbers(*at)).tolist() == is_ended
    for size in (1 - 1e-6, 1 + 1e-6):
        assert not bool(region.contains(numbers(*CENTRE) + size * (numbers(*at) - numbers(*CENTRE))).any())


def test_what_is_drawn_between_levels_is_uniform_along_each_ray() -> None:
    base = Ball(numbers(0, 0, 0), 2.0)
    for level, lower, on_boundary in [
        (1.5, -INFINITE, False),
        (1.5, 0.5, False),
        (INFINITE, 0.5, False),
        (1.5, 0.5, True),
    ]:
        region = Sublevel(base, norm_of, level, lower, on_boundary=on_boundary)
        drawn = region.sample(50, generator())
        same = generator()
        rays = sampling.directions(50, 3, same)
        begin, end = max(lower, 0.0), min(level, 2.0)
        fraction = torch.ones(50, 1) if on_boundary else torch.rand(50, 1, generator=same, dtype=torch.float64)
        lengths = (begin**3 + fraction * (end**3 - begin**3)) ** (1 / 3)
        close(drawn, (lengths * rays).tolist())
    shells = Sublevel(base, norm_of, 1.5).shells(64, generator()).norm(dim=1)
    assert float(shells.max()) == pytest.approx(1.5)
    assert float(shells.min()) == pytest.approx(2e-9)


def test_a_set_between_levels_says_what_it_is() -> None:
    base = Ball(numbers(0, 0), 2.0)
    assert Sublevel(base, norm_of).words == base.words
    assert (Sublevel(base, norm_of).has_levels, Sublevel(base, norm_of, lower=0.5).has_levels) == (False, True)
    below = Sublevel(base, norm_of, 1.5)
    assert (below.has_levels, below.is_curved, below.radius) == (True, False, 2.0)
    assert below.centre is base.centre
    seen = "within 2 of the centre, seen along rays from the centre"
    assert below.words == f"the sublevel set {{V <= 1.5}} {seen}"
    assert Sublevel(base, norm_of, 1.5, 0.5).words == f"the set {{0.5 <= V <= 1.5}} {seen}"
    assert Sublevel(base, norm_of, lower=0.5).words == f"the set {{V >= 0.5}} {seen}"
    boundary = Sublevel(base, norm_of, 1.5, 0.5, on_boundary=True)
    assert boundary.words == f"the boundary of the sublevel set {{V <= 1.5}} {seen}"
    assert Sublevel(BOX, norm_of, 1.5, on_rays=False).words == f"the sublevel set {{V <= 1.5}} within {BOX.words}"
    assert boundary.drawn == "uniformly by direction"
    assert below.drawn == "uniformly by direction, and by volume along each ray"


@pytest.mark.parametrize("level", [2.0, 0.0, -1.0, INFINITE])
def test_the_last_value_within_a_level_is_bracketed(level: float) -> None:
    values = torch.randint(-1, 5, (200, 6), generator=generator()).double()
    values[::7, 0] = torch.nan
    values[3::7, 2] = torch.nan
    values[::11] = 1
    lengths = torch.rand(200, 6, generator=generator(), dtype=torch.float64).cumsum(1)
    found = sublevel._bracket(lengths, values, level)
    for row, of, at in zip(found, values.tolist(), lengths.tolist(), strict=True):
        inside = [level == INFINITE or one <= level or (not place and math.isnan(one)) for place, one in enumerate(of)]
        beyond = inside.index(False) if False in inside else 5
        last = 5 if all(inside) else max(beyond - 1, 0)
        expected = numbers(at[last], at[beyond], of[last], of[beyond])
        assert torch.equal(row.nan_to_num(99), expected.nan_to_num(99))


def test_the_next_look_is_that_of_the_itp_method() -> None:
    """Beside the steps of Oliveira and Takahashi (2020), a number at a time."""
    least = sublevel.STEPS * sublevel.PARTS * sublevel.RESOLUTION
    low, length, below, above = torch.rand(4, 400, generator=generator(), dtype=torch.float64)
    part, left, kinds = 1.0, 5, set()
    length = length ** torch.linspace(1, 40, 400).double()
    below, above = -(below ** torch.linspace(8, 1, 400).double()), above + 1e-3
    columns = [one[:, None] for one in (low, low + length, below, above, torch.full_like(low, part))]
    found = sublevel._between(*columns, left).flatten().tolist()
    for a, b, f_a, f_b, trial in zip(*(one.flatten().tolist() for one in columns[:4]), found, strict=True):
        half, falsi = (a + b) / 2, (f_b * a - f_a * b) / (f_b - f_a)
        delta = max(0.02 * (b - a) ** 2 / part, 0.75 * least * part)
        sign = math.copysign(1, half - falsi)
        truncated = falsi + sign * delta if delta <= abs(half - falsi) else half
        radius = max(least * part * 2**left - (b - a) / 2, 0)
        expected = truncated if abs(truncated - half) <= radius else half - sign * radius
        kinds.add((truncated == half, abs(truncated - half) <= radius, radius > 0))
        assert trial == pytest.approx(expected, abs=1e-15)
    assert len(kinds) >= 4
    undefined = sublevel._between(*(numbers(one)[None] for one in (0.0, 1e-11, 0.0, INFINITE, 1.0)), left)
    assert 0 < float(undefined) < 1e-11


def test_a_level_is_found_to_its_resolution_by_few_looks() -> None:
    looks: list[int] = []

    def counted(value: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def of(z: Tensor) -> Tensor:
            looks.append(len(z))
            return value(z)

        return of

    jump = 0.73172
    found = Sublevel(Ball(numbers(0, 0), 2.0), counted(lambda z: (norm_of(z) > jump).double()), 0.5).reach(
        DIRECTIONS[:3]
    )
    assert float((found - jump).abs().max()) <= 2e-14
    assert 30 < len(looks) <= 2 + 40  # at first 64 steps and 8 parts, then as many as halving takes, and one more
    assert looks[:2] == [3 * 65, 3 * 7]
    looks.clear()
    region = Sublevel(Ball(numbers(0, 0), 2.0), counted(lambda z: z.square().sum(1).exp()), math.exp(jump**2))
    assert float((region.reach(DIRECTIONS[:3]) - jump).abs().max()) <= 4e-14
    assert len(looks) <= 2 + 8
    looks.clear()
    assert (
        Sublevel(Ball(numbers(0, 0), 2.0), counted(norm_of), 3.0).reach(DIRECTIONS[:3]).flatten().tolist() == [2.0] * 3
    )
    assert looks == [3 * 65]  # nowhere above the level: no looks between the steps


def test_values_along_rays_are_found_in_batches() -> None:
    base = Ball(numbers(*CENTRE), 2.0)
    rays, lengths = sampling.directions(70, 2, generator()), random(70, 65, 1).abs()
    found = Sublevel(base, hilly, 1.0)._values(rays, lengths)
    expected = torch.stack(
        [hilly(base.centre + along[:, None] * ray) for ray, along in zip(rays, lengths, strict=True)]
    )
    close(found, expected.tolist())


# --- drawing ---


def test_states_are_drawn_where_they_are_said_to_be() -> None:
    same = generator()
    states = sampling.in_ball(40, numbers(1, 2, 3), 2.0, generator())
    sizes = torch.rand(40, 1, generator=same, dtype=torch.float64)
    rays = sampling.directions(40, 3, same)
    close(states, (numbers(1, 2, 3) + 2 * sizes ** (1 / 3) * rays).tolist())
    close(rays.square().sum(1), [1.0] * 40)
    box = sampling.in_box(2000, numbers(-2, 10), numbers(2, 11), generator())
    assert box.shape == (2000, 2)
    for column, low, high in zip(box.unbind(1), (-2, 10), (2, 11), strict=True):
        assert low <= float(column.min()) < low + 0.01 * (high - low)
        assert high >= float(column.max()) > high - 0.01 * (high - low)
        assert float(column.mean()) == pytest.approx((low + high) / 2, abs=0.05 * (high - low))
    shells = (sampling.on_shells(70, numbers(1, 2, 3), 1e-4, 1e2, generator()) - numbers(1, 2, 3)).norm(dim=1)
    assert shells.tolist() == pytest.approx([1e-4 * 1e6 ** (place % 32 / 31) for place in range(70)])


@pytest.mark.parametrize(
    "asked", [(2, 1, 0.95), (-1, 5, 0.95), (0, 0, 0.95), (0, 5, 0.0), (0, 5, 1.0)], ids=lambda asked: str(asked)
)
def test_a_rate_of_no_samples_is_refused(asked: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="expected 0 <= violations <= samples"):
        sampling.clopper_pearson_upper(*asked)


def test_a_rate_has_a_bound_however_few_the_samples() -> None:
    assert sampling.clopper_pearson_upper(0, 1) == pytest.approx(0.95)
    assert sampling.clopper_pearson_upper(1, 1) == 1
    assert sampling.clopper_pearson_upper(1, 2, 0.5) == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(("count", "of"), [(1, 7), (3, 10), (3, 11), (5, 4), (4, 4), (0, 5), (2, 0)])
def test_the_worst_of_each_distance(count: int, of: int) -> None:
    distance, relative = torch.rand(2, of, generator=generator(), dtype=torch.float64)
    order = sorted(range(of), key=lambda place: float(distance[place]))
    size = of // count if count else 0
    bins = [order[size * place : size * (place + 1)] for place in range(count)] if size else [[one] for one in order]
    expected = [max(one, key=lambda place: float(relative[place])) for one in bins] if count else []
    assert best_by_distance(distance, relative, count).tolist() == expected


def test_the_worst_of_several_batches_is_held() -> None:
    held, centre = Promising(numbers(1, 0), 3), numbers(1, 0)
    kept, scores = [], []
    for seed in range(3):
        states = centre + random(10, seed=seed)
        relative = states[:, 1]
        best = best_by_distance((states - centre).norm(dim=1), relative, 3)
        held.add(states, relative)
        kept.append(states[best])
        scores.append(relative[best])
    every, score = torch.cat(kept), torch.cat(scores)
    expected = every[best_by_distance((every - centre).norm(dim=1), score, 3)]
    assert torch.equal(held.worst(), expected)


@pytest.mark.parametrize(
    ("dim", "samples", "starts"),
    [(1, 16384, 64), (16384, 16384, 64), (2**15, 8192, 32), (2**20, 256, 2), (2**24, 64, 2)],
)
def test_of_large_states_fewer_are_afforded(dim: int, samples: int, starts: int) -> None:
    asked = Effort(samples=16384, starts=64, steps=80, shells=256, seconds=7.0)
    assert astuple(asked.affordable(dim)) == (samples, starts, 80, 256, 7.0)
    assert astuple(Effort(samples=5, starts=1).affordable(dim))[:2] == (5, 1)
