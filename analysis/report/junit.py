"""A report as JUnit XML, which CI systems show as test results."""

import math
from typing import Any
from xml.etree import ElementTree

from analysis.findings import Finding, Skipped, Verdict
from analysis.findings.values import printable
from analysis.report.quantities import quantity
from analysis.report.report import Report

_SHOWN = 4  # of a vector in a witness


def junit_xml(report: Report) -> bytes:
    """Return ``report``, which may be foreign, as one suite: a test for each finding, its class the check.

    A refuted claim is a failure, with evidence and witness; what could not be settled is an error; a check that was not made
    is skipped. The suite's name says where the report is a part of an audit alone. Times are in seconds. Characters that XML
    cannot hold are replaced as ``printable`` does.
    """
    cases = [_case(name, item) for name, item in report.named.items()]
    cases += [_skipped(item) for item in report.skipped]
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
    }
    totals = {name: str(count) for name, count in counts.items()}
    seconds = sum(_seconds(item) for item in report.findings)
    if math.isfinite(seconds):
        totals["time"] = f"{seconds:.3f}"
    root = ElementTree.Element("testsuites", {"name": "stabdeq audit"} | totals)
    partial = f". {report.partial}" if report.partial else ""
    suite = ElementTree.SubElement(root, "testsuite", {"name": f"stabdeq audit: {report.title}{partial}"} | totals)
    date = printable(report.environment.get("date"))
    if date:
        suite.set("timestamp", date)
    suite.extend(cases)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def witness_lines(finding: Finding) -> list[str]:
    """Return the witness of a finding in short: a line for each value, vectors by their first numbers."""
    return [f"{printable(key)}: {_short(value)}" for key, value in (finding.witness or {}).items()]


def _short(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return _item(value)
    shown = ", ".join(map(_item, value[:_SHOWN]))
    return f"[{shown}]" if len(value) <= _SHOWN else f"[{shown}, …] ({len(value)} in all)"


def _item(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return f"{len(value)} entries"
    return quantity(value) if isinstance(value, int | float) else printable(value)


def _case(name: str, finding: Finding) -> ElementTree.Element:
    check = printable(finding.check)
    case = ElementTree.Element(
        "testcase",
        # The class is shown before the name, and a finding's name begins with its check.
        {
            "classname": check or "unnamed",
            "name": name.removeprefix(f"{check}.") or "unnamed",
            "time": f"{_seconds(finding):.3f}",
        },
    )
    word, claim, evidence = finding.verdict, printable(finding.claim), printable(finding.evidence)
    if not word.must_explain:
        ElementTree.SubElement(case, "system-out").text = f"{word}: {claim}\n{evidence}"
        return case
    kind = "failure" if word is Verdict.REFUTED else "error"
    outcome = ElementTree.SubElement(case, kind, {"type": word, "message": f"{word}: {claim}"})
    lines = witness_lines(finding)
    outcome.text = "\n".join([evidence, *(["Witness:", *lines] if lines else [])])
    return case


def _skipped(item: Skipped) -> ElementTree.Element:
    check = printable(item.check) or "unnamed"
    case = ElementTree.Element("testcase", {"classname": check, "name": "skipped", "time": "0.000"})
    ElementTree.SubElement(case, "skipped", {"message": printable(item.reason) or "no reason is given"})
    return case


def _seconds(finding: Finding) -> float:
    return finding.seconds if math.isfinite(finding.seconds) and finding.seconds > 0 else 0.0
