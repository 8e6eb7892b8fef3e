"""A report from a file that may be foreign, old or damaged: what can be read of it, and a sentence for what cannot."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.findings import Finding, Measurement, Skipped, Verdict
from analysis.findings.values import as_text, number, printable
from analysis.report.report import PARTS, SCHEMA, Report
from stabdeq.errors import ReportError
from stabdeq.reading import of_single_keys, read_regular

LARGEST = 2**28  # bytes
MAX_DEPTH = 100  # lists and dictionaries inside one another; what walks them calls itself as often
_EXPECTED = ("checkpoint", "environment", "exit_code", "findings", "measurements", "skipped", "series")


def read_report(path: Path, *, of_this_schema: bool = False) -> Report:
    """Return the report in the file ``path``.

    Raises ReportError as ``read_plain``, and, where that is asked, for another schema than ours.
    """
    return report_in(read_content(path), path, of_this_schema=of_this_schema)


def report_in(content: bytes, path: Path, *, of_this_schema: bool = False) -> Report:
    """Return the report that ``content``, all bytes of the file ``path``, holds; raises as ``read_report``."""
    plain = _plain_in(content, path)
    if of_this_schema and (odds := schema_at_odds(plain)):
        raise ReportError(f"{path}: {odds}: audit anew with this version")
    return parse(plain)


def read_plain(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file ``path``; raise ReportError where it is none, or nested too deeply."""
    return _plain_in(read_content(path), path)


def read_content(path: Path) -> bytes:
    """Return all bytes of the report ``path``, read once; raises ReportError where it is no regular file, or too large."""
    try:
        return read_regular(path, LARGEST)
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}: give the report.json that 'stabdeq audit' wrote") from None


