"""A judgement, part by part, on states that are chosen: what is suspected, and what is taken for a witness."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hand_made_claims import INNER, REGION, TOLERANCE, beyond_two, claim_of, from_centre, search_of
from plain_states import numbers
from solver_problems import generator
from torch import Tensor

from analysis.evidence import judge as judging
from analysis.evidence.effort import Effort
from analysis.evidence.judge import BY_BALLS, CANDIDATES, _Search
from analysis.evidence.promising import best_by_distance
from analysis.evidence.regions import Outside
from analysis.evidence.shrink import rounded
from stabdeq.lyapunov.claims import Floored, Violation

# --- what is suspected ---


@pytest.mark.parametrize("strict", [True, False])
def test_a_strict_claim_fails_at_equality_clear_of_the_centre(strict: bool) -> None:
    search = search_of(beyond_two, strict=strict)
    for distance in (1.0, INNER, INNER * (1 - 1e-8), 0.0):
        for relative in (-1.0, -1.1e-12, -TOLERANCE, 0.0, TOLERANCE, 1.1e-12, 1.0):
            found = search._violates(numbers(1, distance)[None], numbers(relative))
            is_equal = strict and distance >= INNER * (1 - 1e-9) and relative >= -TOLERANCE
            assert found.tolist() == [relative > TOLERANCE or is_equal]
            for certain in (None, lambda state: (None, 0.0)):
                asked = search_of(beyond_two, strict=strict, certain=certain)._may_violate(numbers(relative))
                least = relative >= -TOLERANCE if strict else relative > TOLERANCE
                assert asked.tolist() == [certain is not None and least]


def test_violations_are_read_in_batches_and_what_is_no_number_is_remembered() -> None:
    sizes: list[int] = []

    def violation(z: Tensor) -> Violation:
        sizes.append(len(z))
        excess = torch.where(z[:, 1] > 5, torch.nan, torch.where(z[:, 1] < -5, torch.inf, z[:, 0]))
        return Floored(excess, torch.full_like(excess, 4), torch.full_like(excess, 2))

    search = search_of(beyond_two, violation=violation)
    search.rows = 2
    states = torch.stack([numbers(1, 0), numbers(2, -6), numbers(3, 6), numbers(4, 1), numbers(-5, 0)])
    relative, bare = search._relative(states)
    assert sizes == [2, 2, 1]
    assert relative.tolist() == [0.25, -math.inf, -math.inf, 1, -1.25]
    assert bare.tolist() == [0.5, -math.inf, -math.inf, 2, -2.5]
    assert torch.equal(search.not_finite, states[1])
    search._relative(states[2:])
    assert torch.equal(search.not_finite, states[1])
    assert [len(one) for one in search._relative(states[:0])] == [0, 0]
    search = search_of(beyond_two)
    relative, bare = search._relative(states)
    assert relative.tolist() == bare.tolist() == [-1, 0, 1, 2, -7]
    assert search.not_finite is None


@pytest.mark.parametrize("is_certain", [True, False])
def test_the_worst_of_the_region_are_suspected(is_certain: bool) -> None:
    def violation(z: Tensor) -> Violation:
        excess = beyond_two(z) + 1.5
        return Floored(excess, torch.full_like(excess, 2), torch.ones_like(excess))

    certain = (lambda state: (None, 0.0)) if is_certain else None
    search = _Search(claim_of(beyond_two, violation=violation, certain=certain, strict=True), REGION, generator())
    near = REGION.centre + 1e-3 * torch.randn(10, 2, generator=generator(), dtype=torch.float64)
    states = torch.cat([REGION.sample(200, generator()), numbers(3.5, 0)[None], near])
    relative, suspicious = search._look(states)
    torch.testing.assert_close(relative, (states[:, 0] - 0.5) / 2)
    distances, heights = from_centre(states).tolist(), relative.tolist()
    clear = [one for one, distance in zip(heights, distances, strict=True) if distance >= INNER]
    assert search.worst == max(clear)
    violates = [height > TOLERANCE for height in heights]
    assert suspicious.tolist() == violates
    places = [place for place in range(len(states)) if violates[place] and distances[place] <= 2]
    preferred = sorted(places, key=lambda at: -heights[at] if distances[at] >= INNER else -heights[at] / 2)[:CANDIDATES]
    if is_certain:
        of = numbers(*[distances[place] for place in places]), numbers(*[heights[place] for place in places])
        spread = [places[place] for place in best_by_distance(*of, CANDIDATES).tolist()]
        assert len(set(preferred + spread)) > CANDIDATES
        preferred = sorted(set(preferred + spread))
    ((held, at_held),) = search.suspects
    assert torch.equal(held, states[preferred])
    assert torch.equal(at_held, relative[preferred])
    ordered, _ = search._suspects()
    most, heights_of_most = search._suspects(5)
    assert torch.equal(ordered[:5], most)
    preference = search._preference(*search._suspects()).tolist()
    assert preference == sorted(preference, reverse=True)
    torch.testing.assert_close(heights_of_most, (most[:, 0] - 0.5) / 2)
    few = search._look(numbers(2.5, 0)[None])
    assert [one.tolist() for one in few] == [[1.0], [True]]
    assert [len(one) for one, _ in search.suspects] == [len(preferred), 1]
    search._look(numbers(0, 0)[None])
    assert [len(one) for one, _ in search.suspects] == [len(preferred), 1, 0]
    assert search.worst == max(clear)


# --- what is taken for a witness ---


def test_a_state_stands_where_its_neighbours_violate_too() -> None:
    edge = search_of(lambda z: torch.where(z[:, 0] > 1.5, 0.1, -0.1))
    assert edge._stands(numbers(1.6, 0))
    assert not edge._stands(numbers(1.5 + 1e-12, 0))
    assert edge._stands(numbers(1.5 + 1e-9, 0))
    equal = search_of(lambda z: torch.where(z[:, 0] > 1.5, TOLERANCE, -0.9e-6), strict=True)
    assert equal._stands(numbers(1.5 + 1e-12, 0))
    assert [equal._is_equality(numbers(x, 0)) for x in (1.6, 1.4)] == [True, True]
    unequal = search_of(lambda z: torch.where(z[:, 0] > 1.5, TOLERANCE, -1.1e-6), strict=True)
    assert not unequal._stands(numbers(1.5 + 1e-12, 0))
    assert not search_of(lambda z: 2 * TOLERANCE + 0 * z[:, 0])._is_equality(numbers(1.5, 0))
    asked: list[Tensor] = []
    search_of(lambda z: asked.append(z) or z[:, 0])._stands(numbers(1, -2.0))
    around = asked[-1]
    assert around.shape == (judging.NEIGHBOURS, 2)
    assert float(from_centre(around).max()) <= 2
    assert 0 < float((around - numbers(1, -2)).norm(dim=1).max()) <= 2.0**-29 * (1 + 1e-6)


def test_a_witness_is_shrunk_no_further_than_it_clearly_violates() -> None:
    search = search_of(lambda z: 0.1 * beyond_two(z))
    shrunk = search._shrink(numbers(2.8, 0.3), 0.08)
    assert 2.4 <= float(shrunk[0]) < 2.45
    assert float(shrunk[1]) == 0
    slight = search_of(
        lambda z: TOLERANCE * torch.where(z[:, 0] > 1.7, 5.0, torch.where(z[:, 0] > 1.4, 3.5, 2.0)).double()
    )
    assert 1.7 < float(slight._shrink(numbers(2.8, 0), 5 * TOLERANCE)[0]) < 1.8  # by 4 tolerances at least
    assert 1.4 < float(slight._shrink(numbers(1.5, 0), 3.5 * TOLERANCE)[0]) < 1.5  # or by as much as it did
    equal = search_of(lambda z: torch.where(z[:, 0] > 1.3, 0.0, -1.0), strict=True)
    assert 1.3 < float(equal._shrink(numbers(2.8, 0), 0.0)[0]) <= 1.31
    everywhere = search_of(lambda z: 1 + 0 * z[:, 0], strict=True)
    assert INNER <= float(from_centre(everywhere._shrink(numbers(2.8, 0.5), 1.0)[None])) < 2 * INNER
    lonely = search_of(lambda z: torch.where(z[:, 1] == 0, 1.0, torch.where(z[:, 0] > 1.5, 1.0, -1.0)))
    assert lonely._shrink(numbers(2, 1), 1.0).tolist() == [2, 1]  # what is simpler is alone


def test_the_first_suspect_that_stands_and_replays_is_the_witness() -> None:
    alone = numbers(2, 1)

    def excess(z: Tensor) -> Tensor:
        return torch.where((z == alone).all(1), 0.9, torch.where(z[:, 0] > 1.5, 0.5, -1.0 + 0.0 * z[:, 0]))

    def disagreeing(z: Tensor) -> Violation:
        return Violation(torch.where(z[:, 1] > 0, 0.25, -0.25).double(), torch.ones_like(z[:, 0]))

    alone = numbers(1.2, 0.5)
    search = search_of(excess)
    search.suspects = [(alone[None], numbers(0.9))]
    search._settle()
    assert search.witness is None
    assert search.unconfirmed is not None
    assert (search.unconfirmed["isolated"], search.unconfirmed["excess"]) == (True, 0.9)
    search.suspects.append((numbers(2, 0)[None], numbers(0.5)))
    search._settle()
    assert search.witness is not None
    assert search.witness["excess"] == 0.5
    assert 1.5 < search.witness["state"][0] < 1.6
    search = search_of(excess, replay=disagreeing)
    search.suspects = [(numbers(2, -1)[None], numbers(0.5))]
    search._settle()
    assert (search.witness, search.unconfirmed["replayed_excess"]) == (None, -0.25)
    assert search.unconfirmed["state"] == [2, -1]  # the state itself, after the shrunk one
    search.suspects = [(numbers(2, 1)[None], numbers(0.5))]
    search._settle()  # the shrunk one lies on the axis, where the other path disagrees
    assert search.witness is not None
    assert search.witness["state"] == [2, 1]


def test_what_holds_on_both_paths_is_told_from_what_one_alone_says() -> None:
    for excess, again, holds in (
        (-1e-13, -1e-13, True),
        (-1e-13, 1e-13, False),
        (1e-13, -1e-13, False),
        (0.0, 0.0, False),
    ):

        def replay(z: Tensor, again: float = again) -> Violation:
            return Violation(torch.full_like(z[:, 0], again), torch.ones_like(z[:, 0]))

        search = search_of(lambda z, excess=excess: excess + 0 * z[:, 0], strict=True, replay=replay)
        described, confirmed = search._replay(numbers(2, 0))
        assert ("holds" in described, confirmed) == (holds, not holds)
    loose = search_of(lambda z: TOLERANCE / 2 + 0 * z[:, 0])
    assert loose._replay(numbers(2, 0))[1] is False


def test_where_a_sign_is_certain_it_alone_decides() -> None:
    asked: list[list[float]] = []

    def certain(state: Tensor) -> tuple[int | None, float]:
        asked.append(state.tolist())
        x = float(state[0])
        return (None if x < 1.2 else 0 if x == 1.25 else -1 if x < 1.5 else 1), 7.0

    claim = {"certain": certain, "replayed_by": "another path"}
    suspects = torch.stack(
        [numbers(1, 0), numbers(1.1, 0), numbers(1.3, 0), numbers(1.25, 0), numbers(9, 0), numbers(1.9, 0)]
    )
    search = search_of(lambda z: 0.1 + 0 * z[:, 0], strict=True, **claim)
    search._settle_for_certain(suspects[:3])
    assert (search.witness, search.open, search.disproved, asked) == (None, 1, 1, [[1.1, 0], [1.3, 0]])
    search._settle_for_certain(suspects[4:])
    assert search.witness is not None
    assert [9.0, 0.0] not in asked
    assert 1.5 <= search.witness["state"][0] <= 1.9
    assert (search.open, search.disproved) == (1, 1)
    strict = search_of(lambda z: 0 * z[:, 0], strict=True, **claim)
    strict._settle_for_certain(suspects[3:])
    assert strict.witness is not None
    assert strict.witness["state"] == [1.25, 0]
    lax = search_of(lambda z: 0 * z[:, 0], **claim)
    lax._settle_for_certain(suspects[:4])
    assert (lax.witness, lax.open, lax.disproved) == (None, 2, 2)


def test_a_witness_that_is_certain_shows_what_is_certain() -> None:
    def violation(z: Tensor) -> Violation:
        return Floored(beyond_two(z) + 0.9, torch.full_like(z[:, 0], 4), torch.full_like(z[:, 0], 2))

    def certain(state: Tensor) -> tuple[int, float]:
        return (1 if float(state[0]) > 1.5 else -1), 7 * float(state[0])

    search = search_of(beyond_two, violation=violation, certain=certain)
    found = search._certain_witness(numbers(2.5, 1))
    x = found["state"][0]
    assert found["state"][1] == 0
    assert 1.8 <= x < 1.85  # half the violation, and nearer
    assert found["relative"] == pytest.approx((x - 1.1) / 2)
    assert (found["replayed_excess"], found["replayed_by"]) == (7 * x, BY_BALLS)
    assert found["excess"] == pytest.approx(x - 1.1)
    # Where what is nearer does not surely fail, the state itself is shown.
    late = search_of(beyond_two, violation=violation, certain=lambda state: ((1 if float(state[0]) > 2.2 else -1), 3.0))
    assert late._certain_witness(numbers(2.5, 1))["state"] == [2.5, 1]
    # Where the violation is rounding, nothing is shrunk.
    slight = search_of(lambda z: TOLERANCE / 2 + 0 * z[:, 0], certain=lambda state: (1, 3.0))
    assert slight._certain_witness(numbers(2.5, 1))["state"] == [2.5, 1]


@pytest.mark.parametrize("strict", [True, False])
def test_a_state_surely_fails_by_the_sign_of_its_excess(strict: bool) -> None:
    for sign, fails in ((None, None), (1, True), (-1, False), (0, strict)):
        assert (
            claim_of(beyond_two, strict=strict, certain=lambda state, sign=sign: (sign, 0.0)).surely_fails(numbers(1))
            is fails
        )


# --- rounds ---


def test_states_are_drawn_in_batches() -> None:
    search = search_of(beyond_two)
    assert (search.inner, search.chunk, search.rows) == (pytest.approx(INNER), 2**19, 2**15)
    search.chunk = 3
    assert [search._chunks(count) for count in (0, 2, 3, 7)] == [[], [2], [3], [3, 3, 1]]


def test_a_round_draws_looks_and_climbs_from_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    known, hunted = torch.stack([numbers(1.5, 0), numbers(2.2, 0), numbers(2.1, 0.5)]), []
    monkeypatch.setattr(judging, "landmarks", lambda violation, region, generator: known)
    monkeypatch.setattr(_Search, "_hunt", lambda self, starts, effort: hunted.append(starts))
    search = search_of(lambda z: beyond_two(z) - 9)
    search.run_round(Effort(samples=400, starts=3, shells=40))
    assert (search.drawn, search.evaluated, search.samples) == (400, 100 + 3, 503)
    same = generator()
    drawn, shells = REGION.sample(400, same), REGION.shells(100, same)
    best = torch.cat([one[best_by_distance(from_centre(one), one[:, 0], 3)] for one in (drawn, shells)])
    worst = best[best_by_distance(from_centre(best), best[:, 0], 3)]
    assert torch.equal(hunted[0], torch.cat([worst, known[known[:, 0].argmax()][None]]))
    search.run_round(Effort(samples=20, starts=3, shells=40))
    assert (search.drawn, search.evaluated) == (420, 100 + 3 + 40)
    assert hunted[1].shape == (3, 2)  # landmarks are looked at once
    assert len(search.suspects) == 2
    search.run_round(Effort(samples=20, starts=0, shells=40))
    assert len(hunted) == 2


@pytest.mark.parametrize("strict", [True, False])
def test_a_hunt_climbs_polishes_and_looks(monkeypatch: pytest.MonkeyPatch, strict: bool) -> None:
    starts = torch.stack([numbers(1.4, 0), numbers(1, 1.2), numbers(1, 0)])
    climbed = torch.cat([starts, starts]) + 0.01 * torch.randn(6, 2, generator=generator(), dtype=torch.float64)
    relatives, calls, looked = numbers(1, 6, 3, 2, 5, 4), {}, []

    def approach(violation: object, states: Tensor, project: Callable, **options: Any) -> Tensor:
        calls["approach"] = states, project(REGION.centre[None]), options
        return states + 1

    def falsify(violation: object, states: Tensor, project: Callable, **options: Any) -> SimpleNamespace:
        calls["falsify"] = states, project(REGION.centre[None]), options
        return SimpleNamespace(states=climbed, relatives=relatives, not_finite=numbers(7, 7), evaluations=42)

    def polish(violation: object, states: Tensor, project: Callable, *, reach: Tensor) -> Tensor:
        calls["polish"] = states, project(REGION.centre[None]), reach
        return states + 0.001

    for one in (approach, falsify, polish):
        monkeypatch.setattr(judging, one.__name__, one)
    search = search_of(beyond_two, strict=strict)
    monkeypatch.setattr(search, "_look", looked.append)
    search._hunt(starts, Effort(steps=9))
    first_step = numbers(0.1, 0.3, 0.25 * INNER)
    region = Outside(REGION, INNER) if strict else REGION
    assert torch.equal(calls["approach"][0], starts)
    torch.testing.assert_close(calls["approach"][2]["first_step"], first_step)
    assert torch.equal(calls["approach"][2]["centre"], REGION.centre)
    assert torch.equal(calls["falsify"][0], torch.cat([starts, starts + 1]))
    torch.testing.assert_close(calls["falsify"][2]["first_step"], torch.cat([first_step, first_step]))
    assert calls["falsify"][2]["steps"] == 9
    best = climbed[[1, 4, 5, 2]]
    assert torch.equal(calls["polish"][0], best)
    torch.testing.assert_close(calls["polish"][2], from_centre(best))
    for call in calls.values():
        assert torch.equal(call[1], region.project(REGION.centre[None]))
        assert call[-1] is calls["polish"][2] or call[2]["generator"] is search.generator
    parts = [climbed, best + 0.001, region.project(rounded(climbed, REGION.centre) if strict else best[:0])]
    assert torch.equal(looked[0], torch.cat(parts))
    assert (search.evaluated, search.not_finite.tolist()) == (42, [7, 7])
    search.not_finite = numbers(1, 1)
    search._hunt(starts, Effort(steps=9))
    assert search.not_finite.tolist() == [1, 1]
    monkeypatch.setattr(judging, "LARGEST_HESSIAN", 1)
    calls.pop("polish")
    search._hunt(starts, Effort(steps=9))
    assert "polish" not in calls
    assert torch.equal(looked[2][6:10], best)
