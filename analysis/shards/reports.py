"""The report of one process, joined of the reports of all shards."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from analysis.findings import Finding, Skipped
from analysis.findings.catalogue import CHECKS
from analysis.findings.finding import NOT_JUDGED
from analysis.report.report import Named, Report
from analysis.shards.part import Part, differences
from analysis.shards.work import Work, files_read, timeless_environment
from stabdeq.errors import ShardError
from stabdeq.shard import Shard


def report_part(work: Work, shard: Shard, units: Sequence[str], report: Report, order: Sequence[str] = ()) -> Part:
    """Return the part of ``shard``, whose ``report`` is of its own of the ``units``: checks, several with commas between, or "CHECK:PIECE".

    The whole report has the checks in ``order``, by default that of the units. Raises ShardError where code was changed meanwhile.
    """
    loaded = {"images": report.sample.get("sha256")}
    loaded |= {"subject": report.checkpoint["sha256"]} if report.checkpoint.get("sha256") else {}
    plain = {"units": list(units), "order": list(order) or _checks(units)}
    plain |= {"files": files_read(work, loaded), "environment": timeless_environment()}
    return Part(shard=shard, work=work.plain | plain, result=json.loads(report.to_json()))


def joined_report(parts: Sequence[Part]) -> Report:
    """Return the report of one process, from all ``parts`` of a work.

    Raises ShardError where a part is no report of its own units, or of another subject than the first.
    """
    try:
        reports = [_report_of(part) for part in parts]
        for part, report in zip(parts, reports, strict=True):
            if said := next(differences(_subject(report), _subject(reports[0])), ""):
                raise ShardError(f"shard {part.shard} reports on another subject: {said}: run it again")
        return _joined(reports, parts[0].work["order"])
    except ShardError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ShardError("a part holds no report of its checks: run all shards again") from None


def _joined(reports: Sequence[Report], order: list[str]) -> Report:
    first = reports[0]
    series: dict[str, dict[str, Any]] = {}
    for report in reports:
        for check, numbers in report.series.items():
            series.setdefault(check, {}).update(numbers)
    images = {place: image for report in reports for place, image in report.images.items()}
    return replace(
        first,
        findings=_in_order(_once(chain.from_iterable(report.findings for report in reports)), order),
        measurements=_in_order(chain.from_iterable(report.measurements for report in reports), order),
        skipped=(
            *_in_order(dict.fromkeys(item for report in reports for item in report.skipped if item.asked_for), order),
            *(item for item in first.skipped if not item.asked_for),  # of the whole work, in each part
        ),
        series={check: _by_pieces(check, series.pop(check)) for check in order if check in series} | series,
        certificates={name: value for report in reports for name, value in report.certificates.items()},
        images=dict(sorted(images.items(), key=lambda item: int(item[0]))),
        environment=first.environment | {"date": min(str(report.environment.get("date")) for report in reports)},
    )


def _report_of(part: Part) -> Report:
    report = Report.parse(part.result)
    own = _checks(part.units)
    asked_for = [item for item in report.skipped if item.asked_for]
    told = {item.check for item in (*report.findings, *report.measurements, *asked_for)}
    told |= {
        check for check in own if any(unit.startswith(f"{check}:") for unit in part.units) and check in report.series
    }
    # A certificate may say nothing of a claim; an audit and a check of a function do, of each that is asked for.
    silent = part.work["command"] != "certify" and told != set(own)
    if report.gaps or silent or not told <= set(own):
        raise ShardError(f"shard {part.shard} holds no report of {', '.join(own) or 'nothing'}: run it again")
    return report


def _subject(report: Report) -> dict[str, Any]:
    """Return what the reports of all shards have in common."""
    named = {name: getattr(report, name) for name in ("subject", "command", "checkpoint", "sample")}
    return named | {"environment": {name: value for name, value in report.environment.items() if name != "date"}}


def _checks(units: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(check for unit in units for check in unit.partition(":")[0].split(",")))


def _in_order(items: Iterable[Named], order: list[str]) -> tuple[Named, ...]:
    """Return ``items`` in the order of their checks, and those of one check in that of its pieces."""
    return tuple(sorted(items, key=lambda item: (order.index(item.check), _place(item))))


def _place(item: Named) -> int:
    return 0 if isinstance(item, Skipped) else _piece(item.check, item.name)


def _piece(check: str, name: str) -> int:
    """Return in which piece of ``check`` what is called ``name`` is made."""
    pieces = CHECKS[check].pieces if check in CHECKS else {}
    return next((place for place, names in enumerate(pieces.values()) if name in names), 0)


def _by_pieces(check: str, series: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(series.items(), key=lambda item: _piece(check, item[0])))


def _once(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings; that a check could not be made, which the shard of each of its pieces says, once."""
    open_ones: set[str] = set()
    for finding in findings:
        if finding.name != NOT_JUDGED or finding.check not in open_ones:
            yield finding
        open_ones |= {finding.check} if finding.name == NOT_JUDGED else set()
