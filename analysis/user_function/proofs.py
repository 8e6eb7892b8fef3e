"""What of a user's claims can be proved: by V's structure where it is of this library's family, else by interval bounds."""

import math
from dataclasses import replace

import torch

from analysis.evidence.judge import BY_BALLS
from analysis.evidence.membership import surely_contains
from analysis.evidence.sublevel import Sublevel
from analysis.findings import Finding, Verdict, short
from analysis.proofs import MOST_DIMENSIONS
from analysis.proofs.box_search import ASSUMPTION, Proof, Unproved
from analysis.proofs.boxes import prove_claim
from analysis.proofs.on_a_set import prove_on_a_set
from analysis.proofs.polynomials import prove_polynomial
from analysis.proofs.steps import prove_of_steps
from analysis.proofs.structure import growth, is_structured
from analysis.user_function import barrier, kept
from analysis.user_function.attraction import CLAIM, close_hole, not_shown, prove_attraction, rest_of, strictly
from analysis.user_function.in_region import certain_sign, is_strict
from analysis.user_function.levels import boundary_of
from analysis.user_function.other_rest import refuted_at_rest
from analysis.user_function.sentences import GLOBAL, KEPT, NEEDS_DYNAMICS, OF_A_BARRIER, OFF_CENTRE
from analysis.user_function.subject import Subject

OF_THE_WHOLE_SPACE = ("proper", GLOBAL)  # for which there are no boxes
PROVABLE = (
    "zero",
    "equilibrium",
    "positive",
    "convex",
    "decrease",
    "decay",
    "invariant",
    "attraction",
    KEPT,
    *OF_A_BARRIER,
    *OF_THE_WHOLE_SPACE,
)


def proved(subject: Subject, finding: Finding) -> Finding:
    """Return a supported ``finding`` as proved where a proof is found, refuted where one meets a counterexample, else with the reason."""
    words = _by_structure(subject, finding.check)
    if words is None and finding.check in PROVABLE:
        outcome = _by_squares_or_boxes(subject, finding.check)
        if isinstance(outcome, Unproved) and finding.check == "equilibrium" and (beside := _beside(subject, finding)):
            return beside
        if isinstance(outcome, Unproved):
            refuted = _refuted(subject, finding, outcome) or refuted_at_rest(subject, finding, outcome)
            return refuted or replace(finding, evidence=f"Not proved: {_sentence(outcome.reason)} {finding.evidence}")
        words = f"{outcome.words}{_consequence(subject, finding.check)}"
    if words is None:
        return finding
    margin = finding.margin if finding.margin is not None and finding.margin >= 0 else None
    tried = f"Besides, {finding.samples} state{' was' if finding.samples == 1 else 's were'} tried."
    # The samples are those that rays from the centre see; the proof is of all, which trajectories may move behind.
    is_of_levels = isinstance(subject.region, Sublevel)
    claim = subject.sentence(finding.check, on_rays=False) if is_of_levels else finding.claim
    return replace(finding, verdict=Verdict.PROVED, margin=margin, claim=claim, evidence=f"{words} {tried}")


def _beside(subject: Subject, finding: Finding) -> Finding | None:
    """Return ``finding`` as proved of an equilibrium next to the centre, where one is enclosed by interval bounds."""
    if _beyond_boxes(subject) or not (rest := rest_of(subject)):
        return None
    claim = f"The dynamics rest within {rest.nearness} of the centre, at one state."
    evidence = (
        "By Krawczyk's operator in interval arithmetic: the equilibrium need not be a machine number, as the centre is. "
        f"{ASSUMPTION} {finding.evidence}"
    )
    return replace(finding, verdict=Verdict.PROVED, margin=None, claim=claim, evidence=evidence)


def _consequence(subject: Subject, name: str) -> str:
    """Return what follows of the hole around the centre from a decrease that is proved outside of it, empty where nothing does."""
    if name not in ("decrease", "decay") or subject.motion is None or subject.inner == subject.hole:
        return ""
    if subject.constraint is not None:
        return ""
    closing = close_hole(subject)
    return "" if isinstance(closing, Unproved) else f" {closing.words}"


