"""What the weights of a model prove: findings with certificates, each checked with its rounding accounted for."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.findings import Verdict
from analysis.findings.four_digits import at_most
from analysis.from_weights.cell import judge_balls, judge_cell
from analysis.from_weights.deployed import judge_deployed, run_as_deployed
from analysis.from_weights.gathered import Gathered
from analysis.from_weights.linf import judge_linf
from analysis.from_weights.lyapunov import judge_decay
from analysis.from_weights.predictions import Certified, judge_radii
from analysis.from_weights.proof_file import write_proof
from analysis.from_weights.rates import report_decay
from analysis.measure.sample import drawn, environment, loaded_model, own_images
from analysis.measure.subject import Subject, left_as_it_was, prepare
from analysis.proofs.cells.decay import Shortfall
from analysis.proofs.cells.network import forms_of
from analysis.proofs.cells.quadratic import NotPiecewiseAffineError, find_quadratic
from analysis.proofs.tracing import TraceError
from analysis.report.made_by import made_by
from analysis.report.report import Report
from analysis.user_function.function import ForeignFunction, load_function
from stabdeq.checkpoint import Checkpoint, checkpoint_in, read_bytes
from stabdeq.errors import ConfigError
from stabdeq.files import replace_or_remove
from stabdeq.lyapunov import InputConvexLyapunov
from stabdeq.model import StabilisedDEQ
from stabdeq.seed import require_seed
from stabdeq.shard import WHOLE, Shard

# What is proved together, by the claims that it is about, in their order.
CELL, BALLS, RADII = "contraction,stability,gain,well_posed", "affine_ball", "radius"
DEPLOYED, LINF, LYAPUNOV = "deployed", "linf", "unprojected,iss_gain"


def units(*, deployed: bool) -> list[str]:
    """Return what shards of a certification share: groups of claims, each proved without the others' findings."""
    return [CELL, BALLS, RADII, *([DEPLOYED] if deployed else []), LINF, LYAPUNOV]


def certify(
    subject: StabilisedDEQ | Checkpoint | str | Path | Callable[[Any], Any],
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    dim: int | None = None,
    deployed: bool = False,
    indices: Tensor | None = None,
    samples: int = 1000,
    data_dir: str | Path | None = None,
    seed: int = 0,
    proof: str | Path | None = None,
    trusted: bool = False,
    shard: Shard = WHOLE,
    on_stage: Callable[[str], None] = lambda words: None,
) -> Report:
    """Prove what weights allow: of a model and its predictions, or, with ``dim``, of piecewise affine dynamics.

    A model, a checkpoint, or the path of one, is judged on ``images`` (N, C, H, W) with ``labels`` (N,), a checkpoint by default on
    ``samples`` test images of its own data set, drawn at random by ``seed`` (``data_dir`` says where that lies). It is left as it
    was. Proofs are about the real function whose weights are the float64 numbers of the folded cell, the extractor and the
    head; with ``deployed`` one more is about the model as it runs, in its own dtype and by its own solver. Dynamics are a
    velocity (B, dim) -> (B, dim), or "module:name". ``on_stage`` is told what begins. At ``proof`` a file is written that
    ``python -m stabdeq.checker`` checks against the checkpoint; the report's ``certificates["proof"]`` says which claims it
    holds, and why others are not in it; where it would hold none, there is no file, nor one of an earlier call. A
    checkpoint that is ``trusted`` may ask for more work: see ``load_checkpoint``. Of a model a ``shard`` proves its own of the
    ``units``, as all would be.

    Raises ConfigError where the model has no equilibrium to certify, images come without labels, or a proof is asked for of what
    is no checkpoint; CheckpointError for a file that is no checkpoint; FileError where the proof cannot be written.
    """
    require_seed(seed)
    if proof is not None and (dim is not None or not isinstance(subject, str | Path)):
        raise ConfigError(
            "a proof file is about a checkpoint file: give its path in the place of the model or the velocity"
        )
    if dim is not None:
        if isinstance(subject, Checkpoint):
            raise ConfigError("dim is of dynamics: give their velocity in the place of a checkpoint, or leave dim out")
        velocity = str(subject) if isinstance(subject, Path) else subject
        command = made_by("certify", velocity, {"dim": dim, "seed": seed})
        return _certify_velocity(load_function(velocity, dim, "velocity"), dim, seed, command)
    options = {"deployed": deployed, "images": samples, "data-dir": data_dir, "seed": seed, "proof": proof}
    # Images of one's own are no option of the command.
    given = images is not None
    command = made_by("certify", None if given else subject, options)
    # Read once: what is hashed into a proof is what was certified, whatever becomes of the file meanwhile.
    content, whole = b"", subject
    if proof is not None and isinstance(subject, str | Path):
        content = read_bytes(Path(subject))
        whole = checkpoint_in(content, Path(subject), trusted=trusted)
    model, checkpoint, loaded = loaded_model(whole, trusted=trusted)
    if not isinstance(model, StabilisedDEQ):
        raise ConfigError(
            f"certify reads the weights of this library's own models, not of {type(model).__name__}: of its cell f at one image's features "
            "h, write the velocity z' = f(z, h) - z as a function of z, and give dim, the number of coordinates"
        )
    if images is None or labels is None:
        images, labels, indices = own_images(loaded, images, labels, data_dir, samples, seed)
    with left_as_it_was(model):
        own = shard.of(units(deployed=deployed))
        gathered, judged, certified = _certify_model(model, images, labels, indices, own, seed, on_stage)
        if proof is not None:
            gathered.stage("proof file: its claims are checked")
            radii = None if certified is None else certified.radii
            written = write_proof(content, judged, gathered, radii)
            replace_or_remove(Path(proof), written.content)
            gathered.certificates["proof"] = {"claims": list(written.held), "omitted": written.omitted}
    sample = drawn(seed, judged.indices, judged.images, judged.labels, given=given)
    return _report(gathered, command=command, checkpoint=checkpoint, sample=sample)


