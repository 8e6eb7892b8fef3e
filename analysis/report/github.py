"""A report in a job of GitHub Actions: an annotation for each claim that does not hold, and the job's summary."""

import os
from pathlib import Path

from analysis.findings import Verdict
from analysis.findings.values import printable
from analysis.report.report import Report
from stabdeq.errors import ConfigError

SUMMARY = "GITHUB_STEP_SUMMARY"


def summary_file() -> Path:
    """Return the file that the job's summary is appended to; raise ConfigError where this is no job of GitHub Actions."""
    named = os.environ.get(SUMMARY)
    if not named:
        raise ConfigError(
            f"--github is for a job of GitHub Actions, which sets {SUMMARY}; it is not set here: leave it out"
        )
    return Path(named)


def annotations(report: Report) -> list[str]:
    """Return a workflow command for each claim of ``report``, which may be foreign, that is refuted or could not be settled.

    >>> annotations(Report.parse({"findings": [{"check": "decay", "name": "a", "claim": "V falls.", "verdict": "REFUTED"}]}))
    ['::error title=stabdeq decay.a REFUTED::V falls. ']
    """
    return [
        f"::{'error' if item.verdict is Verdict.REFUTED else 'warning'} "
        f"title={_property(f'stabdeq {name} {item.verdict}')}::{_data(f'{printable(item.claim)} {printable(item.evidence)}')}"
        for name, item in report.named.items()
        if item.verdict.must_explain
    ]


def _data(text: str) -> str:
    return text.replace("%", "%25")  # printable text has no line breaks


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
