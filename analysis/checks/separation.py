"""How far apart are the equilibria of different classes, and what does the head's orthogonal map change about it?"""

from math import isnan
from typing import Any

import torch
from torch import Tensor, nn

from analysis.checks.witness import Replay, require_equilibria, unknown_claim
from analysis.findings import CheckResult, Finding, Measurement, Verdict
from analysis.findings.values import number
from analysis.measure.embedding import embedding, read_by_head
from analysis.measure.subject import Subject
from stabdeq.alteration import alteration, own_alteration
from stabdeq.errors import NotReplayableError
from stabdeq.linear_algebra import spectral_norm
from stabdeq.lyapunov import claims
from stabdeq.model import StabilisedDEQ

PAIRED = 1024  # equilibria, the first ones, between which distances are taken: a square of them lies in memory
NUMBERS, LEAST = 2**24, 128  # in these, of large states, of which so many are taken all the same
NOT_FINITE = "The layer's weights are not finite, so it has no distances to keep: look at the training that made them."


def check(subject: Subject) -> CheckResult:
    """Judge what the orthogonal map is claimed to do, and measure distances between classes before and after it."""
    before, after = read_by_head(subject.model, subject.equilibria[: _paired(subject)])
    labels = subject.labels[subject.found[: len(before)]]
    same = labels[:, None] == labels[None, :]
    result = CheckResult() if bool(same.all()) else _measured(subject, before, after, same)
    if "separation.isometry" in subject.claims:
        result.findings.append(_isometry(subject, before, after))
    if "separation.increases" in subject.claims:
        result.findings.append(_increases(subject, before, after, ~same))
    return result


