"""What ``audit``, ``certify`` and ``check`` do with a report in CI: what is known from a baseline, GitHub's summary, the exit code."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from analysis.report.baseline import gone, new_or_worse
from analysis.report.github import annotations, summary_file
from analysis.report.markdown import to_markdown
from analysis.report.reading import read_report
from analysis.report.report import Report
from stabdeq.files import append_line


@dataclass(frozen=True)
class InCI:
    """The report of findings that are known, and the file of the job's summary; None where not asked for."""

    baseline: Report | None
    summary: Path | None

    @classmethod
    def asked(cls, baseline: Path | None, github: bool) -> "InCI":
        """Return what the options ask for; made before the work, so that it refuses then what cannot be read or is not there."""
        known = None if baseline is None else read_report(baseline, of_this_schema=True)
        return cls(known, summary_file() if github else None)

    def exit_code(self, report: Report, require: Literal["proved"] | None = None) -> int:
        """Tell GitHub of ``report``, say how much of it the baseline knows, and return the exit code, which the rest decides.

        Raises FileError where the summary cannot be written.
        """
        known, shown = self.baseline, to_markdown(report)
        required = report.require(require) if require else report
        deciding, lost = required, ()
        if known:
            # Worse as it was judged, or by what is required: requiring a proof makes SUPPORTED and INCONCLUSIVE alike.
            worse = new_or_worse(report, known).named.keys()
            worse |= new_or_worse(required, known.require(require) if require else known).named.keys()
            lost = gone(report, known)
            named = required.named.items()
            deciding = replace(required, findings=(*(item for name, item in named if name in worse), *lost))
        report = required
        if self.summary is not None:
            for line in annotations(deciding):
                print(line)
            append_line(self.summary, shown)
        if known is None:
            return report.exit_code
        found = sum(item.verdict.must_explain for item in report.findings)
        new = len(deciding.findings) - len(lost)
        print(f"Beside the baseline: {new} of {found} claims that do not hold are new or worse.")
        if lost:
            print(f"Held in the baseline, not judged here: {', '.join(f'{item.check}.{item.name}' for item in lost)}.")
        return deciding.exit_code if deciding.findings or not report.findings else 0
