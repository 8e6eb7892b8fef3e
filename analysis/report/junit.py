"""A report as JUnit XML, which CI systems show as test results."""

import math
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from analysis.findings.values import mapping, mappings, number, printable
from analysis.report.page import title_of
from analysis.report.quantities import quantity
from analysis.report.reading import finding_ids, verdict

_SHOWN = 4  # of a vector in a witness
_HELD = frozenset({"PROVED", "SUPPORTED"})


def junit_xml(report: dict[str, Any]) -> bytes:
    """Return ``report``, which may be foreign, as one suite: a test for each finding, its class the check.

    A refuted claim is a failure, with evidence and witness; what could not be settled is an error; a check that was not made
    is skipped. Times are in seconds. Characters that XML cannot hold are replaced as ``printable`` does.
    """
    cases = [
        _case(name, item) for name, item in zip(finding_ids(report), mappings(report.get("findings")), strict=True)
    ]
    cases += [_skipped(item) for item in mappings(report.get("skipped"))]
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
    }
    totals = {name: str(count) for name, count in counts.items()}
    seconds = sum(_seconds(item) for item in mappings(report.get("findings")))
    if math.isfinite(seconds):
        totals["time"] = f"{seconds:.3f}"
    root = ElementTree.Element("testsuites", {"name": "stabdeq audit"} | totals)
    suite = ElementTree.SubElement(root, "testsuite", {"name": f"stabdeq audit: {title_of(report)}"} | totals)
    date = printable(mapping(report.get("environment")).get("date"))
    if date:
        suite.set("timestamp", date)
    suite.extend(cases)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def witness_lines(finding: Mapping[Any, Any]) -> list[str]:
    """Return the witness of a finding in short: a line for each value, vectors by their first numbers."""
    return [f"{printable(key)}: {_short(value)}" for key, value in mapping(finding.get("witness")).items()]


def _short(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return _item(value)
    shown = ", ".join(map(_item, value[:_SHOWN]))
    return f"[{shown}]" if len(value) <= _SHOWN else f"[{shown}, …] ({len(value)} in all)"


def _item(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return f"{len(value)} entries"
    return quantity(value) if isinstance(value, int | float) else printable(value)


def _case(name: str, finding: dict[Any, Any]) -> ElementTree.Element:
    check = printable(finding.get("check"))
    case = ElementTree.Element(
        "testcase",
        # The class is shown before the name, and a finding's id begins with its check.
        {
            "classname": check or "unnamed",
            "name": name.removeprefix(f"{check}.") or "unnamed",
            "time": f"{_seconds(finding):.3f}",
        },
    )
    word = verdict(finding)
    claim, evidence = printable(finding.get("claim")), printable(finding.get("evidence"))
    if word in _HELD:
        ElementTree.SubElement(case, "system-out").text = f"{word}: {claim}\n{evidence}"
        return case
    kind = "failure" if word == "REFUTED" else "error"
    outcome = ElementTree.SubElement(case, kind, {"type": word, "message": f"{word}: {claim}"})
    lines = witness_lines(finding)
    outcome.text = "\n".join([evidence, *(["Witness:", *lines] if lines else [])])
    return case


def _skipped(item: dict[Any, Any]) -> ElementTree.Element:
    check = printable(item.get("check")) or "unnamed"
    case = ElementTree.Element("testcase", {"classname": check, "name": "skipped", "time": "0.000"})
    ElementTree.SubElement(case, "skipped", {"message": printable(item.get("reason")) or "no reason is given"})
    return case


def _seconds(finding: dict[Any, Any]) -> float:
    seconds = number(finding.get("seconds"))
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
