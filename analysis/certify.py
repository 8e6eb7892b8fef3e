"""What the weights of a model prove: findings with certificates, each checked with its rounding accounted for."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.checks.decay import judge_unprojected_decay
from analysis.findings import Finding, Measurement, Verdict
from analysis.measure.sample import environment, loaded_model, own_images
from analysis.measure.subject import Subject, left_as_it_was, prepare
from analysis.proofs.cells import cheap_tests
from analysis.proofs.cells.affine_ball import find_affine_balls
from analysis.proofs.cells.decay import Decay, Shortfall, find_contraction, find_decay
from analysis.proofs.cells.gain import Gain, find_gain, slope_abscissa
from analysis.proofs.cells.iss_gain import iss_gain
from analysis.proofs.cells.l2_radii import affine_ends, certified_radii
from analysis.proofs.cells.linf_margins import contraction_bound, linf_margins
from analysis.proofs.cells.network import Equation, ReluNetwork, forms_of
from analysis.proofs.cells.quadratic import NotPiecewiseAffineError, find_quadratic
from analysis.proofs.matrices.enclosure import spectral_norm_bound
from analysis.proofs.tracing import TraceError
from analysis.report.report import Report
from analysis.user_function.function import ForeignFunction, load_function
from stabdeq.cells import IntervalCell
from stabdeq.errors import ConfigError
from stabdeq.linear_algebra import symmetric_eigenvalues
from stabdeq.lyapunov import InputConvexLyapunov
from stabdeq.model import StabilisedDEQ

# Radii in pixels of [0, 1] at which certified accuracy is reported.
EPSILONS = (0.1, 0.2, 0.3, 0.5, 1.0)
LINF_EPSILONS = {"2/255": 2 / 255, "4/255": 4 / 255, "6/255": 6 / 255, "8/255": 8 / 255, "0.1": 0.1}


@dataclass
class _Gathered:
    """What has been found so far, and how the reader is told of what is being done."""

    seed: int
    on_stage: Callable[[str], None]
    findings: list[Finding] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    certificates: dict[str, Any] = field(default_factory=dict)
    series: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    def stage(self, words: str) -> None:
        self.on_stage(words)
        self.began = time.perf_counter()

    def find(
        self,
        name: str,
        claim: str,
        verdict: Verdict,
        evidence: str,
        margin: float | None = None,
        samples: int | None = 0,
    ) -> None:
        seconds = time.perf_counter() - self.began
        common = {"check": name, "tolerance": 0.0, "dtype": "float64", "seed": self.seed, "seconds": seconds}
        self.findings.append(
            Finding(
                name=name, claim=claim, verdict=verdict, evidence=evidence, margin=margin, samples=samples, **common
            )  # pyrefly: ignore
        )

    def report(self, **parts: Any) -> Report:
        return Report(
            findings=tuple(self.findings),
            measurements=tuple(self.measurements),
            series={"certify": self.series},
            certificates=self.certificates,
            environment=environment(),
            **parts,
        )

    def measure(self, check: str, name: str, value: float | None, text: str) -> None:
        """Put down a number that belongs to the claim ``check``."""
        self.measurements.append(Measurement(check=check, name=name, value=value, text=text))


def certify(
    subject: StabilisedDEQ | str | Path | Callable[[Any], Any],
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    dim: int | None = None,
    indices: Tensor | None = None,
    samples: int = 1000,
    data_dir: str | Path | None = None,
    seed: int = 0,
    on_stage: Callable[[str], None] = lambda words: None,
) -> Report:
    """Prove what weights allow: of a model and its predictions, or, with ``dim``, of piecewise affine dynamics.

    A model, or the path of a checkpoint, is judged on ``images`` (N, C, H, W) with ``labels`` (N,), a checkpoint by default on
    ``samples`` test images of its own data set, drawn at random by ``seed`` (``data_dir`` says where that lies). It is left as it
    was. All proofs are about the real function whose weights are the float64 numbers of the folded cell, the extractor and the
    head. Dynamics are a velocity (B, dim) -> (B, dim), or "module:name". ``on_stage`` is told what begins.

    Raises ConfigError where the model has no equilibrium to certify, or images come without labels; CheckpointError for a file
    that is no checkpoint.
    """
    if dim is not None:
        velocity = str(subject) if isinstance(subject, Path) else subject
        return _certify_velocity(load_function(velocity, dim, "velocity"), dim, seed)
    model, checkpoint, loaded = loaded_model(subject)
    if not isinstance(model, StabilisedDEQ):
        raise ConfigError(
            f"certify proves what the weights of this library's own models say, not of {type(model).__name__}; of dynamics z' = f(z), "
            "give dim, the number of coordinates"
        )
    if images is None or labels is None:
        images, labels, indices = own_images(loaded, images, labels, data_dir, samples, seed)
    with left_as_it_was(model):
        return _certify_model(model, images, labels, indices, seed, on_stage).report(checkpoint=checkpoint)


def _certify_model(
    model: StabilisedDEQ,
    images: Tensor,
    labels: Tensor,
    indices: Tensor | None,
    seed: int,
    on_stage: Callable[[str], None],
) -> _Gathered:
    gathered = _Gathered(seed, on_stage)
    gathered.stage("solving for the equilibria")
    subject = prepare(model, images, labels, indices=indices, seed=seed)
    with torch.no_grad():
        network, equation, start = forms_of(model.cell)
        gain = _judge_cell(gathered, network, equation, start)
        _judge_balls(gathered, subject, network)
        _judge_radii(gathered, subject, model, network, equation, gain)
        if isinstance(model.cell, IntervalCell):
            _judge_linf(gathered, subject, model)
    if isinstance(model.lyapunov, InputConvexLyapunov) and model.lyapunov.centre == "equilibrium":
        _judge_iss_gain(gathered, subject, model.lyapunov, network)
    return gathered


def _certify_velocity(velocity: ForeignFunction, dim: int, seed: int) -> Report:
    gathered = _Gathered(seed, lambda words: None)
    claim = "Trajectories approach one equilibrium z* exponentially, from everywhere: V = (z - z*)'P(z - z*) falls."
    try:
        if velocity.is_numpy:
            raise NotPiecewiseAffineError("it computes with NumPy, which cannot be read: write it with torch")
        found = find_quadratic(velocity.function, dim)
    except (TraceError, NotPiecewiseAffineError) as error:
        gathered.find("stability", claim, Verdict.INCONCLUSIVE, f"Not judged: {velocity.name}: {error}.")
        return gathered.report(subject=velocity.name)
    if isinstance(found, Shortfall):
        _report_decay(gathered, "stability", claim, found)
    else:
        reach = f" z* lies within {_at_most(found.reach)} of the origin."
        _report_decay(gathered, "stability", claim, found.decay, reach)
    return gathered.report(subject=velocity.name)


def _judge_cell(gathered: _Gathered, network: ReluNetwork, equation: Equation, start: Tensor | None) -> Gain | None:
    gathered.stage("contraction: semidefinite programs for a norm")
    contraction = find_contraction(network)
    _report_decay(gathered, "contraction", "For every input, the cell contracts in one norm.", contraction)
    gathered.stage("stability: semidefinite programs for a quadratic Lyapunov function")
    decay = find_decay(network.flow(), contraction)
    claim = "For every input, trajectories of z' = f(z, h) - z approach one equilibrium exponentially, from everywhere."
    _report_decay(gathered, "stability", claim, decay)
    gathered.stage("gain: multipliers of the matrix inequality")
    gain = _judge_gain(gathered, network, equation, start)
    gathered.stage("norms and Perron-Frobenius")
    proofs = {"the decay": decay, "the contraction": contraction, "the gain": gain}
    _judge_well_posed(
        gathered, network, equation, {name: isinstance(proof, Decay | Gain) for name, proof in proofs.items()}
    )
    return gain


def _report_decay(gathered: _Gathered, name: str, claim: str, found: Decay | Shortfall, note: str = "") -> None:
    """Put down the verdict on the rate a of a flow, or, under the name contraction, r of a map."""
    is_map = name == "contraction"
    rate, needed = ("r", "below 1") if is_map else ("a", "above 0")
    if isinstance(found, Decay):
        values = symmetric_eigenvalues(found.norm)
        proved = _at_most(found.rate) if is_map else _at_least(found.rate)
        evidence = (
            f"Rate {rate} = {proved} in the norm of a matrix P of condition {float(values[-1] / values[0]):.3g}; "
            f"matrices proved definite.{note}"
        )
        gathered.find(name, claim, Verdict.PROVED, evidence, 1 - found.rate if is_map else found.rate)
        gathered.certificates[name] = {
            "rate": found.rate,
            "norm": found.norm.tolist(),
            "multiplier": found.multiplier.tolist(),
        }
        return
    bound = f"with some pattern of ReLU slopes no rate is better than {rate} = {found.limit:.3g}"
    if math.isnan(found.limit):
        evidence = "Not proved: weights are not finite, or too large for eigenvalues to be computed."
    elif found.is_hopeless:
        evidence = f"Not proved, and no multipliers can: {bound}, and it must be {needed}."
    elif abs(found.best) == torch.inf:
        evidence = f"Not proved: the solver found no multipliers, though {bound}."
    else:
        evidence = (
            f"Not proved: the best rate that the solver found is {rate} = {found.best:.3g}, and it must be {needed}."
        )
    gathered.find(name, claim, Verdict.INCONCLUSIVE, evidence)


def _at_least(bound: float) -> str:
    """Return a lower bound in four digits, rounded down: what is printed is proved, too."""
    return f"{float(Context(prec=4, rounding=ROUND_FLOOR).create_decimal(bound)):.4g}"


def _at_most(bound: float) -> str:
    """Return an upper bound in four digits, rounded up."""
    return f"{float(Context(prec=4, rounding=ROUND_CEILING).create_decimal(bound)):.4g}"


def _judge_gain(gathered: _Gathered, network: ReluNetwork, equation: Equation, start: Tensor | None) -> Gain | None:
    found = find_gain(equation, equation.output, equation.injection, start)
    cheap = cheap_tests.norm_gain(network)
    claim = "Between any two features, equilibria move by no more than a gain: ||dz*|| <= gamma ||dh||."
    if found is not None:
        gathered.certificates["gain"] = {"value": found.value, "multiplier": found.multiplier.tolist()}
    value = min(cheap, torch.inf if found is None else found.value)
    if value < torch.inf:
        how = "by the product of the layers' norms" if value == cheap else "by a matrix inequality, proved definite"
        gathered.find("gain", claim, Verdict.PROVED, f"gamma = {_at_most(value)}, {how}.")
        gathered.measure("gain", "gain", value, "gain from features to equilibria")
        return found
    abscissa = slope_abscissa(equation)
    evidence = f"Not proved: the solver's multipliers fail, though no slopes that were tried forbid others ({abscissa:.3g} < 1)."
    if math.isnan(abscissa):
        evidence = "Not proved: weights are not finite, or too large for eigenvalues to be computed."
    elif abscissa >= 1:
        evidence = (
            f"Not proved, and no multipliers can: with some pattern of ReLU slopes S an eigenvalue of M S has the real part "
            f"{abscissa:.3g}, and it must be below 1."
        )
    gathered.find("gain", claim, Verdict.INCONCLUSIVE, evidence)
    return None


def _judge_well_posed(gathered: _Gathered, network: ReluNetwork, equation: Equation, proofs: dict[str, bool]) -> None:
    product, kappa = cheap_tests.norm_product(network), cheap_tests.perron_frobenius(equation)
    radius = cheap_tests.spectral_radius(equation)
    gathered.measure("well_posed", "norm product", product, "product of the layers' norms: below 1 the cell contracts")
    gathered.measure(
        "well_posed",
        "Perron-Frobenius",
        radius,
        "spectral radius of the stacked layers' |M|: below 1 equilibria are unique",
    )
    proofs = proofs | {"the norm product": product < 1, "a Perron-Frobenius vector": kappa < 1}
    by = [name for name, holds in proofs.items() if holds]
    claim = "For every input there is an equilibrium, and only one."
    if by:
        gathered.find("well_posed", claim, Verdict.PROVED, f"Proved by {', '.join(by)}.")
        return
    tried = f"the product of norms is {product:.3g} and the spectral radius of |M| {radius:.3g}, where below 1 would do"
    gathered.find("well_posed", claim, Verdict.INCONCLUSIVE, f"Not proved: no inequality was proved; {tried}.")


def _judge_balls(gathered: _Gathered, subject: Subject, network: ReluNetwork) -> None:
    gathered.stage(f"affine balls around {len(subject.found)} equilibria")
    total, found = len(subject.images), subject.found
    claim = f"Around each of {total} equilibria the cell is affine, and z' = f(z, h) - z decays exponentially to it."
    if not len(found):
        gathered.find(
            "affine_ball", claim, Verdict.INCONCLUSIVE, "Not judged: no equilibrium was found.", samples=total
        )
        return
    balls = find_affine_balls(network, subject.equilibria, subject.h[found])
    proved = balls.attraction > 0
    count = int(proved.sum())
    gathered.series["affine_balls"] = {"indices": subject.indices[found].tolist()} | {
        name: getattr(balls, name).tolist() for name in ("radius", "error", "abscissa", "rate", "attraction")
    }
    words = f"Proved at {count} of {total}"
    if count:
        radius, rate, attraction = balls.radius[proved], balls.rate[proved], balls.attraction[proved]
        words += (
            f": no ReLU changes sign within {_at_least(float(radius.median()))} of z* (median; least {_at_least(float(radius.min()))}), "
            f"rate {_at_least(float(rate.min()))} or faster, attraction from within {_at_least(float(attraction.median()))} "
            f"(median; least {_at_least(float(attraction.min()))})"
        )
    unstable, flat = int((balls.abscissa >= 0).sum()), int((balls.radius == 0).sum())
    for number, what in (
        (total - len(found), "without an equilibrium found"),
        (flat, "with a ReLU nearer to 0 than the error of z*"),
        (unstable, "with an eigenvalue of df/dz beyond 1"),
    ):
        words += f"; {number} {what}" if number else ""
    verdict = Verdict.PROVED if count == total else Verdict.INCONCLUSIVE
    gathered.find("affine_ball", claim, verdict, f"{words}.", samples=total)


def _judge_radii(
    gathered: _Gathered,
    subject: Subject,
    model: StabilisedDEQ,
    network: ReluNetwork,
    equation: Equation,
    gain: Gain | None,
) -> None:
    gathered.stage("certified radii: gains from pixels to the differences of logits")
    total = len(subject.images)
    claim = f"No image within its certified l2 radius is classified otherwise: {total} test images."
    try:
        ends = affine_ends(model)
    except ConfigError as error:
        gathered.find("radius", claim, Verdict.INCONCLUSIVE, f"Not certified: {error}.", samples=total)
        return
    if gain is None:
        evidence = "Not certified: without a proved gain of the cell there is no radius; a certified cell has one."
        gathered.find("radius", claim, Verdict.INCONCLUSIVE, evidence, samples=total)
        return
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


def _judge_linf(gathered: _Gathered, subject: Subject, model: StabilisedDEQ) -> None:
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
        f"is mapped into itself by the cell, which contracts by {_at_most(contraction_bound(model.cell))} in the maximum norm."
    )
    verdict = Verdict.PROVED if any(bool(proved.any()) for proved in certified.values()) else Verdict.INCONCLUSIVE
    gathered.find("linf", claim, verdict, evidence, samples=total)


def _judge_iss_gain(gathered: _Gathered, subject: Subject, lyapunov: InputConvexLyapunov, network: ReluNetwork) -> None:
    gathered.stage("decay of V along the unprojected field")
    sensitivity = spectral_norm_bound(network.output) * spectral_norm_bound(network.injection)
    value = iss_gain(lyapunov, sensitivity)
    claim = f"By V's decay along the unprojected field, equilibria move by no more than {_at_most(value)} times the features."
    if not len(subject.found):
        gathered.find("iss_gain", claim, Verdict.INCONCLUSIVE, "Not judged: no equilibrium was found.")
        return
    if not subject.structured:
        evidence = "Not judged: V is altered, or its weights are not finite: they do not tell how V grows."
        gathered.find("iss_gain", claim, Verdict.INCONCLUSIVE, evidence)
        return
    decay = judge_unprojected_decay(subject)
    verdict, evidence = decay.verdict, decay.evidence
    if verdict is Verdict.REFUTED:
        verdict = Verdict.INCONCLUSIVE
        evidence = f"V does not decay along the unprojected field, so this says nothing: {evidence}"
    gathered.find("iss_gain", claim, verdict, evidence, samples=decay.samples)
