"""What is said of a claim that was judged: every word and number of it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hand_made_claims import INNER, REGION, TOLERANCE, beyond_two, claim_of, from_centre, search_of
from plain_states import numbers
from solver_problems import generator
from torch import Tensor

from analysis.evidence.effort import Effort
from analysis.evidence.judge import judge
from analysis.evidence.membership import surely_contains
from analysis.findings import Finding, Verdict
from stabdeq.errors import EvaluationError
from stabdeq.lyapunov.claims import Violation

DRAWING = Effort(samples=100, starts=0, shells=40)


def fields(finding: Finding) -> tuple[Any, ...]:
    return finding.check, finding.name, finding.claim, finding.tolerance, finding.dtype, finding.seed


FIELDS = ("checked", "named", "It holds.", TOLERANCE, "float64")


def test_what_is_said_of_a_claim_that_no_state_violates() -> None:
    same = generator(3)
    states = torch.cat([REGION.sample(100, same), REGION.shells(40, same)])
    margin = 0.1 + min(one for one in from_centre(states).tolist() if one >= INNER)
    found = judge(claim_of(lambda z: -0.1 - from_centre(z), note="A note."), REGION, seed=3, effort=DRAWING)
    assert (found.verdict, found.samples, found.witness) == (Verdict.SUPPORTED, 140, None)
    assert fields(found) == (*FIELDS, 3)
    assert found.margin == pytest.approx(margin)
    assert found.evidence == (
        "No violation found in 140 states; this is not a proof. Of 100 drawn uniformly by volume from the ball of radius 2 "
        "around the centre none violates, so the rate of violations is below 3 % with 95 % confidence; 40 more on shells "
        f"towards the centre and by a gradient falsifier with restarts. Least margin, clear of the centre: {margin:.3g} of "
        "the terms' size. A note."
    )
    search = search_of(from_centre)
    search.drawn = 1
    assert search.finding(0).margin is None  # no state was looked at


def test_what_only_seems_to_violate_is_counted() -> None:
    def certain(state: Tensor) -> tuple[int, float]:
        return -1, -1e-20

    same = generator(3)
    drawn, shells = REGION.sample(100, same), REGION.shells(400, same)
    seem = int((drawn[:, 0] > 2).sum())
    asked = sum(float(state[0]) > 2 and surely_contains(REGION, state) for state in torch.cat([drawn, shells]))
    found = judge(claim_of(beyond_two, certain=certain), REGION, seed=3, effort=replace(DRAWING, shells=400))
    assert found.verdict is Verdict.SUPPORTED
    words = f"{seem} seem to violate, by rounding alone where ball arithmetic was asked ({asked} states), so the rate"
    assert 5 < seem < asked
    assert words in found.evidence


def test_what_is_said_of_a_claim_that_a_state_violates() -> None:
    def replay(z: Tensor) -> Violation:
        return Violation(3 * beyond_two(z), torch.full_like(z[:, 0], 2))

    def describe(state: Tensor) -> dict[str, Any]:
        return {"height": float(state[1])}

    claim = claim_of(beyond_two, 4.0, replay=replay, replayed_by="another path", describe=describe, note="A note.")
    found = judge(claim, REGION, seed=3, effort=DRAWING)
    witness = found.witness
    assert (found.verdict, found.samples) == (Verdict.REFUTED, 140)
    assert fields(found) == (*FIELDS, 3)
    assert witness is not None
    same = generator(3)
    drawn, shells = REGION.sample(100, same), REGION.shells(40, same)
    worst = float(torch.cat([drawn, shells])[:, 0].max()) - 2
    state = numbers(*witness["state"])[None]
    excess = float(beyond_two(state))
    assert worst / 2 <= excess < 0.6 * worst
    assert witness == {
        "state": state[0].tolist(),
        "distance": pytest.approx(float(from_centre(state))),
        "excess": pytest.approx(excess),
        "relative": pytest.approx(excess / 4),
        "replayed_excess": pytest.approx(3 * excess),
        "replayed_relative": pytest.approx(1.5 * excess),
        "replayed_by": "another path",
        "height": float(state[0, 1]),
    }
    assert found.margin == -witness["relative"]
    x, y = state[0].tolist()
    violating = int((drawn[:, 0] > 2).sum())
    assert found.evidence == (
        f"Violated, to rounding, at [{x:.6g}, {y:.6g}] ({witness['distance']:.3g} from the centre) by {excess:.3g}, "
        f"{excess / 4:.3g} of its terms' size; another path gives {3 * excess:.3g}. Of 100 states drawn uniformly by volume "
        f"from the ball of radius 2 around the centre, {violating} violate. A note."
    )


@pytest.mark.parametrize(
    ("certain", "relative", "replayed", "begins"),
    [
        (True, 0.5, 0.25, "Violated at [1.5, 0] (0.5 from the centre) by 0.25, 0.5 of"),
        (True, 0.5, 0.0, "Equality at [1.5, 0] (0.5 from the centre): 0.25, 0.5 of"),
        (True, 1e-13, 1e-20, "Violated at"),
        (False, 0.5, 0.0, "Violated, to rounding, at [1.5, 0]"),
        (False, TOLERANCE, 0.1, "Equality, to rounding, at [1.5, 0] (0.5 from the centre): 0.25, 1e-12 of"),
    ],
)
def test_equality_is_said_where_it_is_one(certain: bool, relative: float, replayed: float, begins: str) -> None:
    search = search_of(beyond_two, certain=(lambda state: (1, 1.0)) if certain else None)
    numbers_of = {
        "distance": 0.5,
        "excess": 0.25,
        "relative": relative,
        "replayed_excess": replayed,
        "replayed_by": "it",
    }
    search.witness = {"state": [1.5, 0.0], **numbers_of}
    found = search.finding(0)
    assert found.evidence.startswith(begins)
    assert found.margin == -relative


def test_what_leaves_a_claim_open_is_said() -> None:
    search = search_of(beyond_two, note="A note.")
    search.unconfirmed = {"relative": 0.25, "replayed_relative": -0.5}
    found = search.finding(5)
    assert found.evidence == (
        "A state violates by 0.25 of the terms' size, but a second evaluation of the witness alone gives -0.5: the paths "
        "disagree. A note."
    )
    assert (found.verdict, found.margin, found.witness, found.samples) == (
        Verdict.INCONCLUSIVE,
        None,
        search.unconfirmed,
        0,
    )
    assert fields(found) == (*FIELDS, 5)
    search.unconfirmed["isolated"] = True
    assert search.finding(5).evidence.startswith(
        "A state violates by 0.25 of the terms' size, but states next to it do not: a kink, a jump or rounding. A note."
    )
    search.unconfirmed = {"relative": -1e-14, "replayed_relative": -1e-14, "holds": True}
    words = "At a state it holds by 1e-14 of the terms' size alone, which rounding cannot tell from equality. A note."
    assert search.finding(5).evidence == words
    search.not_finite = numbers(1, 2)
    words = (
        "The functions are not finite at [1, 2] in the ball of radius 2 around the centre, so nothing can be said there"
    )
    assert search.finding(5).evidence == f"{words}. A note."
    assert search.finding(5).witness == {"state": [1.0, 2.0]}
    for count, begins in (
        (8, "The functions are not finite at [0, 0"),
        (9, "The functions are not finite at a state in"),
    ):
        search.not_finite = torch.zeros(count)
        assert search.finding(5).evidence.startswith(begins)


def test_a_function_that_fails_leaves_a_claim_open() -> None:
    seen: list[int] = []

    def excess(z: Tensor) -> Tensor:
        seen.append(len(z))
        if len(seen) > 1:
            raise EvaluationError("V fails", [1.0, 2.0])
        return beyond_two(z) - 9

    found = judge(claim_of(excess), REGION, seed=4, effort=DRAWING)
    assert (found.verdict, found.evidence, found.samples) == (Verdict.INCONCLUSIVE, "V fails.", 100)
    assert (found.witness, found.seed) == ({"state": [1.0, 2.0]}, 4)
    assert seen == [100, 40]
