"""Is the model one function? The same images again, alone, and with gradients on must give the same logits."""

import torch
from torch import Tensor

from analysis.checks.robustness.indicator import Indicator
from analysis.checks.robustness.target import Run, Target
from analysis.findings import Finding

ALONE = 32  # images that are predicted one by one

DETERMINISTIC = Indicator(
    name="deterministic",
    claim="The same batch gives the same logits every time.",
    meaning="The model is random: an attack sees one draw and is judged on another, and every count changes from run to run.",
    remedy="fix the model's randomness, or attack the mean over it (PGD's samples) and report the mean over many judgements.",
)
BATCH = Indicator(
    name="batch",
    claim="An image's logits do not depend on the images beside it.",
    meaning="The samples of a batch are coupled, so an image that is broken in one batch stands in another.",
    remedy="put BatchNorm into evaluation mode, stop the solver sample by sample, and judge attacked images one at a time.",
)
SAME_MODEL = Indicator(
    name="same model",
    claim="The model that is attacked, with gradients on, is the model that is judged, with gradients off.",
    meaning="The attack breaks another model than the one that is judged (transfer failure of Pintor et al. 2022).",
    remedy="let nothing in the forward pass depend on whether gradients are on.",
)


def judge(target: Target, run: Run | None) -> list[Finding]:
    """Return the findings; ``run`` is None where the model has no gradient, and nothing can be said of gradients on."""
    images = target.images
    with torch.no_grad():
        logits = target(images)
        again = target(images)
        alone = torch.cat([target(image[None]) for image in images[:ALONE]])
    findings = [
        _compared(target, DETERMINISTIC, images, logits, again, "in a second pass"),
        _compared(target, BATCH, images[:ALONE], logits[:ALONE], alone, "one by one"),
    ]
    if run is not None:
        with torch.no_grad():
            judged = target(run.images)
        with torch.enable_grad():
            attacked = target(run.images.clone().requires_grad_()).detach()
        findings.append(_compared(target, SAME_MODEL, run.images, judged, attacked, "with gradients on"))
    return findings


def _compared(target: Target, indicator: Indicator, images: Tensor, first: Tensor, second: Tensor, how: str) -> Finding:
    """Judge whether logits agree to half of the digits of float64, or to what the model's solver leaves open."""
    difference = (first - second).abs().amax(1)
    allowed = _allowed(target, images, first)
    known = (first.isfinite() & second.isfinite()).all(1)
    count = int((difference > allowed)[known].sum())
    if not count and not bool(known.all()):
        image = int(target.subject.indices[int((~known).nonzero()[0])])
        reason = (
            f"The logits of {int((~known).sum())} of {len(images)} images, first of test image {image}, are not finite."
        )
        return indicator.open(reason, samples=len(images), seed=target.subject.seed)
    worst = int(torch.where(known, difference / allowed, -1).argmax())
    changed = int((first.argmax(1) != second.argmax(1)).sum())
    return indicator.finding(
        count > 0,
        f"The logits of {len(images)} images, {how}, differ by {float(difference[worst]):.2g} where {float(allowed[worst]):.2g} is "
        f"allowed, half of the digits of float64 and what one more evaluation of the cell changes; {changed} predictions differ.",
        samples=len(images),
        seed=target.subject.seed,
        margin=float(allowed[worst] - difference[worst]),
        tolerance=float(allowed[worst]),
        witness={
            "image": int(target.subject.indices[worst]),
            "logits": first[worst].tolist(),
            "logits_again": second[worst].tolist(),
        },
    )


@torch.no_grad()
def _allowed(target: Target, images: Tensor, logits: Tensor) -> Tensor:
    """(B,) half of the digits of the logits, and twice what one more evaluation of the cell changes about them."""
    model = target.subject.model
    h = model.inject(images)
    z = model.solve(h).z
    change = (model.readout(model.cell(z, h)) - model.readout(z)).abs().amax(1)
    return torch.finfo(logits.dtype).eps ** 0.5 * logits.abs().amax(1).clamp(min=1) + 2 * change