def _paired(subject: Subject) -> int:
    """Return between how many equilibria distances are taken."""
    return min(len(subject.found), PAIRED, max(LEAST, NUMBERS // subject.dim))


def _measured(subject: Subject, before: Tensor, after: Tensor, same: Tensor) -> CheckResult:
    """Measure the distances between classes before and after the map; ``same`` (M, M) bool tells pairs of one class."""
    labels = subject.labels[subject.found[: len(before)]]
    means_before, means_after = _class_means(before, labels), _class_means(after, labels)
    distance = torch.cdist(before, before)
    within = distance[same & ~torch.eye(len(labels), dtype=torch.bool)]
    ratio = float(distance[~same].median() / within.median().clamp(min=1e-300)) if len(within) else None
    text = (
        f"median distance between features of different classes {float(distance[~same].median()):.3g}, smallest "
        f"{float(distance[~same].min()):.3g}"
        + ("" if ratio is None else f"; {ratio:.3g} times the median distance within a class")
        + ("" if len(before) == len(subject.found) else f"; between the first {len(before)} equilibria")
    )
    return CheckResult(
        measurements=[Measurement(check="separation", name="between classes", value=ratio, text=text)],
        series={
            "classes": labels.unique().tolist(),
            "before": torch.cdist(means_before, means_before).tolist(),
            "after": torch.cdist(means_after, means_after).tolist(),
            "embedding": embedding(subject),
        },
    )


def _class_means(features: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([features[labels == label].mean(0) for label in labels.unique()])


def _deviation(subject: Subject) -> tuple[float, tuple[int, int]]:
    """Return ||Q'Q - I|| of the orthogonal map, NaN where a weight is not finite, and its shape."""
    assert isinstance(subject.model, StabilisedDEQ)
    rotation = subject.model.head.rotation
    assert isinstance(rotation, nn.Linear)
    weight = rotation.weight.detach()
    gram = weight.T @ weight - torch.eye(weight.shape[1], dtype=weight.dtype)
    return float(spectral_norm(gram)), (weight.shape[0], weight.shape[1])


def _alteration(subject: Subject) -> str | None:
    """Return in words what may make the layer compute something else than its weights say; or None."""
    assert isinstance(subject.model, StabilisedDEQ)
    head = subject.model.head
    assert isinstance(head.rotation, nn.Linear)
    return own_alteration(head, "the head") or alteration(head.rotation, "the orthogonal layer")


def _isometry(subject: Subject, before: Tensor, after: Tensor) -> Finding:
    deviation, shape = _deviation(subject)
    tolerance = claims.tolerance(torch.float64, subject.dim)
    distance_before, distance_after = torch.pdist(before), torch.pdist(after)
    relative = (distance_after - distance_before).abs() / distance_before.clamp(min=1e-300)
    changed = max(relative.tolist(), default=0.0)
    holds = deviation <= tolerance and shape[0] == shape[1]
    evidence = (
        f"||Q'Q - I|| = {deviation:.1e} for the {shape[0]} x {shape[1]} map, so no distance changes by more than {deviation:.1e} "
        f"of itself; among {len(before)} {_read(subject)} the largest relative change is {changed:.1e}."
    )
    if holds:
        evidence += " It moves no two of them further apart."
    verdict = Verdict.PROVED if holds else Verdict.REFUTED
    altered = _alteration(subject)
    if altered:
        verdict, evidence = Verdict.INCONCLUSIVE, f"Undo this, which the layer's weights do not tell: {altered}."
    elif isnan(deviation):
        verdict, evidence = Verdict.INCONCLUSIVE, NOT_FINITE
    return Finding(
        check="separation",
        name="isometry",
        claim=f"The orthogonal layer keeps every distance between {_read(subject)}, so it costs no certificate.",
        verdict=verdict,
        margin=None if verdict is Verdict.INCONCLUSIVE else tolerance - deviation,
        evidence=evidence,
        samples=len(distance_before),
        tolerance=tolerance,
        dtype="float64",
        seed=subject.seed,
        witness={"deviation": deviation} if verdict is Verdict.REFUTED else None,
    )


def _read(subject: Subject) -> str:
    """Say between what the layer keeps distances: the equilibria, or their means over places where the head pools them."""
    assert isinstance(subject.model, StabilisedDEQ)
    return "equilibria" if subject.model.head.pooling is None else "pooled equilibria"


def _increases(subject: Subject, before: Tensor, after: Tensor, different: Tensor) -> Finding:
    """Judge the paper's claim that orthogonalising separates the fixed points of different classes."""
    deviation, shape = _deviation(subject)
    tolerance = claims.tolerance(torch.float64, subject.dim)
    distance_before, distance_after = torch.cdist(before, before), torch.cdist(after, after)
    gain = torch.where(different & (distance_before > 0), distance_after / distance_before - 1, -torch.inf)
    # cdist expands the square and loses half the digits, so the pair with the largest gain is measured again.
    # Where all features are one, no pair gains: the first of different classes stands for all.
    most = gain if bool((gain > -torch.inf).any()) else different
    first, second = divmod(int(most.double().argmax()), len(before))
    apart_before = float((before[first] - before[second]).norm())
    apart_after = float((after[first] - after[second]).norm())
    gained = apart_after / apart_before - 1 if apart_before else 0.0
    among = "" if len(before) == len(subject.found) else f" among the first {len(before)} equilibria"
    relative = f"by {gained:.1e} of itself" if gained > 0 else "no longer than before"
    refuted = deviation <= tolerance  # distances, whatever they are, then change by rounding alone
    what = "an isometry, a change of coordinates" if refuted else f"no isometry to within {tolerance:.1e}"
    evidence = (
        f"||Q'Q - I|| = {deviation:.1e}: the {shape[0]} x {shape[1]} layer is {what}. "
        f"Of {int(different.sum()) // 2} pairs of different classes{among}, the one that gains most goes from {apart_before:.6g} "
        f"to {apart_after:.6g} ({relative})."
    )
    altered = _alteration(subject)
    if altered:
        refuted, evidence = False, f"Undo this, which the layer's weights do not tell: {altered}."
    elif isnan(deviation):
        refuted, evidence = False, NOT_FINITE
    elif not bool(different.any()):
        refuted, evidence = (
            False,
            "All audited images are of one class, so there is no pair to look at: audit more images.",
        )
    images = subject.indices[subject.found[torch.tensor([first, second])]].tolist()
    witness: dict[str, Any] = {
        "images": images,
        "distance_before": apart_before,
        "distance_after": apart_after,
    }
    return Finding(
        check="separation",
        name="increases",
        claim="The orthogonal layer moves the features of different classes further apart.",
        verdict=Verdict.REFUTED if refuted else Verdict.INCONCLUSIVE,
        margin=None,
        evidence=evidence,
        samples=int(different.sum()) // 2,
        tolerance=tolerance,
        dtype="float64",
        seed=subject.seed,
        witness=witness if refuted else None,
    )


def replay(subject: Subject, finding: Finding) -> Replay:
    """Measure anew the orthogonal map and, of the pair that the witness of ``finding`` names, the distance after it."""
    if not isinstance(subject.model, StabilisedDEQ) or subject.model.head.rotation is None:
        raise NotReplayableError("the model has no orthogonal layer")
    witness, tolerance = (finding.witness or {}), claims.tolerance(torch.float64, subject.dim)
    deviation, shape = _deviation(subject)
    if finding.name == "isometry":
        refutes = deviation > tolerance or shape[0] != shape[1]
        return Replay(quantity="||Q'Q - I||", reported=number(witness.get("deviation")), now=deviation, refutes=refutes)
    if finding.name != "increases":
        raise unknown_claim(finding)
    require_equilibria(subject)
    _, after = read_by_head(subject.model, subject.equilibria)
    if len(after) != 2:
        raise NotReplayableError("the witness names no pair of images")
    return Replay(
        quantity="distance of the pair after the layer",
        reported=number(witness.get("distance_after")),
        now=float((after[0] - after[1]).norm()),
        refutes=deviation <= tolerance and bool(subject.labels[0] != subject.labels[1]),
    )
