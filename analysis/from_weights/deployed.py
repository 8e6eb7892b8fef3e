"""What the weights prove of a model as it runs: its own dtype, sums in any order, its own solver at its own tolerance."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from analysis.findings import Verdict
from analysis.from_weights.gathered import Gathered
from analysis.from_weights.predictions import EPSILONS, Certified
from analysis.from_weights.rates import at_most
from analysis.measure.subject import Subject
from analysis.proofs.cells.deployed import Arithmetic, distance, equilibria, linear, lost_margins, normalised
from analysis.proofs.matrices.enclosure import Enclosure
from stabdeq.cells import ReluCell
from stabdeq.cells.relu import FoldedReluCell
from stabdeq.errors import ConfigError, SolverError
from stabdeq.model import StabilisedDEQ

# Delta, the distance that derived weights are allowed from their exact values: so many roundoffs, or times what is found here.
ROUNDOFFS = 16
ROOM = 4
LEDGER = 0.3  # the l2 radius at which what deployment costs is judged
MOST_LOST = 0.001  # of all images
TOLERANCES = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12)


@dataclass(frozen=True)
class Run:
    """One forward pass of a model as it is deployed.

    ``converged`` (N,) says where its solver reached its ``tolerance``; ``logits`` (N, K); ``derived`` holds the tensors that it
    computes with but does not store, by name, in its ``dtype``.
    """

    dtype: torch.dtype
    tolerance: float
    converged: Tensor
    logits: Tensor
    derived: dict[str, Tensor]


@torch.no_grad()
def run_as_deployed(model: StabilisedDEQ, images: Tensor) -> Run | str:
    """Return one run of ``model`` in its own dtype on ``images`` (N, C, H, W), or in words why its arithmetic is not covered."""
    dtypes = {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()}
    if dtypes - {torch.float32, torch.float64} or len(dtypes) != 1:
        found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        return f"the model is in {found}: rounding is accounted for in float32 and in float64, not in half precision or a mixture"
    if not isinstance(model.cell, ReluCell):
        return "the cell's rounding is accounted for in the cells certified, monotone and interval alone"
    (dtype,) = dtypes
    model.eval()
    try:
        prediction = model.predict(images.to(dtype))
        derived = _derived(model)
    except (ConfigError, SolverError) as error:
        return f"it does not run: {error}"
    settings = model.config.solver
    return Run(dtype, settings.tolerance, prediction.solution.converged, prediction.logits.double(), derived)


def judge_deployed(
    gathered: Gathered, subject: Subject, model: StabilisedDEQ, run: Run | str, certified: Certified | None
) -> None:
    gathered.stage("the model as it runs: rounding and the solver's tolerance")
    total = len(subject.images)
    claim = (
        "As it runs, the model classifies no image within its certified l2 radius otherwise, provided that its solver converges: "
        f"{total} test images."
    )

    def uncertified(why: str) -> None:
        gathered.find("deployed", claim, Verdict.INCONCLUSIVE, f"Not certified: {why}.", samples=total)

    if certified is None:
        return uncertified("there are no certified radii in real arithmetic to begin with")
    if isinstance(run, str):
        return uncertified(run)
    exact = _derived(model)
    apart = max(distance(run.derived[name], exact[name]) for name in exact)
    arithmetic = Arithmetic(run.dtype, run.tolerance, max(ROUNDOFFS * torch.finfo(run.dtype).eps, ROOM * apart))
    lost = _lost(subject, model, certified, arithmetic)
    radius = _radii(subject, run, certified, lost)
    turned = int(((radius > 0) & (run.logits.argmax(1) != certified.radii.predicted)).sum())
    if turned:
        return uncertified(
            f"{turned} images are classified otherwise than {run.dtype} with IEEE products can: look for TF32, autocast or "
            "torch.set_float32_matmul_precision"
        )
    correct = certified.radii.predicted == subject.labels
    for eps in EPSILONS:
        share = int((correct & (radius >= eps)).sum()) / total
        text = f"certified accuracy at l2 radius {eps:g} of the model as it runs"
        gathered.measure("deployed", f"certified accuracy {eps:g}", share, text)
    gathered.series["deployed"] = {
        "indices": subject.indices.tolist(),
        "radius": radius.tolist(),
        "converged": run.converged.tolist(),
        "delta": arithmetic.delta,
    }
    evidence = _conditions(arithmetic, apart) + _ledger(subject, model, run, certified, arithmetic, radius)
    verdict = Verdict.PROVED if bool((radius > 0).any()) else Verdict.INCONCLUSIVE
    gathered.find("deployed", claim, verdict, evidence, margin=float(radius.median()), samples=total)


def _conditions(arithmetic: Arithmetic, apart: float) -> str:
    dtype = str(arithmetic.dtype).removeprefix("torch.")
    return (
        f"For {dtype} with IEEE products (no TF32, no autocast), sums in any order, batches of any size, and states that meet the "
        f"solver's tolerance {arithmetic.tolerance:g}; derived weights within delta = {at_most(arithmetic.delta)} of their float64 "
        f"values in the Frobenius norm, relatively (here: {at_most(apart)}). "
    )


def _ledger(
    subject: Subject, model: StabilisedDEQ, run: Run, certified: Certified, arithmetic: Arithmetic, radius: Tensor
) -> str:
    """Say what deployment costs at one radius, and which tolerance would cost little."""
    total, correct = len(subject.images), certified.radii.predicted == subject.labels
    before = int((correct & (certified.radii.radius >= LEDGER)).sum())

    def kept(radius: Tensor) -> int:
        return int((correct & (radius >= LEDGER)).sum())

    words = f"At radius {LEDGER:g}, {kept(radius)} of {total} are certified, {before} in real arithmetic."
    missed = int((~run.converged).sum())
    if missed:
        words += f" Of {missed} nothing is certified: there the solver did not reach its tolerance."
    if before - kept(radius) <= MOST_LOST * total and bool((radius > 0).any()):
        return words
    converged = replace(run, converged=torch.ones_like(run.converged))
    for tolerance in TOLERANCES:
        if not 4 * torch.finfo(run.dtype).eps <= tolerance < run.tolerance:
            continue
        tighter = replace(arithmetic, tolerance=tolerance)
        left = kept(_radii(subject, converged, certified, _lost(subject, model, certified, tighter)))
        if before - left <= MOST_LOST * total:
            return f"{words} With model.solver.tolerance = {tolerance:g}, where the solver reaches it, {left} would be."
    return f"{words} No tighter tolerance would bring more than {MOST_LOST:.1%} of all back: what is lost is rounding."


def _lost(subject: Subject, model: StabilisedDEQ, certified: Certified, arithmetic: Arithmetic) -> Tensor:
    """Return by how much (N, K) computed margins may fall short, anywhere within the radii in real arithmetic."""
    radii, images = certified.radii, subject.images.flatten(1)
    reach = radii.radius.clamp(max=images.shape[1] ** 0.5)
    _, height, width = model.config.image_shape
    mean, std = (part.flatten().repeat_interleave(height * width) for part in (model.mean, model.std))
    x = normalised(images, mean, std, reach, arithmetic)
    layer, head = model.backbone.linear, model.head  # pyrefly: ignore
    h = linear(x, layer.weight, layer.bias, arithmetic)
    cell = model.cell.fold()
    assert isinstance(cell, FoldedReluCell)
    z = equilibria(cell, h, radii.z, radii.error, certified.gain, arithmetic)
    rotation = None if head.rotation is None else head.rotation.weight
    return lost_margins(
        z, radii.predicted, rotation, head.classifier.weight, head.classifier.bias, certified.readout, arithmetic
    )


def _radii(subject: Subject, run: Run, certified: Certified, lost: Tensor) -> Tensor:
    """Return the radii (N,) around the images as the model's dtype holds them."""
    images = subject.images.flatten(1)
    moved = (Enclosure.exact(images) - Enclosure.exact(images.to(run.dtype))).norm()
    left = torch.minimum(certified.radii.left(lost), certified.radii.radius.new_tensor(images.shape[1] ** 0.5))
    return torch.where(run.converged, (left - moved).clamp(min=0), 0.0)


def _derived(model: StabilisedDEQ) -> dict[str, Tensor]:
    """Return the matrices that a forward pass of ``model`` computes from its parameters, in its dtype."""
    cell = model.cell.fold()
    assert isinstance(cell, FoldedReluCell)
    found = {"transition": cell.transition, "scale": cell.scale, "classifier": model.head.classifier.weight}
    if model.head.rotation is not None:
        found["rotation"] = model.head.rotation.weight
    return {name: tensor.detach().clone() for name, tensor in found.items()}
