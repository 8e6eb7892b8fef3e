"""What the weights prove of predictions: radii within which no image is classified otherwise."""

from analysis.findings import Verdict
from analysis.findings.four_digits import at_most
from analysis.from_weights.gathered import Gathered
from analysis.measure.subject import Subject
from analysis.proofs.cells.gain import Gain
from analysis.proofs.cells.l2_radii import Radii, certified_radii, ends_of
from analysis.proofs.cells.linf_margins import contraction_bound, linf_margins
from analysis.proofs.cells.network import Equation, ReluNetwork
from stabdeq.cells import IntervalCell
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

# Radii in pixels of [0, 1] at which certified accuracy is reported.
EPSILONS = (0.1, 0.2, 0.3, 0.5, 1.0)
LINF_EPSILONS = {"2/255": 2 / 255, "4/255": 4 / 255, "6/255": 6 / 255, "8/255": 8 / 255, "0.1": 0.1}


def judge_radii(
    gathered: Gathered,
    subject: Subject,
    model: StabilisedDEQ,
    network: ReluNetwork,
    equation: Equation,
    gain: Gain | None,
) -> Radii | None:
    gathered.stage("certified radii: gains from pixels to the differences of logits")
    total = len(subject.images)
    claim = f"No image within its certified l2 radius is classified otherwise: {total} test images."
    try:
        ends = ends_of(model)
    except ConfigError as error:
        gathered.find("radius", claim, Verdict.INCONCLUSIVE, f"Not certified: {error}.", samples=total)
        return None
    if gain is None:
        evidence = "Not certified: without a proved gain of the cell there is no radius; a certified cell has one."
        gathered.find("radius", claim, Verdict.INCONCLUSIVE, evidence, samples=total)
        return None
    radii = certified_radii(ends, network, equation, gain, subject.images, subject.solution.z)
    correct = radii.predicted == subject.labels
    accuracy = {eps: int((correct & (radii.radius >= eps)).sum()) / total for eps in EPSILONS}
    gathered.measure("radius", "accuracy", int(correct.sum()) / total, f"accuracy on {total} test images")
    for eps, share in accuracy.items():
        gathered.measure(
            "radius",
            f"certified accuracy {eps:g}",
            share,
            f"certified accuracy at l2 radius {eps:g}, in pixels of [0, 1]",
        )
    gathered.series["radii"] = {
        "indices": subject.indices.tolist(),
        "labels": subject.labels.tolist(),
        "predicted": radii.predicted.tolist(),
        "radius": radii.radius.tolist(),
        "equilibrium_error": radii.error.tolist(),
    }
    evidence = (
        f"Median radius {float(radii.radius.median()):.3g}, in pixels of [0, 1]; {int((radii.radius == 0).sum())} of {total} have none. "
        "Each is the least margin, less what rounding and the equilibrium's error may have added, over a proved gain."
    )
    verdict = Verdict.PROVED if bool((radii.radius > 0).any()) else Verdict.INCONCLUSIVE
    gathered.find("radius", claim, verdict, evidence, margin=float(radii.radius.median()), samples=total)
    return radii


def judge_linf(gathered: Gathered, subject: Subject, model: StabilisedDEQ) -> None:
    assert isinstance(model.cell, IntervalCell)
    gathered.stage("certified l-infinity radii: interval bounds of the equilibria")
    total = len(subject.images)
    claim = f"Where an eps is certified, no image that differs by at most eps in each pixel is classified otherwise: {total} test images."
    try:
        margins = {
            name: linf_margins(model, subject.images, subject.labels, eps) for name, eps in LINF_EPSILONS.items()
        }
    except ConfigError as error:
        gathered.find("linf", claim, Verdict.INCONCLUSIVE, f"Not certified: {error}.", samples=total)
        return
    certified = {name: margin > 0 for name, margin in margins.items()}
    for name, proved in certified.items():
        text = f"certified accuracy where each pixel of [0, 1] may move by {name}"
        gathered.measure("linf", f"certified accuracy {name}", int(proved.sum()) / total, text)
    gathered.series["linf"] = {
        "indices": subject.indices.tolist(),
        "labels": subject.labels.tolist(),
        "certified": {name: proved.tolist() for name, proved in certified.items()},
    }
    counts = ", ".join(f"{int(proved.sum())} at {name}" for name, proved in certified.items())
    evidence = (
        f"Of {total}, certified to be classified as labelled: {counts}. By interval bounds, rounded outwards: each box of equilibria "
        f"is mapped into itself by the cell, which contracts by {at_most(contraction_bound(model.cell))} in the maximum norm."
    )
    verdict = Verdict.PROVED if any(bool(proved.any()) for proved in certified.values()) else Verdict.INCONCLUSIVE
    gathered.find("linf", claim, verdict, evidence, samples=total)
