"""What a reader of a report may do next: evaluate a witness, settle what is open, run what was left out, prove, repeat."""

import shlex
from dataclasses import dataclass

from analysis.findings import Finding, Verdict
from analysis.findings.catalogue import CHECKS
from analysis.findings.values import mapping, printable
from analysis.report.header import in_words
from analysis.report.made_by import command_line, draws_images
from analysis.report.report import Report, images_named


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to do, in a sentence without its full stop, and the ``command`` that does it; empty where none does."""

    words: str
    command: str = ""


def next_steps(report: Report) -> list[Step]:
    """Return what to do next, the most urgent first."""
    counts = report.counts
    steps = []
    if counts[Verdict.REFUTED]:
        words, command = "Look at what refutes a claim, below", _replay(report)
        steps.append(Step(words=f"{words}, and evaluate it anew" if command else words, command=command))
    if any(finding.verdict.must_explain and finding.verdict is not Verdict.REFUTED for finding in report.findings):
        steps.append(Step(words="Read below why a claim is left open, and what would settle it"))
    if any(not item.asked_for for item in report.skipped) and (whole := _whole_audit(report)):
        steps.append(Step(words="Run the checks that were left out, too", command=whole))
    if counts[Verdict.SUPPORTED] and report.command.get("name") == "audit" and (path := _path(report)):
        words = "What is supported is not proved: see what the weights alone prove"
        steps.append(Step(words=words, command=f"stabdeq certify {shlex.quote(path)}{_data_option(report)}"))
    if verify := verify_line(report):
        steps.append(Step(words="Let somebody else repeat this report and compare", command=verify))
    return steps


def replay_line(report: Report, finding: Finding, name: str) -> str:
    """Return the command that evaluates a refuted finding's witness anew; empty where none does (``can_replay``)."""
    if not can_replay(report, finding):
        return ""
    return f"stabdeq replay report.json --finding {shlex.quote(name)}{_data_option(report)}"


def verify_line(report: Report) -> str:
    """Return the command that repeats the report and compares; empty where it cannot be repeated."""
    path = _path(report)
    return (
        f"stabdeq verify {shlex.quote(path)} report.json{_data_option(report)}"
        if path and is_repeatable(report)
        else ""
    )


def is_repeatable(report: Report) -> bool:
    """Return whether "stabdeq verify" repeats such a report."""
    return report.command.get("name") in ("audit", "certify") and draws_images(report.command)


def are_given(report: Report) -> bool:
    """Return whether the images of ``report`` were given to it, not drawn from the test split, which "stabdeq replay" reads."""
    return report.sample.get("given") is True or isinstance(mapping(report.command.get("options")).get("images"), str)


def can_replay(report: Report, finding: Finding) -> bool:
    """Return whether "stabdeq replay" finds what it needs to evaluate the witness of ``finding`` anew."""
    if finding.verdict is not Verdict.REFUTED or not report.checkpoint.get("path"):
        return False
    at_once = finding.check in CHECKS and CHECKS[finding.check].all_images_at_once
    of_images = bool(images_named(finding.witness)) or at_once
    return not (of_images and are_given(report))


def _replay(report: Report) -> str:
    can = any(finding.witness and can_replay(report, finding) for finding in report.findings)
    return f"stabdeq replay report.json{_data_option(report)}" if can else ""


def _whole_audit(report: Report) -> str:
    """Return the command of the report with all checks that are made by default; empty where it is no audit's."""
    if report.command.get("name") != "audit":
        return ""
    options = {key: value for key, value in mapping(report.command.get("options")).items() if key != "checks"}
    return command_line({**report.command, "options": options})


def _path(report: Report) -> str:
    return printable(report.checkpoint.get("path"))


def _data_option(report: Report) -> str:
    data = mapping(report.checkpoint.get("data"))
    is_embedded = data.get("name") == "digits" and not data.get("robust")
    return "" if is_embedded else " --data-dir DIR"


def not_run(report: Report) -> list[tuple[str, str]]:
    """Return each reason why checks were not run, with their names before it: those that were asked for first."""
    names: dict[str, list[str]] = {}
    for item in sorted(report.skipped, key=lambda item: not item.asked_for):
        names.setdefault(printable(item.reason) or "the report gives no reason", []).append(in_words(item.check))
    return [(", ".join(checks), reason) for reason, checks in names.items()]
