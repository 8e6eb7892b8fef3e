"""The audit: runs the checks on a model and gathers what they found into one report."""

import time
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from importlib import import_module
from typing import Any, cast

from torch import Tensor

from analysis.findings import CheckResult, Finding, Verdict
from analysis.findings.finding import exit_code
from analysis.measure.sample import environment, levels
from analysis.measure.subject import Subject, prepare
from analysis.report.reading import images_named
from stabdeq.errors import ConfigError, closest
from stabdeq.model import EquilibriumModel

SCHEMA = 1
# In the order in which a reader wants them; each is a module analysis.checks.NAME with a function ``check``.
CHECKS = ("equilibrium", "positivity", "convexity", "decay", "separation", "spectrum", "convergence")
ON_REQUEST = ("robustness",)  # takes a minute or more; it tells what it is at
NEED_LYAPUNOV = frozenset({"positivity", "convexity", "decay"})

# What ``claims_of`` may return; every model is judged on the rest.
CLAIMED_BY_SOME = frozenset({"equilibrium.preserved", "spectrum.stable", "separation.isometry", "separation.increases"})


def audit_model(
    model: EquilibriumModel,
    images: Tensor,
    labels: Tensor,
    *,
    indices: Tensor | None = None,
    checks: Collection[str] = CHECKS,
    seed: int = 0,
    on_check: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Audit ``model`` on ``images`` (N, C, H, W) in [0, 1] with ``labels`` (N,), in float64; return the report as plain data.

    ``model`` may be anyone's that meets ``EquilibriumModel``; one that is an ``nn.Module`` is converted to float64 and put into
    evaluation mode, in place. ``indices`` (N,) name the images in witnesses; ``on_check`` is told the name of each check as it
    begins, and of one on request "NAME: what it is at". Raises ConfigError for an unknown check, DataError for images or labels
    that do not fit.
    """
    for name in checks:
        if name not in CHECKS + ON_REQUEST:
            raise ConfigError(f"unknown check {name!r}: {closest(name, CHECKS + ON_REQUEST)}")
    subject = prepare(model, images, labels, indices=indices, seed=seed)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "checkpoint": {},
        "environment": environment(),
        "findings": [],
        "measurements": [],
        "skipped": [],
        "series": {},
        # What "stabdeq replay" needs: which images were drawn, in which order, and those that witnesses name.
        "sample": {"seed": seed, "images": subject.indices.tolist()},
    }
    findings = []
    for name in (check for check in CHECKS + ON_REQUEST if check in checks):
        on_check(name)
        reason = _reason_to_skip(subject, name)
        if reason:
            report["skipped"].append({"check": name, "reason": reason})
            findings += _left_open(subject, name, reason)
            continue
        result = _run(subject, name, on_check)
        findings += result.findings
        report["measurements"] += [asdict(measurement) for measurement in result.measurements]
        report["series"][name] = result.series
    report["findings"] = [asdict(finding) for finding in findings]
    report["images"] = _images_in_witnesses(subject, findings)
    report["exit_code"] = exit_code(findings)
    return report


def _images_in_witnesses(subject: Subject, findings: list[Finding]) -> dict[str, Any]:
    """Return the label and the pixels of each image that a witness names, by its place in the test split."""
    positions = {place: position for position, place in enumerate(subject.indices.tolist())}
    named = {place for finding in findings for place in images_named(finding.witness)}
    return {
        str(place): {
            "label": int(subject.labels[positions[place]]),
            "pixels": levels(subject.images[positions[place]]),
        }
        for place in sorted(named)
    }


def _reason_to_skip(subject: Subject, name: str) -> str | None:
    if name in NEED_LYAPUNOV and subject.lyapunov is None:
        return "the model has no Lyapunov function, so it claims nothing here"
    looks_elsewhere = ("equilibrium", "convergence", "positivity", "convexity", "robustness")
    if name not in looks_elsewhere and not len(subject.found):
        return "no equilibrium was found, so there is nothing to look at"
    return None


def _left_open(subject: Subject, name: str, reason: str) -> list[Finding]:
    """Return the finding of a check that had to be skipped though the model makes claims there: nobody is to read a pass."""
    if name in NEED_LYAPUNOV and subject.lyapunov is None:
        return []
    claim = f"What the check {name} judges."
    common = {"check": name, "name": "not judged", "claim": claim, "dtype": "float64", "seed": subject.seed}
    evidence = f"Not judged: {reason}."
    return [
        Finding(verdict=Verdict.INCONCLUSIVE, margin=None, evidence=evidence, samples=0, tolerance=0.0, **common)  # pyrefly: ignore
    ]


def _run(subject: Subject, name: str, on_check: Callable[[str], None]) -> CheckResult:
    check = cast(Callable[..., CheckResult], import_module(f"analysis.checks.{name}").check)
    began = time.perf_counter()
    result = check(subject, on_step=lambda step: on_check(f"{name}: {step}")) if name in ON_REQUEST else check(subject)
    seconds = time.perf_counter() - began
    # A check's findings share its work, so those that did not time themselves share its time.
    share = seconds / max(1, len(result.findings))
    timed = [replace(finding, seconds=finding.seconds or share) for finding in result.findings]
    return replace(result, findings=timed)
