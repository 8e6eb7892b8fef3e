"""The proof file of ``certify``: what was proved of a model, with all that ``stabdeq.checker`` needs to check it anew."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from flint import ctx
from torch import Tensor

from analysis.findings import Verdict
from analysis.from_weights.gathered import Gathered
from analysis.from_weights.linf import LINF_EPSILONS
from analysis.from_weights.predictions import EPSILONS
from analysis.measure.subject import Subject
from analysis.proofs.cells.l2_radii import Radii
from analysis.proofs.cells.linf_margins import equilibrium_boxes, linf_margins
from stabdeq.cells import CertifiedCell, IntervalCell, MonotoneCell, ReluCell
from stabdeq.cells.relu import contracting_step
from stabdeq.checker.case import Case
from stabdeq.checker.claims import ABOUT, CLAIMS
from stabdeq.checker.door import PRECISION, VERSION
from stabdeq.checker.parameters import Model
from stabdeq.checker.reading import Failure
from stabdeq.errors import ConfigError
from stabdeq.linear_algebra import cholesky, spectral_norm, symmetric_eigenvectors
from stabdeq.model import StabilisedDEQ

# Certificates are about the cell as float64 numbers fold it, the checker's about the parameters: by these parts numbers give way.
ROOM = 1e-9
STEP_ROOM = 1e-11
BOX_ROOM = 1e-6  # the radius of a ball has 30 bits
# The claims of the checker that show what a certification calls otherwise.
SHOWN_BY = {"well_posed": {"gain", "contraction", "stability"}, "unprojected": {"lyapunov"}}


@dataclass(frozen=True)
class ProofFile:
    """The ``content`` of the file, None without a claim; the names of the claims ``held``, and, by name, why others were ``omitted``."""

    content: bytes | None
    held: tuple[str, ...]
    omitted: dict[str, str]


@torch.no_grad()
def write_proof(checkpoint: bytes, subject: Subject, gathered: Gathered, radii: Radii | None) -> ProofFile:
    """Return the proof about the model in the file ``checkpoint``, each claim having passed the checker.

    ``subject.model`` is that model in float64; ``gathered`` and ``radii`` are what was proved of it.
    """
    model = subject.model
    assert isinstance(model, StabilisedDEQ)
    claims, omitted = [], {}
    step, images = _step(model.cell), _images(subject, radii)
    with ctx.workprec(PRECISION):
        case = Case(Model(checkpoint), step, images)
        for name, values in _claims(model, subject, gathered.certificates, radii):
            try:
                words = CLAIMS[name].words.format(**CLAIMS[name].prove(case, *values.values()))
            except Failure as failure:
                omitted[name] = str(failure)
            else:
                claims.append({"claim": name, "words": words, "symbols": CLAIMS[name].symbols} | values)
    proof = {
        "version": VERSION,
        "kind": "model",
        "about": ABOUT,
        "sha256": sha256(checkpoint).hexdigest(),
        "step": step,
        "images": images,
        "claims": claims,
    }
    held = tuple(claim["claim"] for claim in claims)
    for finding in gathered.findings:
        shown_by = SHOWN_BY.get(finding.name, {finding.name})
        if finding.verdict is Verdict.PROVED and not shown_by & {*held, *omitted}:
            omitted[finding.name] = "proof files have no form for its proof"
    return ProofFile(json.dumps(proof).encode() if held else None, held, omitted)


def _claims(
    model: StabilisedDEQ, subject: Subject, certificates: dict[str, Any], radii: Radii | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each claim with its values, in the order in which the checker's functions take them."""
    if "gain" in certificates:
        proof = certificates["gain"]
        yield "gain", _gain(proof["value"], torch.tensor(proof["multiplier"]))
    for name, sign in (("contraction", 1), ("stability", -1)):
        if name in certificates:
            proof = certificates[name]
            triangle = [_hex(row[: i + 1]) for i, row in enumerate(proof["norm"])]
            rate = (proof["rate"] * (1 + sign * ROOM)).hex()
            yield name, {"rate": rate, "norm": triangle, "multiplier": _hex(proof["multiplier"])}
    if isinstance(model.cell, ReluCell) and model.config.stability == "anchored":
        yield "lyapunov", _lyapunov(model)
    if radii is not None and bool((radii.radius > 0).any()):
        yield "radius", _radius(radii, subject.labels)
    if isinstance(model.cell, IntervalCell):
        try:
            at = list(_boxes(model, subject))
        except ConfigError:  # an extractor without interval bounds
            return
        if at:
            yield "linf", {"at": at}


