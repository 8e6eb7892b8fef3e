"""Boxes that are turned: no state is lost, what is bounded over them holds, and they are fewer where the axes are the wrong ones."""

import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from test_linear_bounds import OTHERS, assert_holds, ball_of, recorded
from torch import Tensor, fx

from analysis.evidence.regions import Ball, Box
from analysis.evidence.sublevel import Sublevel
from analysis.proofs.box_search import Proof, Search, Unproved
from analysis.proofs.boxes import prove_claim
from analysis.proofs.falling import Falling, below_zero
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.linear import Frames, LinearBounds
from analysis.proofs.turned_boxes import Cells, Found, expected, principal_axes, turned, turned_cover, upright

DIM = 3


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def frames_of(count: int, seed: int) -> Frames:
    """Frames of all kinds: of sides alike, very long and very short, nearly flat, and far from 0."""
    basis = numbers(count, DIM, DIM, seed=seed) * torch.tensor([1.0, 1e-3, 1e4]).double()
    basis[::3, :, 1] = basis[::3, :, 0] * (1 + 1e-7) + 1e-9 * basis[::3, :, 1]
    return Frames(numbers(count, DIM, seed=seed + 1) * 10.0 ** torch.arange(-2, count - 2)[:, None].remainder(6), basis)


def solve(matrix: list[list[Fraction]], right: list[Fraction]) -> list[Fraction]:
    """Gaussian elimination in rational numbers."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for place in range(len(rows)):
        pivot = max(range(place, len(rows)), key=lambda row: abs(rows[row][place]))
        rows[place], rows[pivot] = rows[pivot], rows[place]
        rows[place] = [value / rows[place][place] for value in rows[place]]
        for row in range(len(rows)):
            if row != place:
                rows[row] = [a - rows[row][place] * b for a, b in zip(rows[row], rows[place], strict=True)]
    return [row[-1] for row in rows]


def fractions(values: Tensor) -> list[Fraction]:
    return [Fraction(value) for value in values.tolist()]


def test_no_state_is_lost_in_other_coordinates() -> None:
    old, new = frames_of(24, 0), frames_of(24, 2)
    middle, radius = numbers(24, DIM, seed=4), numbers(24, DIM, seed=5).abs()
    box = Interval(middle - radius, middle + radius)
    found, known = new.coordinates_of(old, box)
    faces = new.faces_of(old, box, found)
    states = old.states(box)
    around = new.faces_of_states(states.low.amin(0), states.high.amax(0))
    assert int(known.sum()) >= 12
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * DIM).double()
    for row in known.nonzero().flatten().tolist():
        for share in (*corners, torch.full((DIM,), 0.5).double()):
            inside = torch.where(share == 1, box.high[row], torch.where(share == 0, box.low[row], middle[row]))
            place = fractions(inside)
            state = [
                origin + sum(a * b for a, b in zip(fractions(side), place, strict=True))
                for origin, side in zip(fractions(old.origin[row]), old.basis[row], strict=True)
            ]
            ends = zip(state, states.low[row].tolist(), states.high[row].tolist(), strict=True)
            assert all(low <= value <= high for value, low, high in ends)
            apart = [a - b for a, b in zip(state, fractions(new.origin[row]), strict=True)]
            there = solve([fractions(side) for side in new.basis[row]], apart)
            ends = zip(there, found.low[row].tolist(), found.high[row].tolist(), strict=True)
            assert all(low <= value <= high for value, low, high in ends)
            for *slope, offset in torch.cat([faces[row], around[row]]).tolist():
                assert (
                    math.isinf(offset)
                    or Fraction(offset) + sum(Fraction(a) * b for a, b in zip(slope, there, strict=True)) >= 0
                )


def test_coordinates_are_known_to_rounding_and_faces_keep_others_out() -> None:
    old = Frames(numbers(1, DIM, seed=0), torch.eye(DIM).double()[None])
    new = Frames(old.origin + 1, numbers(1, DIM, DIM, seed=1))
    point = numbers(1, DIM, seed=2)
    found, known = new.coordinates_of(old, Interval.point(point))
    assert bool(known)
    assert torch.allclose(new.at(found.low), old.at(point))
    assert float((found.high - found.low).amax()) < 1e-13
    box = Interval(-torch.ones(1, DIM).double(), torch.ones(1, DIM).double())
    cells = turned(upright(*(old.at(end) for end in (box.low, box.high))), new.basis, Ball(old.origin[0], 9.0))
    beyond = torch.tensor([[1.001, 0, 0]]).double()
    place, _ = cells.frames.coordinates_of(old, Interval.point(beyond))
    assert float((cells.faces[..., :-1] @ place.low[..., None] + cells.faces[..., -1:]).amin()) < 0


def test_a_flat_basis_leaves_a_box_as_it_is() -> None:
    cells = upright(-torch.ones(2, DIM).double(), torch.ones(2, DIM).double())
    basis = torch.stack([torch.ones(DIM, DIM), torch.full((DIM, DIM), math.nan)]).double()
    found = turned(cells, basis, Ball(torch.zeros(DIM).double(), 9.0))
    assert all(torch.equal(a, b) for a, b in zip(found, cells, strict=True))


def in_frame(graph: fx.GraphModule, origin: Tensor, basis: Tensor, coordinates: Tensor) -> Tensor:
    return graph(origin + (coordinates[:, None] * basis).sum(2))


@pytest.mark.parametrize("place", range(0, len(OTHERS), 4))
def test_an_operation_is_between_its_planes_over_turned_boxes(place: int) -> None:
    frames = Frames(numbers(12, 2, seed=place), numbers(12, 2, 2, seed=place + 1))
    low = numbers(12, 2, seed=place + 2)
    high = low + 10.0 ** -torch.arange(12).double()[:, None].remainder(5)
    graph = recorded(lambda z: OTHERS[place](z[:, 0] * 0.3 + z[:, 1]) - z[:, 0] * z[:, 1])
    planes = LinearBounds(graph)(Interval(low, high), frames)
    for row in range(12):
        value = ball_of(recorded(partial(in_frame, graph, frames.origin[row], frames.basis[row])))
        for share in (0.0, 0.31, 1.0):
            state = torch.tensor([low[row, 0] + share * (high[row, 0] - low[row, 0]), high[row, 1]]).double()
            assert_holds(planes, row, torch.minimum(state, high[row]), value(torch.minimum(state, high[row])), place)


def test_the_axes_of_an_ellipsoid() -> None:
    root = numbers(DIM, DIM, seed=3)
    form = root @ root.mT + 0.1 * torch.eye(DIM).double()
    centre = numbers(DIM, seed=4)
    region = Sublevel(Ball(centre, 100.0), lambda z: ((z - centre) @ form * (z - centre)).sum(1), 2.0)
    axes = principal_axes(region)
    assert axes is not None
    alike = axes.mT @ form @ axes
    assert torch.allclose(alike / alike.diagonal().mean(), torch.eye(DIM).double(), atol=0.15)


def valley(least: float) -> tuple[Box, Callable[[Tensor], Tensor]]:
    """V = least + 100 u^2 - 99 u tanh u of u = z0 - z1 + z2, which is 0 at best on a plane across all axes."""

    def value(z: Tensor) -> Tensor:
        across = z[:, 0] - z[:, 1] + z[:, 2]
        return least + 100 * across.square() - 99 * across * across.tanh()

    return Box(*(torch.full((DIM,), side, dtype=torch.float64) for side in (0.0, -1.0, 1.0))), value


def test_a_valley_across_the_axes_takes_few_turned_boxes() -> None:
    region, value = valley(1e-3)
    found = prove_claim("positive", value, None, region, None, max_boxes=40_000)
    assert isinstance(found, Proof)
    assert "some of them turned" in found.words


def test_what_is_left_of_a_search_is_told_by_a_sample() -> None:
    region, value = valley(1e-3)
    graph = Search(value, None, region, None, 10**6, math.inf)
    linear = below_zero(graph, strictly=True)
    assert linear is not None
    cells = upright(region.low[None], region.high[None])

    def examine(cells: Cells) -> Found:
        return Found(*linear.turned(cells, cells.middles), cells.middles)

    whole = turned_cover(cells, examine, region, count=0, max_boxes=10**6, deadline=math.inf)
    assert whole.fault == ""
    assert 0.7 < expected(cells, examine, region) / whole.boxes < 1.4
    stopped = turned_cover(cells, examine, region, count=0, max_boxes=500, deadline=math.inf)
    assert re.search(
        r"are still open, and some \d+, by a sample, are to come \(give more: --boxes 4000\)$", stopped.fault
    )


def test_where_v_is_known_to_be_within_the_levels_it_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A box inside hands that on to its parts, and one that a level cuts does not; nor does the outcome change."""
    monkeypatch.setattr("analysis.proofs.box_search.UPRIGHT_BOXES", 0)
    region, value = valley(1e-3)
    level = float(value(region.low[None])) / 2

    def searched() -> tuple[Proof | Unproved, list[int]]:
        asked: list[int] = []
        whole = Falling._within

        def within(self: Falling, box: Interval, frames: Frames | None) -> Any:
            asked.append(len(box.low))
            return whole(self, box, frames)

        with monkeypatch.context() as patched:
            patched.setattr(Falling, "_within", within)
            return prove_claim("positive", value, None, Sublevel(region, value, level), None, max_boxes=40_000), asked

    found, asked = searched()
    assert isinstance(found, Proof)
    everywhere = Falling._within
    monkeypatch.setattr(Falling, "_within", lambda *given: (*(parts := everywhere(*given))[:3], parts[3] & False))
    again, all_asked = searched()
    assert isinstance(again, Proof)
    assert again.boxes == found.boxes
    assert sum(asked) < 0.9 * sum(all_asked)


