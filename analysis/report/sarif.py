"""A report as SARIF 2.1.0, which code hosts show as findings beside the code."""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from analysis.findings import Finding, Verdict
from analysis.findings.catalogue import words_of
from analysis.findings.values import printable
from analysis.report.junit import witness_lines
from analysis.report.made_by import command_line
from analysis.report.report import Report
from stabdeq.files import encoded, strict_json

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def to_sarif(report: Report) -> bytes:
    """Return ``report``, which may be foreign, as one run: a rule for each claim, a result for each that does not hold.

    A refuted claim is an error, one that could not be settled a warning. What was skipped or left out, and gaps in the report, are
    notifications of the invocation. A result's fingerprint is made of the names of its check and claim, and of what was judged, of no
    number and no sentence: it stays when the model is trained anew.
    """
    run = {
        "tool": {"driver": {"name": "stabdeq", "version": _version(report), "rules": _rules(report)}},
        "automationDetails": {"id": f"stabdeq {_command(report)}/{_subject(report)}/"},
        "invocations": [_invocation(report)],
        "results": [_result(report, name, item) for name, item in report.named.items() if item.verdict.must_explain],
        "columnKind": "unicodeCodePoints",
    }
    return encoded(strict_json({"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]}))


def _rules(report: Report) -> list[dict[str, Any]]:
    rules = {}
    for finding in report.findings:
        words = words_of(finding.check, finding.name, finding.claim)
        text = f"Whether {words.holds}." if words else printable(finding.claim) or "A claim without words."
        rules.setdefault(_rule(finding), {"id": _rule(finding), "shortDescription": {"text": text}})
    return list(rules.values())


def _result(report: Report, name: str, finding: Finding) -> dict[str, Any]:
    lines = [f"{finding.verdict}: {printable(finding.claim)}", printable(finding.evidence)]
    if witness := witness_lines(finding):
        lines += ["Witness:", *witness]
    # GitHub keeps a finding by the second, which it would else make of the lines of the file.
    digest = hashlib.sha256(encoded(f"{_subject(report)}\n{name}")).hexdigest()
    return {
        "ruleId": _rule(finding),
        "kind": "fail",
        "level": "error" if finding.verdict is Verdict.REFUTED else "warning",
        "message": {"text": "\n".join(filter(None, lines))},
        "locations": [_location(report)],
        "partialFingerprints": {"stabdeqClaim/v1": name, "primaryLocationLineHash": digest},
        "properties": {"verdict": finding.verdict, "margin": finding.margin},
    }


def _invocation(report: Report) -> dict[str, Any]:
    notes = [("note", f"Check {printable(item.check)}: {printable(item.reason)}") for item in report.skipped]
    notes += [("note", report.partial)] if report.partial else []
    notes += [("warning", printable(gap)) for gap in report.gaps]
    line = command_line(report.command)
    return {
        **({"commandLine": line} if line else {}),
        "executionSuccessful": True,
        "exitCode": report.exit_code,
        "exitCodeDescription": report.sentence,
        "toolExecutionNotifications": [{"level": level, "message": {"text": text}} for level, text in notes],
    }


def _location(report: Report) -> dict[str, Any]:
    """Return where a finding is shown: the checkpoint, or the module or file of a user's function; what has no file has a name alone."""
    subject = _subject(report)
    place: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": subject}]}
    file, function = printable(report.checkpoint.get("path")), printable(report.command.get("subject"))
    module, colon, _ = function.partition(":")
    if named := file or (f"{module.replace('.', '/')}.py" if colon else function):
        place["physicalLocation"] = {"artifactLocation": {"uri": _uri(Path(named))}, "region": {"startLine": 1}}
    return place


def _uri(path: Path) -> str:
    """Return ``path`` as a URI, relative to the current folder, the root of a checkout in CI, where it lies below it."""
    if path.is_absolute() and not path.is_relative_to(Path.cwd()):
        return path.as_uri()
    return quote((path.relative_to(Path.cwd()) if path.is_absolute() else path).as_posix())


def _rule(finding: Finding) -> str:
    return f"{printable(finding.check) or 'unnamed'}.{printable(finding.name) or 'unnamed'}"


def _subject(report: Report) -> str:
    return printable(report.command.get("subject")) or printable(report.checkpoint.get("path")) or report.title


def _command(report: Report) -> str:
    return printable(report.command.get("name")) or "audit"


def _version(report: Report) -> str:
    return printable(report.environment.get("stabdeq")) or "unknown"
