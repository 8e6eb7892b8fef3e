"""The audit: runs the checks on a model and gathers what they found into one report."""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.findings import CheckResult, Finding, Skipped, Verdict
from analysis.findings.catalogue import CHECKS, Check, default_checks, in_order
from analysis.findings.finding import NOT_JUDGED, not_asked_for
from analysis.measure.inputs import are_pixels
from analysis.measure.sample import drawn, environment, levels, loaded_model, own_images
from analysis.measure.subject import Subject, left_as_it_was, prepare
from analysis.report.made_by import made_by
from analysis.report.report import Report, images_named
from stabdeq.attacks.threat_model import is_correct
from stabdeq.checkpoint import Checkpoint
from stabdeq.errors import ConfigError
from stabdeq.model import EquilibriumModel
from stabdeq.seed import require_seed
from stabdeq.shard import WHOLE, Shard

MOST_STATES = 2**24  # that a search draws: minutes of small ones, hours of large ones


def units(checks: Collection[str]) -> list[str]:
    """Return what shards of an audit share: the ``checks``, or the pieces of those that have some."""
    return [unit for name in in_order(checks) for unit in CHECKS[name].units]


def audit(
    model: EquilibriumModel | Checkpoint | str | Path,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    indices: Tensor | None = None,
    checks: Collection[str] | None = None,
    samples: int = 128,
    states: int | None = None,
    data_dir: str | Path | None = None,
    seed: int = 0,
    trusted: bool = False,
    shard: Shard = WHOLE,
    on_check: Callable[[str], None] = lambda name: None,
) -> Report:
    """Judge the claims of ``model`` on ``images`` (N, C, H, W) in [0, 1] with ``labels`` (N,), in float64.

    Inputs (N, *) of another shape or dtype, such as tokens, are judged likewise; labels are classes (N,), classes of tokens (N, T), or
    numbers (N, *), as the readout gives. Checks that need classes, or pixels, are skipped without them.
    ``model`` is anyone's that meets ``EquilibriumModel``, a checkpoint, or the path of one. A checkpoint is audited on ``samples`` test
    images of its own data set (``data_dir`` says where that lies, where it is not embedded), drawn at random by ``seed``, unless
    images are given. A model that is an ``nn.Module`` is judged in float64 and in evaluation mode, and is left as it was.
    Each search for a counterexample to V's positivity, convexity and decay draws so many ``states``, by default as many as take
    seconds. A checkpoint that is ``trusted`` may ask for more work (``stabdeq.checkpoint.load_checkpoint``).

    ``checks`` names the checks, by default all that are not on request, and a ``shard`` makes its own of their ``units``, as all would be;
    ``indices`` (N,) name the images in witnesses;
    ``on_check`` is told the name of each check as it begins, and of one that tells of its steps "NAME: STEP". Raises ConfigError
    for an unknown check, images without labels or a number of states that is not from 1 to 16777216, DataError for images or labels that
    do not fit, CheckpointError for a file that is no checkpoint.
    """
    if states is not None and not (isinstance(states, int) and 1 <= states <= MOST_STATES):
        raise ConfigError(
            f"states = {states}: expected from 1 to {MOST_STATES} states, a whole number, to draw in a search"
        )
    require_seed(seed)
    wanted = [CHECKS[name] for name in (default_checks() if checks is None else checks)]
    names = [check.name for check in wanted]
    model, checkpoint, loaded = loaded_model(model, trusted=trusted)
    given = images is not None
    options = {"checks": names, "images": samples, "states": states, "data-dir": data_dir, "seed": seed}
    # Images of one's own are no option of the command.
    command = made_by("audit", None if given else checkpoint.get("path"), options)
    if images is None or labels is None:
        images, labels, indices = own_images(loaded, images, labels, data_dir, samples, seed)
    with left_as_it_was(model):
        subject = prepare(model, images, labels, indices=indices, seed=seed, states=states)
        results: list[CheckResult] = []
        skipped: list[Skipped] = []
        series: dict[str, Any] = {}
        for check, pieces in _shared(names, shard):
            on_check(check.name)
            if reason := _claims_nothing(subject, check):
                skipped.append(Skipped(check=check.name, reason=reason))
            elif reason := _reason_to_skip(subject, check):
                skipped.append(Skipped(check=check.name, reason=reason))
                results.append(CheckResult(findings=_left_open(subject, check, reason)))
            else:
                results.append(_run(subject, check, pieces, on_check))
                series[check.name] = results[-1].series
        findings = tuple(finding for result in results for finding in result.findings)
        return Report(
            findings=findings,
            measurements=tuple(item for result in results for item in result.measurements),
            skipped=(*skipped, *not_asked_for(name for name in default_checks() if name not in names)),
            series=series,
            command=command,
            checkpoint=checkpoint,
            environment=environment(),
            # What "stabdeq verify" and "replay" need: which images were drawn, in which order, and those that witnesses name.
            sample=drawn(seed, subject.indices, subject.images, subject.labels, given=given) | _right(subject),
            images=_images_in_witnesses(subject, findings),
        )


