"""Is {V <= C} a region of attraction? V falls on it, nothing leaves it, and what is left around the centre is drawn to the equilibrium.

Of a compact set that no trajectory leaves and on which V falls off the equilibrium, every trajectory tends to it (LaSalle). Where V falls
outside of a hole alone, every trajectory enters the hole: if all that begins there tends to the equilibrium, all of the set does.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from analysis.evidence.sublevel import Sublevel
from analysis.findings import Finding, Verdict, exactly
from analysis.proofs.basin import prove_basin
from analysis.proofs.box_search import Proof, Search, Unproved
from analysis.proofs.intervals.graph import UnboundedError
from analysis.proofs.rest import Rest, find_rest
from analysis.proofs.volume import volume
from analysis.user_function.at_centre import equilibrium
from analysis.user_function.in_region import decrease, invariant
from analysis.user_function.levels import low_rays
from analysis.user_function.subject import Subject
from stabdeq.errors import EvaluationError

CLAIM = "attraction"
MOST_COORDINATES = 32  # the linearisation of steps takes a system of their square


def attraction(subject: Subject) -> Finding:
    """Return whether samples and the falsifier speak against it: the dynamics rest at the centre, V falls, and nothing leaves the set."""
    findings = [decrease(strictly(subject)), invariant(subject)]
    rests = equilibrium(subject)
    if rests.verdict is not Verdict.SUPPORTED and rest_of(subject) is None:
        findings = [rests, *findings]
    worst = next((one for one in findings if one.verdict is not Verdict.SUPPORTED), None)
    if worst is None:
        return replace(findings[0], check=CLAIM, name=CLAIM, claim=subject.sentence(CLAIM))
    return not_shown(subject, CLAIM, worst)


def not_shown(subject: Subject, name: str, worst: Finding) -> Finding:
    """Return the finding on ``name`` where what it rests on ends as ``worst``: V that rises is no counterexample to attraction."""
    evidence = f"V does not show it: '{worst.claim}' is {worst.verdict.name}. {worst.evidence}"
    return subject.finding(name, Verdict.INCONCLUSIVE, evidence, samples=worst.samples or 1, witness=worst.witness)


def prove_attraction(subject: Subject, prove: Callable[[Subject, str], Proof | Unproved]) -> Proof | Unproved:
    """Return the proof; ``prove`` returns that of a claim by name."""
    if subject.in_steps and not (subject.certainty and subject.certainty.is_continuous):
        return Unproved(
            "that V falls at every state shows no limit where V or the step may jump, as what compares numbers may."
        )
    falls = prove(strictly(subject), "decrease")
    if isinstance(falls, Unproved):
        return falls
    # In the hole V may rise, and {V = C} may reach into it.
    stays = prove(subject, "invariant" if subject.in_steps or subject.hole else "closed")
    if isinstance(stays, Unproved):
        return Unproved(f"V falls on the set, but that nothing leaves it is not proved: {stays.reason}", stays.fails_at)
    closing = close_hole(subject)
    if isinstance(closing, Unproved):
        return closing
    size = _size(subject)
    return Proof(
        f"{closing.words} {size}{falls.words} Besides, {stays.words}", falls.boxes + stays.boxes + closing.boxes
    )


def _size(subject: Subject) -> str:
    """Return a sentence on the volume of the set, empty where it has no level or V is not bounded."""
    region = subject.whole_region
    found = volume(region, deadline=subject.deadline) if isinstance(region, Sublevel) else None
    return "" if found is None else f"{found.words} "


def strictly(subject: Subject) -> Subject:
    """Return the subject with the claim V(z+) < V(z): V(z+) <= (1 - kappa) V(z) allows V to rise where it is below 0, and to stay 0."""
    return replace(subject, rate=None) if subject.in_steps else subject


def close_hole(subject: Subject) -> Proof | Unproved:
    """Return the proof that all of the hole that the claims leave out tends to the equilibrium, its words one sentence.

    That V falls on the set outside of the hole is proved before.
    """
    lower = subject.region.lower if isinstance(subject.region, Sublevel) else -math.inf
    if lower == -math.inf and not subject.hole:
        # What a trajectory comes near again and again is invariant, and V the same on it: no state but the centre is left.
        return Proof("V falls at every other state of the set, so the dynamics rest at the centre and there alone.", 0)
    rest = rest_of(subject)
    if rest is None:
        return Unproved("no equilibrium is enclosed next to the centre.")
    where = "the centre" if rest.distance == 0 else f"the one equilibrium within {rest.nearness} of the centre"
    linear = f"by the linearisation, every trajectory from within {rest.reach} of the centre tends to {where}"
    if not rest.attracts > subject.hole:
        return Unproved(f"the linearisation at {where} is not shown to draw all of the hole around it.")
    if lower == -math.inf:
        return Proof(f"{linear[0].upper()}{linear[1:]}, which closes the hole.", 0)
    rays = low_rays(subject.value, subject.base, subject.seed)
    reach = Sublevel(subject.base, subject.value, lower).reach(rays)
    basin = prove_basin(
        _search(subject),
        rest,
        lower,
        subject.centre + reach * rays,
        in_steps=subject.in_steps,
        generator=torch.Generator().manual_seed(subject.seed),
    )
    if isinstance(basin, Unproved):
        return basin
    all_of_it = f"so does every trajectory from {{V <= {exactly(lower)}}}, for {basin.words}"
    return Proof(f"{linear[0].upper()}{linear[1:]}; {all_of_it}.", basin.boxes)


def rest_of(subject: Subject) -> Rest | None:
    """Return the equilibrium next to the centre, where one is enclosed, of at most 32 coordinates."""
    if len(subject.centre) > MOST_COORDINATES:
        return None
    try:
        return find_rest(_search(subject), in_steps=subject.in_steps)
    except (UnboundedError, EvaluationError):
        return None


def _search(subject: Subject) -> Search:
    return Search(subject.value, subject.motion, subject.base, None, subject.boxes, subject.deadline)