def _plain_in(content: bytes, path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(content.decode("utf-8"), object_pairs_hook=of_single_keys)
    except UnicodeDecodeError:
        raise ReportError(f"{path}: not text: give the report.json that 'stabdeq audit' wrote") from None
    except (ValueError, RecursionError) as error:
        reason = f"the JSON is truncated or broken ({error})"
        raise ReportError(f"{path}: {reason}: copy the file again, or audit again") from None
    if not isinstance(plain, dict):
        raise ReportError(f"{path}: a report is a JSON object, this is {type(plain).__name__}: give a report.json")
    if is_too_deep(plain):
        raise ReportError(f"{path}: nested more than {MAX_DEPTH} levels deep, as no report is: give a report.json")
    return plain


def schema_at_odds(plain: Mapping[str, Any]) -> str:
    """Return, in words, what schema was expected and which came; empty where it is ours."""
    is_ours = type(plain.get("schema")) is int and plain["schema"] == SCHEMA  # True == 1
    return (
        "" if is_ours else f"expected a report of schema {SCHEMA}, found {printable(plain.get('schema', 'none'))[:20]}"
    )


def parse(plain: Any) -> Report:
    """Return the report that ``plain``, decoded JSON, holds; see ``Report.parse``."""
    if not isinstance(plain, dict) or is_too_deep(plain):
        came = "an object that is nested too deeply" if isinstance(plain, dict) else type(plain).__name__
        return Report(gaps=(f"Expected a JSON object with findings, found {came}: nothing of it was read.",))
    reader = _Reader()
    parts: dict[str, Any] = {key: reader.mapping(plain, key) for key in PARTS}
    parts["environment"] = reader.texts(parts["environment"], "environment")
    reader.whole(plain, "exit_code", "the report")  # it follows from the findings, with which _at_odds compares it
    report = Report(
        findings=tuple(map(reader.finding, reader.items(plain, "findings"))),
        measurements=tuple(map(reader.measurement, reader.items(plain, "measurements"))),
        skipped=tuple(map(reader.skipped, reader.items(plain, "skipped"))),
        subject=reader.text(plain, "subject", "the report"),
        **parts,
    )
    return replace(report, gaps=(*_at_odds(plain, report), *reader.gaps()))


class _Reader:
    """Reads typed values, and counts those that are none of the asked type."""

    def __init__(self) -> None:
        self.unreadable: Counter[tuple[str, str]] = Counter()

    def gaps(self) -> list[str]:
        return [
            f"Not read, since {kind} was expected: {what}{f' ({count} times)' if count > 1 else ''}."
            for (what, kind), count in self.unreadable.items()
        ]

    def items(self, plain: dict[str, Any], key: str) -> list[dict[str, Any]]:
        values = plain.get(key)
        if values is None:
            return []
        if not isinstance(values, list | tuple):
            self.unreadable[key, "a list"] += 1
            return []
        found = [item for item in values if isinstance(item, dict)]
        self._count(f"an entry of {key}", "an object", len(values) - len(found))
        return found

    def mapping(self, plain: dict[str, Any], key: str, of: str = "the report") -> dict[str, Any]:
        value = plain.get(key)
        self._count(f"{key} of {of}", "an object", value is not None and not isinstance(value, dict))
        return value if isinstance(value, dict) else {}

    def text(self, plain: dict[str, Any], key: str, of: str) -> str:
        value = plain.get(key)
        self._count(f"{key} of {of}", "a text", value is not None and not isinstance(value, str))
        return as_text(value)

    def texts(self, plain: dict[str, Any], of: str) -> dict[str, str]:
        found = {key: value for key, value in plain.items() if isinstance(value, str)}
        self._count(f"an entry of {of}", "a text", len(plain) - len(found))
        return found

    def number(self, plain: dict[str, Any], key: str, of: str) -> float | None:
        value = plain.get(key)
        is_number = type(value) in (int, float) or value in ("nan", "inf", "-inf")
        found = number(value) if is_number else None
        is_lost = value is not None and (found is None or (type(value) is int and found != found))
        self._count(f"{key} of {of}", "a number", is_lost)
        return None if is_lost else found

    def whole(self, plain: dict[str, Any], key: str, of: str) -> int | None:
        value = plain.get(key)
        self._count(f"{key} of {of}", "a whole number", value is not None and type(value) is not int)
        return value if type(value) is int else None

    def finding(self, plain: dict[str, Any]) -> Finding:
        of = "a finding"
        texts = {key: self.text(plain, key, of) for key in ("check", "name", "claim", "evidence", "dtype")}
        word = plain.get("verdict")
        return Finding(
            **texts,
            verdict=Verdict(word) if isinstance(word, str) and word in list(Verdict) else Verdict.UNKNOWN,
            margin=self.number(plain, "margin", of),
            samples=self.whole(plain, "samples", of),
            tolerance=self.number(plain, "tolerance", of),
            seed=self.whole(plain, "seed", of),
            seconds=self.number(plain, "seconds", of) or 0.0,
            witness=None if plain.get("witness") is None else self.mapping(plain, "witness", of),
        )

    def measurement(self, plain: dict[str, Any]) -> Measurement:
        of = "a measurement"
        check, name, words = (self.text(plain, key, of) for key in ("check", "name", "text"))
        return Measurement(check=check, name=name, value=self.number(plain, "value", of), text=words)

    def skipped(self, plain: dict[str, Any]) -> Skipped:
        of, asked_for = "a skipped check", plain.get("asked_for", True)
        check, reason = (self.text(plain, key, of) for key in ("check", "reason"))
        self._count(f"asked_for of {of}", "true or false", type(asked_for) is not bool)
        return Skipped(check=check, reason=reason, asked_for=asked_for is not False)

    def _count(self, what: str, kind: str, times: int) -> None:
        if times:
            self.unreadable[what, kind] += times


def _at_odds(plain: dict[str, Any], report: Report) -> list[str]:
    """Return, as sentences, what in the report is missing, unknown here, or at odds with itself."""
    said = []
    if schema_at_odds(plain):
        came = f"schema {printable(plain['schema'])[:20]}" if "schema" in plain else "no schema number"
        said.append(f"Expected a report of schema {SCHEMA}, found {came}: drawn as far as it is understood.")
    if missing := [key for key in _EXPECTED if key not in plain]:
        said.append(f"The report holds no {', no '.join(missing)}.")
    if unknown := report.counts.get(Verdict.UNKNOWN):
        said.append(f"Findings with a verdict that this version does not know: {unknown}.")
    code = plain.get("exit_code")
    if type(code) is int and code != report.exit_code:
        said.append(f"The report's exit code is {code}, but its findings ask for {report.exit_code}.")
    return said


def is_too_deep(plain: dict[str, Any]) -> bool:
    """Return whether lists and dictionaries lie more than ``MAX_DEPTH`` inside one another."""
    level: list[Any] = [plain]
    for _ in range(MAX_DEPTH):
        items = (inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer))
        level = [item for item in items if isinstance(item, dict | list)]
    return bool(level)
