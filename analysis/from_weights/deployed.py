"""What the weights prove of a model as it runs: its own dtype, sums in any order, its own solver at its own tolerance."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from analysis.findings import Verdict
from analysis.findings.four_digits import at_most
from analysis.from_weights.gathered import Gathered
from analysis.from_weights.predictions import EPSILONS, Certified
from analysis.measure.subject import Subject
from analysis.proofs.cells.deployed import Arithmetic, Near, distance, equilibria, lost_margins
from analysis.proofs.cells.deployed_extractor import derived, features
from analysis.proofs.matrices.enclosure import Enclosure
from stabdeq.cells import ReluCell
from stabdeq.cells.relu import FoldedReluCell
from stabdeq.config.models import RegisteredSolverConfig
from stabdeq.errors import ConfigError, SolverError
from stabdeq.model import StabilisedDEQ
from stabdeq.percent import percent

# Delta, the distance that derived weights are allowed from their exact values: so many roundoffs, or times what is found here.
ROUNDOFFS = 8
ROOM = 4
LEDGER = 0.3  # the l2 radius at which what deployment costs is judged
MOST_LOST = 0.001  # of all images
LOOK_FOR = "look for TF32, autocast or torch.set_float32_matmul_precision"
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
        found = ", ".join(sorted(map(_name, dtypes)))
        return f"the model is in {found}: rounding is accounted for in float32 and in float64, not in half precision or a mixture"
    if not isinstance(model.cell, ReluCell):
        return "the cell's rounding is accounted for in the cells certified, monotone and interval alone"
    if isinstance(model.config.solver, RegisteredSolverConfig):
        return f"the solver {model.config.solver.name} is not this library's"
    if model.config.solver.returns == "image":
        return "its solver returns the cell's value at the state that met the tolerance, whose rounding is not accounted for"
    (dtype,) = dtypes
    model.eval()
    try:
        prediction = model.predict(images.to(dtype))
        derived = _derived(model)
    except (ConfigError, SolverError) as error:
        return f"it does not run: {error}"
    settings = model.config.solver
    return Run(dtype, settings.stopping_tolerance, prediction.solution.converged, prediction.logits.double(), derived)


def judge_deployed(
    gathered: Gathered, subject: Subject, model: StabilisedDEQ, run: Run | str, certified: Certified | None
) -> None:
    gathered.stage("the model as it runs: rounding and the solver's tolerance")
    total = len(subject.images)
    claim = (
        "As it runs, the model classifies no image within its certified l2 radius otherwise, provided that its solver converges: "
        f"{total} test images."
    )

    why = run if isinstance(run, str) else "there are no certified radii in real arithmetic to begin with"
    if isinstance(run, str) or certified is None:
        gathered.find("deployed", claim, Verdict.INCONCLUSIVE, f"Not certified: {why}.", samples=total)
        return
    exact = _derived(model)
    apart = {name: distance(run.derived[name], exact[name]) for name in exact}
    least = ROUNDOFFS * torch.finfo(run.dtype).eps
    deltas = {name: max(least, ROOM * value) for name, value in apart.items()}
    bounds = _Bounds(subject, model, certified, Arithmetic(run.dtype, run.tolerance, deltas))
    radius = torch.where(run.converged, bounds.radii(run.tolerance), 0.0)
    turned = (radius > 0) & (run.logits.argmax(1) != certified.radii.predicted)
    if bool(turned.any()):
        otherwise = f"{int(turned.sum())} images are classified otherwise than IEEE 754 allows in {_name(run.dtype)}"
        evidence = f"Not certified: {otherwise}: {LOOK_FOR}."
        gathered.find("deployed", claim, Verdict.INCONCLUSIVE, evidence, samples=total)
        return
    _put_down(gathered, bounds, run, radius)
    evidence = (
        f"{_name(run.dtype)}, solver tolerance {run.tolerance:g}, delta {at_most(max(deltas.values()))}: {_cost(bounds, run, radius)} "
        "Holds for sums in any order and batches of any size, none joined with another by a compiler; for products as IEEE 754 has them "
        "(no TF32, autocast or Winograd); where "
        "the solver meets its tolerance; and for derived weights within delta of those in float64, in the spectral norm, relative to "
        f"it where it is above 1: here within {at_most(max(apart.values()))}."
    )
    verdict = Verdict.PROVED if bool((radius > 0).any()) else Verdict.INCONCLUSIVE
    gathered.find("deployed", claim, verdict, evidence, margin=float(radius.median()), samples=total)


def _put_down(gathered: Gathered, bounds: "_Bounds", run: Run, radius: Tensor) -> None:
    for eps in EPSILONS:
        share = bounds.certified_at(radius, eps) / len(radius)
        text = f"certified accuracy at l2 radius {eps:g} of the model as it runs"
        gathered.measure("deployed", f"certified accuracy {eps:g}", share, text)
    gathered.series["deployed"] = {
        "indices": bounds.subject.indices.tolist(),
        "radius": radius.tolist(),
        "converged": run.converged.tolist(),
        "deltas": dict(bounds.arithmetic.deltas),
    }


def _cost(bounds: "_Bounds", run: Run, radius: Tensor) -> str:
    """Say what deployment costs at one radius, and which tolerance would cost little."""
    total, before, kept = len(radius), bounds.certified_at(bounds.reach, LEDGER), bounds.certified_at(radius, LEDGER)
    words = f"at radius {LEDGER:g}, {kept} of {total} are certified, {before} in real arithmetic."
    missed = int((~run.converged).sum())
    if missed:
        words += f" Of {missed} nothing is certified: there the solver did not reach its tolerance."
    if before - kept <= MOST_LOST * total and bool((radius > 0).any()):
        return words
    for tolerance in TOLERANCES:
        if 4 * torch.finfo(run.dtype).eps <= tolerance < run.tolerance:
            tighter = bounds.radii(tolerance)
            left = bounds.certified_at(tighter, LEDGER)
            if before - left <= MOST_LOST * total and bool((tighter > 0).any()):
                return f"{words} With model.solver.tolerance = {tolerance:g}, where the solver reaches it, {left} would be."
    return f"{words} No tighter tolerance brings all but {percent(MOST_LOST, 1)} of the images back: the rest is lost to rounding."


@dataclass(frozen=True)
class _Bounds:
    """Radii of a deployed model for any tolerance of its solver."""

    subject: Subject
    model: StabilisedDEQ
    certified: Certified
    arithmetic: Arithmetic

    def radii(self, tolerance: float) -> Tensor:
        """Return the radii (N,) around the images as the model's dtype holds them, where the solver meets ``tolerance``."""
        cell, radii = self.model.cell.fold(), self.certified.radii
        assert isinstance(cell, FoldedReluCell)
        arithmetic = replace(self.arithmetic, tolerance=tolerance)
        z = equilibria(cell, self.features, radii.activations, radii.error, self.certified.gain, arithmetic)
        lost = lost_margins(z, radii.predicted, self.model.head, self.certified.readout, arithmetic)
        return (torch.minimum(radii.left(lost), self.reach) - self.moved).clamp(min=0)

    @property
    def reach(self) -> Tensor:
        """(N,) the radii in real arithmetic, and no more than any two images with pixels in [0, 1] are apart."""
        return self.certified.radii.radius.clamp(max=self.subject.images[0].numel() ** 0.5)

    @cached_property
    def features(self) -> Near:
        """What the extractor computes within reach."""
        return features(self.model, self.subject.images, self.reach, self.arithmetic)

    @cached_property
    def moved(self) -> Tensor:
        """(N,) how far the images are from what the dtype holds."""
        images = self.subject.images.flatten(1)
        return (Enclosure.exact(images) - Enclosure.exact(images.to(self.arithmetic.dtype))).norm()

    def certified_at(self, radius: Tensor, eps: float) -> int:
        """Return how many images are certified by ``radius`` (N,) to be classified as labelled within ``eps``."""
        return int(((self.certified.radii.predicted == self.subject.labels) & (radius >= eps)).sum())


def _derived(model: StabilisedDEQ) -> dict[str, Tensor]:
    """Return the matrices that a forward pass of ``model`` computes from its parameters, in its dtype."""
    cell = model.cell.fold()
    assert isinstance(cell, FoldedReluCell)
    found = {"transition": cell.transition, "scale": cell.scale, "classifier": model.head.classifier.weight}
    found |= derived(model)
    if model.head.rotation is not None:
        found["rotation"] = model.head.rotation.weight
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