def test_the_state_where_a_claim_fails_is_one_of_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.proofs.box_search.UPRIGHT_BOXES", 0)
    for seed in range(12):
        # Below 0 in a corner of the box alone, where a turned box reaches out of it.
        slope = 1 + numbers(DIM, seed=seed).abs()

        def value(z: Tensor, slope: Tensor = slope) -> Tensor:
            return 0.999 * slope.sum() - z @ slope + 1e-2 * (z.square().sum(1) - DIM)

        region = valley(0)[0]
        found = prove_claim("positive", value, None, Sublevel(region, value, 99.0), None, max_boxes=20_000)
        assert isinstance(found, Unproved)
        assert found.fails_at is not None
        state = torch.tensor([found.fails_at]).double()
        assert bool((state.abs() <= 1).all())
        assert float(value(state)) <= 0


def test_a_flat_direction_is_not_turned_to_again_and_again() -> None:
    cells = upright(-torch.ones(1, DIM).double(), torch.ones(1, DIM).double())._replace(age=torch.tensor([9]))
    assert turned(cells, torch.ones(1, DIM, DIM).double(), Ball(torch.zeros(DIM).double(), 9.0)).age.tolist() == [0]


def test_a_box_too_small_to_halve_ends_the_search() -> None:
    region, value = valley(0.0)
    linear = below_zero(Search(value, None, region, None, 100, math.inf), strictly=True)
    assert linear is not None
    point = upright(torch.zeros(1, DIM).double(), torch.zeros(1, DIM).double())
    found = turned_cover(
        point,
        lambda cells: Found(*linear.turned(cells, cells.middles), cells.middles),
        region,
        count=0,
        max_boxes=100,
        deadline=math.inf,
    )
    assert (found.fault, found.fails) == ("a box too small to halve stayed open", False)


def test_the_gap_bends_along_what_is_squared() -> None:
    one = torch.ones(1, 2, dtype=torch.float64)
    bend = LinearBounds(recorded(lambda z: (z[:, 0] + 2 * z[:, 1]) ** 2))(Interval(-one, one), Frames.axes(1, 2)).bend
    assert bend is not None
    torch.testing.assert_close(bend[0] / bend[0, 0, 0], torch.tensor([[1.0, 2.0], [2.0, 4.0]]).double())


def test_what_is_false_in_a_valley_is_not_proved() -> None:
    region, value = valley(-1e-8)
    found = prove_claim("positive", value, None, region, None, max_boxes=40_000)
    assert isinstance(found, Unproved)
    if found.fails_at:
        state = torch.tensor([found.fails_at]).double()
        assert bool(region.contains(state))
        assert float(value(state)) <= 0
