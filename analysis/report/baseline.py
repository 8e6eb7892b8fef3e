"""Findings that are known: a report of before, less than which a new one must not be."""

from dataclasses import replace

from analysis.findings import Finding, Verdict
from analysis.report.report import Report

_SEVERITY = {Verdict.REFUTED: 2, Verdict.INCONCLUSIVE: 1, Verdict.UNKNOWN: 1}


def new_or_worse(report: Report, baseline: Report) -> Report:
    """Return ``report`` less the findings that end no worse than those of ``baseline`` do.

    Refuted is worse than inconclusive, and that worse than supported or proved. A finding is the one of ``baseline`` that has its check,
    its name and its claim, word for word; any other is new.
    """
    known = {(name, item.claim): _severity(item) for name, item in baseline.named.items()}
    left = [item for name, item in report.named.items() if _severity(item) > known.get((name, item.claim), 0)]
    return replace(report, findings=tuple(left))


def gone(report: Report, baseline: Report) -> tuple[Finding, ...]:
    """Return the findings of ``baseline`` that held and of whose name ``report`` has none, as inconclusive: here they were not judged."""
    left = [item for name, item in baseline.named.items() if name not in report.named and not _severity(item)]
    said = "It held in the baseline, and was not judged here."
    return tuple(replace(item, verdict=Verdict.INCONCLUSIVE, evidence=said, witness=None) for item in left)


def _severity(finding: Finding) -> int:
    return _SEVERITY.get(finding.verdict, 0)
