"""Reading a report that may be foreign, old or incomplete: a value of the asked type or its gap.

What a checkpoint says of itself is untrusted text: it reaches a page or a terminal through :func:`printable`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analysis.findings.values import mapping, mappings, printable, sequence
from stabdeq.errors import StabdeqError

SCHEMA = 1
EXPECTED_KEYS = (
    "schema",
    "checkpoint",
    "environment",
    "exit_code",
    "findings",
    "measurements",
    "skipped",
    "series",
)
MAX_DEPTH = 100  # lists and dictionaries inside one another; what walks them calls itself as often

# Worst first: what a reader must not miss stands at the top.
VERDICT_ORDER = ("REFUTED", "INCONCLUSIVE", "UNKNOWN", "SUPPORTED", "PROVED")


class ReportError(StabdeqError):
    """A report.json is missing, truncated, or no report."""


def read_report(path: Path) -> dict[str, Any]:
    """Return the report in the file ``path``, unjudged; raises ReportError where it is no JSON object, or nested too deeply."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}: give the report.json that 'stabdeq audit' wrote") from None
    except UnicodeDecodeError:
        raise ReportError(f"{path}: not text: give the report.json that 'stabdeq audit' wrote") from None
    except (ValueError, RecursionError) as error:
        reason = f"the JSON is truncated or broken ({error})"
        raise ReportError(f"{path}: {reason}: copy the file again, or audit again") from None
    if not isinstance(report, dict):
        raise ReportError(f"{path}: a report is a JSON object, this is {type(report).__name__}: give a report.json")
    if _is_too_deep(report):
        raise ReportError(f"{path}: nested more than {MAX_DEPTH} levels deep, as no report is: give a report.json")
    return report


def _is_too_deep(report: dict[str, Any]) -> bool:
    level: list[Any] = [report]
    for _ in range(MAX_DEPTH):
        items = (inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer))
        level = [item for item in items if isinstance(item, dict | list)]
    return bool(level)


def verdict(finding: dict[Any, Any]) -> str:
    """Return the finding's verdict, "UNKNOWN" where it is none of the four."""
    word = finding.get("verdict")
    return str(word) if isinstance(word, str) and word in VERDICT_ORDER else "UNKNOWN"


def by_check(items: Iterable[dict[Any, Any]]) -> dict[str, list[dict[Any, Any]]]:
    """Return findings, measurements or skipped checks by the check that each names, in their own order."""
    groups: dict[str, list[dict[Any, Any]]] = {}
    for item in items:
        groups.setdefault(printable(item.get("check")), []).append(item)
    return groups


def finding_ids(report: dict[str, Any]) -> list[str]:
    """Return the name of each finding as "check.name", with "#2" and so on where it would stand for several.

    >>> finding_ids({"findings": [{"check": "decay", "name": "flow"}, {"check": "decay", "name": "flow"}]})
    ['decay.flow', 'decay.flow#2']
    """
    findings = mappings(report.get("findings"))
    return numbered(f"{printable(item.get('check'))}.{printable(item.get('name'))}" for item in findings)


def numbered(names: Iterable[str]) -> list[str]:
    """Return ``names`` with "#2" and so on behind one that stood before, so that no two are the same."""
    seen: dict[str, int] = {}  # each id, and the number that was last put behind it
    for name in names:
        unique = name
        while unique in seen:
            seen[name] += 1
            unique = f"{name}#{seen[name]}"
        seen[unique] = 1
    return list(seen)


def images_named(witness: Any) -> list[int]:
    """Return the places in the test split of the images that a witness names.

    >>> images_named({"image": 3, "images": [5, 3, "x"], "other_image": 7})
    [3, 5, 7]
    """
    fields = mapping(witness)
    places = [fields.get("image"), *sequence(fields.get("images")), fields.get("other_image")]
    return list(dict.fromkeys(place for place in places if type(place) is int and place >= 0))


def findings_worst_first(report: dict[str, Any]) -> list[dict[Any, Any]]:
    """Return the findings, refuted ones first and proved ones last, in their own order within a verdict."""
    return sorted(mappings(report.get("findings")), key=lambda finding: VERDICT_ORDER.index(verdict(finding)))


def verdict_counts(report: dict[str, Any]) -> dict[str, int]:
    """Return how many findings end in each of the four verdicts, and in an unknown one where some do."""
    words = [verdict(finding) for finding in mappings(report.get("findings"))]
    counts = {word: words.count(word) for word in reversed(VERDICT_ORDER)}
    if not counts["UNKNOWN"]:
        del counts["UNKNOWN"]
    return counts


def outcome(report: dict[str, Any]) -> tuple[str, str]:
    """Return the verdict that decides the audit's exit code, and a sentence that says what the code means."""
    counts = verdict_counts(report)
    unsettled = counts["INCONCLUSIVE"] + counts.get("UNKNOWN", 0)
    if counts["REFUTED"]:
        held = "One claim is refuted" if counts["REFUTED"] == 1 else f"{counts['REFUTED']} claims are refuted"
        return "REFUTED", f"{held}{f', and {unsettled} could not be settled' if unsettled else ''}."
    if unsettled:
        return "INCONCLUSIVE", f"No claim is refuted, but {unsettled} could not be settled."
    if not any(counts.values()):
        return "INCONCLUSIVE", "No claim was judged: the report holds no findings."
    return "SUPPORTED" if counts["SUPPORTED"] else "PROVED", "No claim is refuted and none is left open."


def gaps(report: dict[str, Any]) -> list[str]:
    """Return, as sentences, what in the report is missing, unknown here, or at odds with itself."""
    said = []
    schema = report.get("schema")
    if type(schema) is not int or schema != SCHEMA:  # True == 1
        came = f"schema {printable(report['schema'])[:20]}" if "schema" in report else "no schema number"
        said.append(f"Expected a report of schema {SCHEMA}, found {came}: drawn as far as it is understood.")
    if missing := [key for key in EXPECTED_KEYS[1:] if key not in report]:
        said.append(f"The report holds no {', no '.join(missing)}.")
    if unknown := verdict_counts(report).get("UNKNOWN"):
        said.append(f"Findings with a verdict that this version does not know: {unknown}.")
    code = report.get("exit_code")
    if isinstance(code, int) and code != (expected := _expected_exit_code(report)):
        said.append(f"The report's exit code is {code}, but its findings ask for {expected}.")
    return said


def _expected_exit_code(report: dict[str, Any]) -> int:
    counts = verdict_counts(report)
    if counts["REFUTED"]:
        return 1
    judged = sum(counts.values())
    return 3 if counts["INCONCLUSIVE"] or counts.get("UNKNOWN") or not judged else 0
