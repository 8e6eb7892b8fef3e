"""A report as Markdown, fit for the summary of a CI job."""

import re
from typing import Any

from analysis.findings.values import mappings, printable
from analysis.report.page import MEANINGS, title_of
from analysis.report.quantities import quantity
from analysis.report.reading import findings_worst_first, gaps, outcome, verdict, verdict_counts
from analysis.report.terminal import MUST_EXPLAIN, SYMBOLS

# What begins a link that renderers make of plain text, here parted from it by a character without width.
_LINK_STARTS = re.compile(r"(?<=@)|(?<=#)|(?<=:)(?=//)|(?<=www)(?=\.)", re.IGNORECASE)
_SPECIAL = re.compile(r"[!-/:-@\[-`{-~]")
_PLAIN = frozenset(" ,.;:()%+=/-'\"?")


def to_markdown(report: dict[str, Any]) -> str:
    """Return ``report``, which may be foreign: the counts, a table of verdicts, and the evidence against what does not hold.

    Texts of the report are escaped: none ends a table's cell, and none becomes HTML, a link or a mention.
    """
    counts = verdict_counts(report)
    deciding, sentence = outcome(report)
    findings = findings_worst_first(report)
    lines = [f"## {SYMBOLS[deciding]} Stability audit of {escaped(title_of(report))}", "", sentence, ""]
    lines += _table(
        ("Count", "Verdict", "Meaning"),
        [(str(count), _badge(word), MEANINGS[word]) for word, count in counts.items()],
    )
    if findings:
        rows = [[_badge(verdict(item)), *_cells(item)] for item in findings]
        lines += ["", *_table(("Verdict", "Check", "Claim", "Margin"), rows)]
    failing = [item for item in findings if verdict(item) in MUST_EXPLAIN]
    if failing:
        lines += ["", "### Why", ""]
        lines += [
            f"- **{verdict(item)}** {escaped(item.get('claim'))} {escaped(item.get('evidence'))}" for item in failing
        ]
    skipped = [
        f"- Check {escaped(item.get('check'))}: {escaped(item.get('reason'))}"
        for item in mappings(report.get("skipped"))
    ]
    for title, said in (("Skipped", skipped), ("Gaps in the report", [f"- {escaped(gap)}" for gap in gaps(report)])):
        if said:
            lines += ["", f"### {title}", "", *said]
    return "\n".join(lines) + "\n"


def escaped(value: Any) -> str:
    r"""Return ``value`` as one line of Markdown that shows it as it stands.

    >>> escaped("a|b <i>*c*</i>")
    'a&#124;b &#60;i&#62;&#42;c&#42;&#60;/i&#62;'
    """
    parted = _LINK_STARTS.sub("\u2060", printable(value))
    return _SPECIAL.sub(lambda found: found[0] if found[0] in _PLAIN else f"&#{ord(found[0])};", parted)


def _badge(word: str) -> str:
    return f"{SYMBOLS[word]} {word}"


def _cells(finding: dict[Any, Any]) -> list[str]:
    return [escaped(finding.get("check")), escaped(finding.get("claim")), escaped(quantity(finding.get("margin")))]


def _table(heads: tuple[str, ...], rows: list[Any]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ("---",) * len(heads), *rows)]
