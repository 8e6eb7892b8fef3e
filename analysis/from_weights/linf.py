"""What the weights prove of predictions while each pixel moves by at most eps: by a gain weighted by pixel, or by intervals."""

from functools import partial

import torch
from torch import Tensor

from analysis.findings import Verdict
from analysis.findings.four_digits import at_most
from analysis.from_weights.gathered import Gathered
from analysis.measure.subject import Subject, solve_accurately
from analysis.proofs.cells.gain import Gain
from analysis.proofs.cells.l2_radii import ends_of
from analysis.proofs.cells.linf_gain import boxes_around, gain_margins, linf_gains
from analysis.proofs.cells.linf_margins import contraction_bound, linf_margins
from analysis.proofs.cells.network import Equation, ReluNetwork
from stabdeq.cells import IntervalCell
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

# How far each pixel of [0, 1] may move, at which certified accuracy is reported.
LINF_EPSILONS = {"2/255": 2 / 255, "4/255": 4 / 255, "6/255": 6 / 255, "8/255": 8 / 255, "0.1": 0.1}


def judge_linf(
    gathered: Gathered,
    subject: Subject,
    model: StabilisedDEQ,
    network: ReluNetwork,
    equation: Equation,
    gain: Gain | None,
) -> None:
    """Put down which images keep their label at each eps, by the better of two proofs; nothing of a cell that has neither."""
    is_interval = isinstance(model.cell, IntervalCell)
    if gain is None and not is_interval:
        return
    gathered.stage("certified l-infinity radii: gains weighted by pixel, or interval bounds, of the equilibria")
    total = len(subject.images)
    claim = f"Where an eps is certified, no image that differs by at most eps in each pixel is classified otherwise: {total} test images."
    certified = {name: torch.zeros(total, dtype=torch.bool) for name in LINF_EPSILONS}
    proofs, failures = [], []
    ways = [partial(_by_intervals, subject, model)] if is_interval else []
    ways += [] if gain is None else [partial(_by_gain, subject, model, network, equation, gain)]
    for prove in ways:
        try:
            margins, how = prove()
        except ConfigError as error:
            failures.append(str(error))
            continue
        proofs.append(how)
        certified = {name: certified[name] | (margin > 0) for name, margin in margins.items()}
    if not proofs:
        reasons = "; ".join(dict.fromkeys(failures))
        gathered.find("linf", claim, Verdict.INCONCLUSIVE, f"Not certified: {reasons}.", samples=total)
        return
    for name, proved in certified.items():
        text = f"certified accuracy where each pixel of [0, 1] may move by {name}"
        gathered.measure("linf", f"certified accuracy {name}", int(proved.sum()) / total, text)
    gathered.series["linf"] = {
        "indices": subject.indices.tolist(),
        "labels": subject.labels.tolist(),
        "eps": LINF_EPSILONS,
        "certified": {name: proved.tolist() for name, proved in certified.items()},
    }
    counts = ", ".join(f"{int(proved.sum())} at {name}" for name, proved in certified.items())
    evidence = f"Of {total}, certified to be classified as labelled: {counts}. {' '.join(proofs)}"
    verdict = Verdict.PROVED if any(bool(proved.any()) for proved in certified.values()) else Verdict.INCONCLUSIVE
    gathered.find("linf", claim, verdict, evidence, samples=total)


def _by_intervals(subject: Subject, model: StabilisedDEQ) -> tuple[dict[str, Tensor], str]:
    assert isinstance(model.cell, IntervalCell)
    margins = {name: linf_margins(model, subject.images, subject.labels, eps) for name, eps in LINF_EPSILONS.items()}
    return margins, (
        "By interval bounds, rounded outwards: each box of equilibria is mapped into itself by the cell, which contracts by "
        f"{at_most(contraction_bound(model.cell))} in the maximum norm."
    )


def _by_gain(
    subject: Subject, model: StabilisedDEQ, network: ReluNetwork, equation: Equation, gain: Gain
) -> tuple[dict[str, Tensor], str]:
    ends = ends_of(model)
    gains = linf_gains(ends, equation, gain, boxes_around(subject.images, max(LINF_EPSILONS.values())))
    margins, z = {}, subject.solution.z
    for name, eps in LINF_EPSILONS.items():
        boxes = boxes_around(subject.images, eps)
        h = model.inject(boxes.centre)
        z = solve_accurately(lambda z, h=h: subject.cell(z, h), z).z
        margins[name] = gain_margins(ends, network, equation, gains, boxes, z, subject.labels)
    each = "a multiplier for each pair" if len(gains.slack) > 1 else "one multiplier for all pairs"
    weights = "with a weight for each pixel"
    if ends.extractor.matrix is None:
        weights = f"with features that move by at most {at_most(ends.extractor.lipschitz)} times the l2 length of the pixels' move"
    return margins, (
        f"By a matrix inequality, proved definite, {weights}, and {each} of logits: their difference at the centre of the pixels' box "
        "exceeds all that it can move by within."
    )