def implied(subject: Subject, findings: list[Finding]) -> list[Finding]:
    """Return the findings, "invariant" proved where "decrease" is proved on a sublevel set that is shown to be closed."""
    falls = any(finding.check == "decrease" and finding.verdict is Verdict.PROVED for finding in findings)
    is_open = any(finding.check == "invariant" and finding.verdict is Verdict.SUPPORTED for finding in findings)
    if not (falls and is_open) or not isinstance(subject.region, Sublevel) or subject.hole or subject.in_steps:
        return findings
    if subject.constraint is not None:  # whose proof of "invariant" asks for no less
        return findings
    limits = {"max_boxes": subject.boxes, "deadline": subject.deadline}
    closed = prove_claim("closed", subject.value, None, subject.whole_region, None, **limits)
    if isinstance(closed, Unproved):
        return findings
    evidence = f"V-dot < 0 on the whole set, as is proved beside, and the set is closed: {closed.words}"
    return [
        replace(
            finding,
            verdict=Verdict.PROVED,
            margin=None,
            claim=subject.sentence("invariant", on_rays=False),
            evidence=evidence,
        )
        if finding.check == "invariant" and finding.verdict is Verdict.SUPPORTED
        else finding
        for finding in findings
    ]


def _refuted(subject: Subject, finding: Finding, outcome: Unproved) -> Finding | None:
    """Return ``finding`` as refuted by the state at which the search for a proof saw the inequality fail; None where it does not.

    On a sublevel set the proof is about more states than the claim: the state has to belong to the claim's region. "attraction" is
    then not shown, where a claim that it rests on is refuted.
    """
    if outcome.fails_at is None or subject.certainty is None:
        return None
    if finding.check == "attraction":
        rests_on = ((strictly(subject), "decrease"), (subject, "invariant"))
        parts = (
            _refuted(about, replace(finding, check=name, name=name, claim=about.sentence(name)), outcome)
            for about, name in rests_on
        )
        return next((not_shown(subject, CLAIM, part) for part in parts if part is not None), None)
    state = torch.tensor(outcome.fails_at, dtype=torch.float64)
    region = subject.claimed_region
    if finding.check == "invariant":
        region = subject.whole_region if subject.in_steps else boundary_of(subject.region)
    of_barrier = finding.check in OF_A_BARRIER
    region = subject.base if of_barrier else region
    if not surely_contains(region, state):
        return None
    certain = (barrier.certain_sign if of_barrier else certain_sign)(subject, finding.check)
    sign, excess = (None, 0.0) if certain is None else certain(state)
    if sign is None or sign < 0 or (sign == 0 and not is_strict(subject, finding.check)):
        return None
    witness = {"state": state.tolist(), "distance": float((state - subject.centre).norm()), "excess": excess}
    evidence = (
        f"Violated at {short(state.tolist())} ({witness['distance']:.3g} from the centre) by {excess:.3g}; ball arithmetic leaves no "
        "doubt of the sign. Samples and the falsifier did not meet it; the search for a proof did, on its boxes."
    )
    witness |= {"replayed_excess": excess, "replayed_by": BY_BALLS}
    return replace(finding, verdict=Verdict.REFUTED, margin=None, evidence=evidence, witness=witness)


def _by_structure(subject: Subject, name: str) -> str | None:
    lyapunov = subject.structure
    if not is_structured(lyapunov) or lyapunov is None:
        return None
    least = float(lyapunov.network.mix.min())
    return {
        "zero": "By construction: g(0) is recomputed at every call and subtracted, so V(c) = 0 for all weights.",
        "positive": f"By construction: {growth(lyapunov)}, at every state.",
        "convex": (
            f"By construction: the hidden-to-output weights are a softplus (least {least:.3g}) and the activations convex and "
            f"non-decreasing, so V is {2 * lyapunov.eta:g}-strongly convex on the whole space."
        ),
        "proper": f"By construction: {growth(lyapunov)}, at every state.",
    }.get(name)