def _step(cell: Any) -> dict[str, Any] | None:
    """Return bounds of the step s of a forward-backward map, with a vector that proves the upper one."""
    if not isinstance(cell, CertifiedCell | MonotoneCell):
        return None
    monotone = cell.monotone.detach()
    factor = cholesky((monotone + monotone.mT) / 2).factor
    half = torch.linalg.solve_triangular(factor, monotone.mT, upper=False)
    top = symmetric_eigenvectors(half @ half.mT).vectors[:, -1:]
    vector = torch.linalg.solve_triangular(factor.mT, top, upper=True)[:, 0]
    step = float(contracting_step(monotone))
    return {
        "low": (step * (1 - STEP_ROOM)).hex(),
        "high": (step * (1 + STEP_ROOM)).hex(),
        "vector": _hex(vector.tolist()),
    }


def _images(subject: Subject, radii: Radii | None) -> dict[str, Any] | None:
    """Return the images, where they are whole levels of 0 to 255, with the activations near their equilibria."""
    levels = (255 * subject.images).round()
    if (
        radii is None
        or not torch.equal(levels / 255, subject.images)
        or not bool(((levels >= 0) & (levels <= 255)).all())
    ):
        return None
    return {
        "pixels": base64.b64encode(bytes(levels.flatten().to(torch.uint8).tolist())).decode(),
        "labels": subject.labels.tolist(),
        "activations": [_hex(row) for row in radii.activations.nan_to_num(0.0, 0.0, 0.0).tolist()],
    }


def _gain(value: float, multiplier: Tensor) -> dict[str, Any]:
    return {"gain": (value * (1 + ROOM)).hex(), "multiplier": _hex(multiplier.tolist())}


def _lyapunov(model: StabilisedDEQ) -> dict[str, Any]:
    """Return the largest alpha that the norms of the map and of V's network prove, and these; 0 where none is proved."""
    assert isinstance(model.cell, ReluCell)
    assert model.lyapunov is not None
    network, eta = model.lyapunov.network, model.lyapunov.eta
    transition, _ = model.cell.affine()
    weight, mix = network.inner.weight, network.mix
    shifted = transition + torch.eye(len(transition), dtype=torch.float64)
    decay = 1 - float(spectral_norm(shifted)) ** 2 / 4 - ROOM
    lipschitz, size = (float(spectral_norm(matrix)) * (1 + ROOM) + 1e-12 for matrix in (transition, weight))
    bend = float(spectral_norm(mix.sqrt()[:, None] * weight)) ** 2 * (1 + ROOM) + 1e-12
    slope = size * float(mix.norm()) + float(network.skip.weight.norm())
    load = lipschitz**2 * (2 * slope**2 + bend) / model.lyapunov.smoothing / (2 * eta)
    alpha = min(1.0, 1 + decay - ((1 - decay) ** 2 + load) ** 0.5 - 10 * ROOM)
    return {
        name: value.hex()
        for name, value in zip(
            ("alpha", "decay", "lipschitz", "size", "bend"), (alpha, decay, lipschitz, size, bend), strict=True
        )
    }


def _radius(radii: Radii, labels: Tensor) -> dict[str, Any]:
    gains = radii.gains
    pairs = [
        {"classes": pair.tolist()} | _gain(float(value), multiplier)
        for pair, value, multiplier in zip(gains.pairs, gains.values, gains.multipliers, strict=True)
        if value < torch.inf
    ]
    reach = radii.radius * (1 - 4 * ROOM)
    listed = [[i, int(radii.predicted[i]), float(reach[i]).hex()] for i in (reach > 0).nonzero()[:, 0].tolist()]
    correct = radii.predicted == labels
    counts = [[eps.hex(), int((correct & (reach >= eps)).sum())] for eps in EPSILONS]
    whole = None if gains.whole is None else _gain(gains.whole.value, gains.whole.multiplier)
    assert gains.everywhere is not None  # without it no image has a radius
    everywhere = _gain(gains.everywhere.value, gains.everywhere.multiplier)
    return {"pairs": pairs, "whole": whole, "everywhere": everywhere, "radii": listed, "counts": counts}


def _boxes(model: StabilisedDEQ, subject: Subject) -> Iterator[dict[str, Any]]:
    """Yield, for each eps, boxes of states around the equilibria of the images that are certified there."""
    rows = model.head.classifier.weight.detach()
    for eps in LINF_EPSILONS.values():
        box, _ = equilibrium_boxes(model, subject.images, eps)
        room = BOX_ROOM * box.magnitude.amax(1, keepdim=True).clamp(min=1)
        needed = 4 * rows.abs().sum(1).amax() * room[:, 0]  # what so much room takes from a margin
        certified = (linf_margins(model, subject.images, subject.labels, eps) > needed).nonzero()[:, 0]
        low, high = (box.low - room)[certified].tolist(), (box.high + room)[certified].tolist()
        boxes = [[i, _hex(a), _hex(b)] for i, a, b in zip(certified.tolist(), low, high, strict=True)]
        if boxes:
            yield {"eps": eps.hex(), "boxes": boxes}


def _hex(values: list[float]) -> list[str]:
    return [float(value).hex() for value in values]
