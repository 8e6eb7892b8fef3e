"""What the weights prove of predictions: radii within which no image is classified otherwise."""

from dataclasses import dataclass

from analysis.findings import Verdict
from analysis.from_weights.gathered import Gathered
from analysis.measure.subject import Subject
from analysis.proofs.cells.gain import Gain
from analysis.proofs.cells.l2_radii import Radii, certified_radii, ends_of
from analysis.proofs.cells.network import Equation, ReluNetwork
from analysis.proofs.matrices.enclosure import Enclosure
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

# Radii in pixels of [0, 1] at which certified accuracy is reported.
EPSILONS = (0.1, 0.2, 0.3, 0.5, 1.0, 1.58)


@dataclass(frozen=True)
class Certified:
    """What certified radii in real arithmetic stand on: the ``gain`` of equilibria, and the ``readout`` (K, n) of logits."""

    radii: Radii
    gain: float
    readout: Enclosure


def judge_radii(
    gathered: Gathered,
    subject: Subject,
    model: StabilisedDEQ,
    network: ReluNetwork,
    equation: Equation,
    gain: Gain | None,
) -> Certified | None:
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
    return Certified(radii, gain.value, ends.readout)