def _certify_model(
    model: StabilisedDEQ,
    images: Tensor,
    labels: Tensor,
    indices: Tensor | None,
    own: Collection[str],
    seed: int,
    on_stage: Callable[[str], None],
) -> tuple[Gathered, Subject, Certified | None]:
    """Put down what is proved of the ``own`` units; what these rest on is proved too, and its findings left to its own shard."""
    gathered, aside = Gathered(seed, on_stage), Gathered(seed, on_stage)
    run = run_as_deployed(model, images) if DEPLOYED in own else None  # before it is converted to float64
    gathered.stage("solving for the equilibria")
    subject = prepare(model, images, labels, indices=indices, seed=seed)
    with torch.no_grad():
        network, equation, start = forms_of(model.cell)
        gain = decay = certified = None
        if set(own) - {LYAPUNOV}:
            gain, decay = judge_cell(gathered if CELL in own else aside, network, equation, start)
        if BALLS in own:
            judge_balls(gathered, subject, network, decay)
        if RADII in own or run is not None:
            certified = judge_radii(gathered if RADII in own else aside, subject, model, network, equation, gain)
        if run is not None:
            judge_deployed(gathered, subject, model, run, certified)
        if LINF in own:
            judge_linf(gathered, subject, model, network, equation, gain)
    if LYAPUNOV in own and isinstance(model.lyapunov, InputConvexLyapunov) and model.lyapunov.centre == "equilibrium":
        judge_decay(gathered, subject, model.lyapunov, network)
    return gathered, subject, certified


def _certify_velocity(velocity: ForeignFunction, dim: int, seed: int, command: dict[str, Any]) -> Report:
    gathered = Gathered(seed, lambda words: None)
    claim = "Trajectories approach one equilibrium z* exponentially, from everywhere: V = (z - z*)'P(z - z*) falls."
    try:
        if velocity.is_numpy:
            raise NotPiecewiseAffineError("it computes with NumPy, which cannot be read: write it with torch")
        found = find_quadratic(velocity.function, dim)
    except (TraceError, NotPiecewiseAffineError) as error:
        gathered.find("stability", claim, Verdict.INCONCLUSIVE, f"Not judged: {velocity.name}: {error}.")
        return _report(gathered, command=command, subject=velocity.name)
    if isinstance(found, Shortfall):
        report_decay(gathered, "stability", claim, found)
    else:
        reach = f" z* lies within {at_most(found.reach)} of the origin."
        report_decay(gathered, "stability", claim, found.decay, reach)
    return _report(gathered, command=command, subject=velocity.name)


def _report(gathered: Gathered, **parts: Any) -> Report:
    return Report(
        findings=tuple(gathered.findings),
        measurements=tuple(gathered.measurements),
        series={"certify": gathered.series},
        certificates=gathered.certificates,
        environment=environment(),
        **parts,
    )
