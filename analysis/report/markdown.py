"""A report as Markdown, fit for the summary of a CI job."""

import re
from collections.abc import Sequence
from typing import Any

from analysis.findings import Finding, Verdict
from analysis.findings.values import printable
from analysis.report.quantities import quantity
from analysis.report.report import Report

# What begins a link that renderers make of plain text, here parted from it by a character without width.
_LINK_STARTS = re.compile(r"(?<=@)|(?<=#)|(?<=:)(?=//)|(?<=www)(?=\.)", re.IGNORECASE)
_SPECIAL = re.compile(r"[!-/:-@\[-`{-~]")
_PLAIN = frozenset(" ,.;:()%+=/-'\"?")


def to_markdown(report: Report) -> str:
    """Return ``report``, which may be foreign: the counts, a table of verdicts, and the evidence against what does not hold.

    Texts of the report are escaped: none ends a table's cell, and none becomes HTML, a link or a mention.
    """
    lines = [
        f"## {report.verdict.symbol} Stability audit of {escaped(report.title)}",
        "",
        *([f"> **{escaped(report.partial)}**", ""] if report.partial else []),
        report.sentence,
        "",
        *table(
            ("Count", "Verdict", "Meaning"),
            [(str(count), badge(word), word.meaning) for word, count in report.counts.items()],
        ),
    ]
    if report.findings:
        rows = [[badge(item.verdict), *_cells(item)] for item in report.worst_first]
        lines += ["", *table(("Verdict", "Check", "Claim", "Margin"), rows)]
    skipped = [f"- Check {escaped(item.check)}: {escaped(item.reason)}" for item in report.skipped]
    gaps = [f"- {escaped(gap)}" for gap in report.gaps]
    for title, said in (("Why", why(report)), ("Skipped", skipped), ("Gaps in the report", gaps)):
        if said:
            lines += ["", f"### {title}", "", *said]
    return "\n".join(lines) + "\n"


def why(report: Report) -> list[str]:
    """Return the evidence against each claim that does not hold, or that is left open, as a list."""
    return [
        f"- **{item.verdict}** {escaped(item.claim)} {escaped(item.evidence)}"
        for item in report.worst_first
        if item.verdict.must_explain
    ]


def escaped(value: Any) -> str:
    r"""Return ``value`` as one line of Markdown that shows it as it stands.

    >>> escaped("a|b <i>*c*</i>")
    'a&#124;b &#60;i&#62;&#42;c&#42;&#60;/i&#62;'
    """
    parted = _LINK_STARTS.sub("\u2060", printable(value))
    return _SPECIAL.sub(lambda found: found[0] if found[0] in _PLAIN else f"&#{ord(found[0])};", parted)


def badge(word: Verdict) -> str:
    """Return a verdict's symbol and word."""
    return f"{word.symbol} {word}"


def _cells(finding: Finding) -> list[str]:
    return [escaped(finding.check), escaped(finding.claim), escaped(quantity(finding.margin))]


def table(heads: tuple[str, ...], rows: Sequence[Any]) -> list[str]:
    """Return the lines of a table; its cells are escaped already."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ("---",) * len(heads), *rows)]
