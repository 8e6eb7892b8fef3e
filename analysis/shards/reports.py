"""The report of one process, joined of the reports of all shards."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from analysis.report.report import Named, Report
from analysis.shards.part import Part, differences
from analysis.shards.work import Work, digests, timeless_environment
from stabdeq.errors import ShardError
from stabdeq.shard import Shard


def report_part(work: Work, shard: Shard, units: Sequence[str], report: Report, order: Sequence[str] = ()) -> Part:
    """Return the part of ``shard``, whose ``report`` is of its own of the ``units``: checks, several of them with commas between.

    The whole report has the checks in ``order``, by default that of the units.
    """
    read = digests(work) | {"images": report.sample.get("sha256")}
    read |= {"subject": report.checkpoint["sha256"]} if report.checkpoint.get("sha256") else {}
    plain = {"units": list(units), "order": list(order) or _checks(units)}
    plain |= {"files": read, "environment": timeless_environment()}
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
        findings=_in_order(chain.from_iterable(report.findings for report in reports), order),
        measurements=_in_order(chain.from_iterable(report.measurements for report in reports), order),
        skipped=(
            *_in_order((item for report in reports for item in report.skipped if item.asked_for), order),
            *(item for item in first.skipped if not item.asked_for),  # of the whole work, in each part
        ),
        series={check: series.pop(check) for check in order if check in series} | series,
        certificates={name: value for report in reports for name, value in report.certificates.items()},
        images=dict(sorted(images.items(), key=lambda item: int(item[0]))),
        environment=first.environment | {"date": min(str(report.environment.get("date")) for report in reports)},
    )


def _report_of(part: Part) -> Report:
    report = Report.parse(part.result)
    own = _checks(part.units)
    asked_for = [item for item in report.skipped if item.asked_for]
    told = {item.check for item in (*report.findings, *report.measurements, *asked_for)}
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
    return list(chain.from_iterable(unit.split(",") for unit in units))


def _in_order(items: Iterable[Named], order: list[str]) -> tuple[Named, ...]:
    return tuple(sorted(items, key=lambda item: order.index(item.check)))
