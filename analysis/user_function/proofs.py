"""What of a user's claims can be proved: by V's structure where it is of this library's family, else by interval bounds."""

from dataclasses import replace

import torch

from analysis.findings import Finding, Verdict
from analysis.proofs import MOST_DIMENSIONS
from analysis.proofs.structure import growth, is_structured
from analysis.user_function.levels import boundary_of
from analysis.user_function.subject import Subject

BY_BOXES = ("zero", "equilibrium", "positive", "convex", "decrease", "decay", "invariant")


def proved(subject: Subject, finding: Finding) -> Finding:
    """Return a supported ``finding`` as proved where a proof is found, else with the reason why none was."""
    words = _by_structure(subject, finding.check)
    if words is None and finding.check in BY_BOXES:
        words, reason = _by_boxes(subject, finding.check)
        if words is None:
            return replace(finding, evidence=f"Not proved: {reason} {finding.evidence}")
    if words is None:
        return finding
    return replace(finding, verdict=Verdict.PROVED, evidence=f"{words} Tried besides: {finding.evidence}")


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


def _by_boxes(subject: Subject, name: str) -> tuple[str | None, str]:
    """Return the words of a proof by interval bounds, or None and the reason why there is none."""
    if reason := _beyond_boxes(subject):
        return None, reason
    from analysis.proofs.boxes import Proof, prove_claim

    region = boundary_of(subject.region) if name == "invariant" else subject.region
    outcome = prove_claim(name, subject.value, subject.velocity, region, subject.alpha, seconds=subject.proof_seconds)
    return (outcome.words, "") if isinstance(outcome, Proof) else (None, _sentence(outcome.reason))


def _beyond_boxes(subject: Subject) -> str:
    """Return why interval bounds cannot be tried; empty where they can."""
    if len(subject.centre) > MOST_DIMENSIONS:  # told here too, before what traces a function is imported
        return f"interval bounds are for at most {MOST_DIMENSIONS} coordinates."
    if subject.proof_seconds <= 0:
        return "no time was given for it."
    for function in subject.functions:
        if function.is_numpy:
            return f"{function.name} is not written in PyTorch operations."
        if function.dtype != torch.float64:
            return f"{function.name} does not compute in float64."
    if not subject.differentiation.uses_autograd:
        return f"{subject.value.name} has no gradient by autograd that is its slope."
    return ""


def _sentence(reason: str) -> str:
    return f"{reason.strip().rstrip('.')}."