def _by_squares_or_boxes(subject: Subject, name: str) -> Proof | Unproved:
    """Return the proof of the claim ``name`` by sums of squares or by interval bounds, or why there is none."""
    if name == "attraction":
        return prove_attraction(subject, _by_squares_or_boxes)
    if name == KEPT:
        return kept.prove(subject)
    if name in OF_A_BARRIER:
        about = subject if name == "barrier" else replace(subject, motion=None)
        reason = _beyond_boxes(about)
        return Unproved(reason) if reason else barrier.prove_of_barrier(about, name)
    if subject.constraint is not None and name not in ("zero", "equilibrium"):  # squares are of all states
        reason = _beyond_boxes(subject)
        return Unproved(reason) if reason else _on_boxes(subject, name)
    squares = _by_squares(subject, name)
    if isinstance(squares, Proof) or name in OF_THE_WHOLE_SPACE:
        return squares
    reason = _beyond_boxes(subject)
    if reason:
        return Unproved(reason if reason == squares.reason else f"{squares.reason} Besides, {reason}")
    return _on_boxes(subject, name)


def _by_squares(subject: Subject, name: str) -> Proof | Unproved:
    """Return the proof of the claim ``name`` by sums of squares, where V and the dynamics are polynomials or quotients of them."""
    certainty = subject.certainty
    if certainty is None or subject.boxes <= 0 or not _is_differentiated(subject):
        return Unproved(_in_arrays(subject) or "V and the dynamics cannot be read as operations.")
    off_centre = name in OFF_CENTRE
    region = subject.region if off_centre else subject.whole_region
    return prove_polynomial(
        name,
        certainty.value,
        certainty.motion,
        base=subject.base,
        level=subject.level,
        lower=region.lower if isinstance(region, Sublevel) else -math.inf,
        inner=subject.hole if off_centre else 0.0,
        rate=subject.rate,
        in_steps=subject.in_steps,
    )


def _on_boxes(subject: Subject, name: str) -> Proof | Unproved:
    region = subject.claimed_region if name in OFF_CENTRE else subject.whole_region
    limits = {"max_boxes": subject.boxes, "deadline": subject.deadline}
    if subject.constraint is not None and name in OFF_CENTRE:
        rate, in_steps = subject.rate, subject.in_steps
        return prove_on_a_set(name, subject.value, subject.motion, region, rate, in_steps=in_steps, **limits)
    if subject.in_steps and name in NEEDS_DYNAMICS:
        assert subject.motion is not None
        return prove_of_steps(name, subject.value, subject.motion, region, subject.rate or 0.0, **limits)
    region = boundary_of(subject.region) if name == "invariant" else region
    return prove_claim(name, subject.value, subject.motion, region, subject.rate, **limits)


def _beyond_boxes(subject: Subject) -> str:
    """Return why interval bounds cannot be tried; empty where they can."""
    if len(subject.centre) > MOST_DIMENSIONS:
        return f"interval bounds are for at most {MOST_DIMENSIONS} coordinates."
    if subject.boxes <= 0:
        return "no boxes were given for it."
    if arrays := _in_arrays(subject):
        return arrays
    for function in subject.functions:
        if (
            function.dtype != torch.float64 and subject.certainty is None
        ):  # else its operations are seen to be in float64
            return f"{function.name} does not compute in float64."
    if not _is_differentiated(subject):
        return f"{subject.value.name} has no gradient by autograd that is its slope."
    return ""


def _in_arrays(subject: Subject) -> str:
    """Return that functions compute with NumPy, and what to do; empty where none does."""
    return next((function.why_unread for function in subject.functions if function.is_numpy), "")


def _is_differentiated(subject: Subject) -> bool:
    """Return whether V's slope is that of its operations, where the claims are of a slope."""
    return subject.in_steps or subject.differentiation.uses_autograd


def _sentence(reason: str) -> str:
    return f"{reason.strip().rstrip('.')}."
