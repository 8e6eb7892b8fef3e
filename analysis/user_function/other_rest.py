"""Is there an equilibrium beside the centre? V does not fall there, and what begins there does not tend to the centre."""

from dataclasses import replace

import torch
from torch import Tensor

from analysis.evidence.membership import surely_contains
from analysis.evidence.regions import Ball
from analysis.findings import Finding, Verdict, short
from analysis.proofs.box_search import Unproved
from analysis.user_function.attraction import CLAIM, rest_of
from analysis.user_function.in_region import is_strict
from analysis.user_function.subject import Subject
from stabdeq.linear_algebra import solved

STEPS = 6
REACH = 1e-3  # of the region's radius, within which the equilibrium next to a state is sought


def refuted_at_rest(subject: Subject, finding: Finding, outcome: Unproved) -> Finding | None:
    """Return ``finding`` as refuted by an equilibrium next to the state around which the search for a proof was left open.

    It need not be a machine number: a box around the state is shown to hold it. None where there is none, or it may lie outside of the
    states that are claimed of.
    """
    is_about_it = finding.check == CLAIM or (finding.check == "decrease" and is_strict(subject, finding.check))
    if outcome.open_at is None or not is_about_it or subject.motion is None or subject.certainty is None:
        return None
    state = _newton(subject, torch.tensor(outcome.open_at, dtype=torch.float64))
    if not bool(state.isfinite().all()):
        return None
    rest = rest_of(replace(subject, region=Ball(state, REACH * subject.region.radius)))
    if rest is None:
        return None
    distance = float((state - subject.centre).norm())
    steps = 2 * rest.distance * torch.cat([torch.eye(len(state)), -torch.eye(len(state))]).to(state)
    region = subject.whole_region if finding.check == CLAIM else subject.claimed_region
    if distance - 2 * rest.distance <= subject.hole or not all(surely_contains(region, state + step) for step in steps):
        return None
    evidence = (
        f"The dynamics rest within {rest.nearness} of {short(state.tolist())}, {distance:.3g} from the centre: what begins there "
        "stays, and V with it. Samples and the falsifier did not meet it; the search for a proof did, on its boxes, and Krawczyk's "
        "operator in interval arithmetic shows that it exists."
    )
    witness = {"state": state.tolist(), "distance": distance}
    return replace(finding, verdict=Verdict.REFUTED, margin=None, evidence=evidence, witness=witness)


def _newton(subject: Subject, state: Tensor) -> Tensor:
    """Return the state (n,) that Newton's steps from ``state`` lead to, to where the dynamics rest if they converge."""
    assert subject.certainty is not None
    assert subject.certainty.motion is not None
    motion = subject.certainty.motion

    def away(at: Tensor) -> Tensor:
        moved = motion(at[None])[0]
        return moved - at if subject.in_steps else moved

    for _ in range(STEPS):
        state = state - solved(torch.func.jacrev(away)(state)[None], away(state)[None, :, None])[0, :, 0]
    return state.detach()