def _shared(checks: Collection[str], shard: Shard) -> Iterator[tuple[Check, list[str]]]:
    """Yield each of the ``checks`` that the ``shard`` has a part in, and its pieces of it."""
    own = shard.of(units(checks))
    for check in (CHECKS[name] for name in in_order(checks)):
        mine = [unit for unit in check.units if unit in own]
        if mine:
            yield check, [unit.partition(":")[2] for unit in mine]


@torch.no_grad()
def _right(subject: Subject) -> dict[str, int]:
    """Return how many of the images the model, by its own solver, answers as labelled, in all tokens; nothing where it gives numbers."""
    if subject.answers == "numbers":
        return {}
    count = 0
    for part in subject.parts(len(subject.images)):
        logits = subject.model.readout(subject.model.solve(subject.h[part]).z)
        classes = logits.shape[-1]
        right = is_correct(logits.reshape(-1, classes), subject.labels[part].flatten()).view(len(logits), -1)
        count += int(right.all(1).sum())
    return {"right": count}


def _images_in_witnesses(subject: Subject, findings: Collection[Finding]) -> dict[str, Any]:
    """Return the label and the pixels of each image that a witness names, by its place in the test split."""
    named = {place for finding in findings for place in images_named(finding.witness)}
    positions = {place: int((subject.indices == place).nonzero()[-1]) for place in sorted(named)}
    return {
        str(place): {"label": subject.labels[position].tolist(), **_content(subject.images[position][None])}
        for place, position in positions.items()
    }


def _content(one: Tensor) -> dict[str, Any]:
    """Return one input (1, *) as a report holds it."""
    return {"pixels": levels(one[0])} if are_pixels(one) else {"input": one[0].tolist()}


def _claims_nothing(subject: Subject, check: Check) -> str:
    """Return why the model makes no claim that ``check`` judges; empty where it makes one."""
    if "lyapunov" in check.needs and subject.lyapunov is None:
        return "the model has no Lyapunov function, so it claims nothing here"
    if "pixels" in check.needs and not are_pixels(subject.images):
        return "an attack changes pixels, and the inputs are no images (N, C, H, W) in [0, 1]"
    if not subject.answers_as(check.needs):
        return f"it compares classes, and the model's answers are {subject.answers}"
    return ""


def _reason_to_skip(subject: Subject, check: Check) -> str:
    """Return why ``check`` cannot be made; empty where it can."""
    if "equilibria" in check.needs and not len(subject.found):
        return "no equilibrium was found, so there is nothing to look at"
    return ""


def _left_open(subject: Subject, check: Check, reason: str) -> list[Finding]:
    """Return the finding of a check that was skipped though the model makes claims there, which must not read as a pass."""
    return [
        Finding(
            check=check.name,
            name=NOT_JUDGED,
            claim=f"What the check {check.name} judges.",
            verdict=Verdict.INCONCLUSIVE,
            margin=None,
            evidence=f"Not judged: {reason}.",
            samples=0,
            tolerance=0.0,
            dtype="float64",
            seed=subject.seed,
        )
    ]


def _run(subject: Subject, check: Check, pieces: list[str], on_check: Callable[[str], None]) -> CheckResult:
    began = time.perf_counter()
    own = {"pieces": pieces} if check.pieces else {}
    telling = {} if "" in check.seconds else {"on_step": lambda step: on_check(f"{check.name}: {step}")}
    result = check.part("run")(subject, **own, **telling)
    seconds = time.perf_counter() - began
    known = {row.name for row in check.claims}
    for finding in result.findings:
        if finding.check != check.name or finding.name not in known:
            raise TypeError(
                f"the check {check.name!r} has no claim {finding.check}.{finding.name}: give it one in its row"
            )
    # A check's findings share its work, so those that did not time themselves share its time.
    share = seconds / max(1, len(result.findings))
    timed = [replace(finding, seconds=finding.seconds or share) for finding in result.findings]
    return replace(result, findings=timed)
