"""What is told of a proof on boxes while it is sought: boxes examined, the share that is closed, and a line that says so."""

import itertools

import pytest
from test_turned_boxes import valley

from analysis.commands.check_progress import CheckProgress
from analysis.proofs.box_search import Proof
from analysis.proofs.boxes import prove_claim
from analysis.proofs.intervals.watching import Boxes, watched


@pytest.mark.parametrize("least", [40.0, 1e-3], ids=["along the axes", "turned"])
def test_a_search_tells_what_it_has_closed(least: float) -> None:
    region, value = valley(least)
    seen: list[Boxes] = []
    with watched(seen.append):
        found = prove_claim("positive", value, None, region, None, max_boxes=40_000)
    assert isinstance(found, Proof)
    assert ("turned" in found.words) == (least < 1)
    assert seen[-1] == Boxes(found.boxes, 0, 1.0)
    shares = [boxes.share for boxes in seen]
    assert all(0 <= share <= 1 for share in shares)
    assert any(0 < share < 1 for share in shares)
    begun_again = [later for earlier, later in itertools.pairwise(seen) if later.share < earlier.share]
    assert [boxes.share for boxes in begun_again] == [0.0] * (least < 1)  # once, on turned boxes
    assert all(later.examined > earlier.examined for earlier, later in itertools.pairwise(seen))


def test_a_search_is_the_same_when_nobody_is_told() -> None:
    region, value = valley(1e-3)
    with watched(lambda boxes: None):
        told = prove_claim("positive", value, None, region, None, max_boxes=40_000)
    seen: list[Boxes] = []
    with watched(seen.append):
        pass
    assert prove_claim("positive", value, None, region, None, max_boxes=40_000) == told
    assert seen == []


def test_the_line_says_how_far_a_proof_has_come() -> None:
    lines: list[str] = []
    progress = CheckProgress(lines.append)
    progress.on_claim("decrease")
    progress.on_boxes(Boxes(4096, 100, 0.25))
    assert lines == [
        "judging: decrease",
        "judging: decrease, 4096 boxes examined, 25.00% of the volume closed, 100 boxes open",
    ]
