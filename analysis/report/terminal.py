"""The verdict table in the terminal: coloured where there is one, plain text where the output is piped."""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from analysis.findings import Finding, Verdict
from analysis.findings.values import printable
from analysis.report.quantities import quantity
from analysis.report.report import Report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# Blue and red are told apart by every kind of colour vision; the word and the symbol say the same.
STYLES = {
    Verdict.PROVED: "bold cyan",
    Verdict.SUPPORTED: "cyan",
    Verdict.REFUTED: "bold red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.UNKNOWN: "yellow",
}
# Below this width evidence stands under its claim instead of beside it.
WIDE = 110
TEXT_WIDTH = 100  # of a report that is printed from Python
NAME_WIDTH = 14  # of a check's name; a longer one is folded
# A sentence ends where the next one begins: the stop in "Lemma 2. of", or in "0. 5", ends none.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z‖∥|])")


def print_verdicts(report: Report, console: "Console | None" = None) -> None:
    """Print the verdict on each claim, worst first, then measurements, skipped checks, gaps, and the counts.

    What is refuted or left open shows its evidence in full, the rest its first sentence, whole. Without a terminal there are
    neither colours nor lines; nothing exceeds the width, and what is too long for a line goes on in the next.
    """
    from stabdeq.terminal import Console

    print_everywhere(lambda console: _print_all(report, console), console or Console())


def as_text(report: Report) -> str:
    """Return what ``print_verdicts`` prints where there is no terminal."""
    from io import StringIO

    from stabdeq.terminal import Console

    text = StringIO()
    print_verdicts(report, Console(file=text, width=TEXT_WIDTH))
    return text.getvalue().strip("\n")


def print_everywhere(print_all: Callable[["Console"], None], console: "Console") -> None:
    """Print by ``print_all``; where the console is no terminal or lacks Unicode, without trailing blanks and with "?"."""
    if console.is_terminal and _speaks_unicode(console):
        print_all(console)
        return
    with console.capture() as captured:
        print_all(console)
    plain = "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
    # What the output's encoding lacks becomes "?": better than an error at the end of a long audit.
    console.file.write(plain.encode(console.encoding, "replace").decode(console.encoding))


def _print_all(report: Report, console: "Console") -> None:
    from rich.text import Text

    console.print()
    if report.findings:
        console.print(_verdict_table(report, console))
    if report.measurements:
        console.print(heading("Measured, not judged"))
        console.print(_measurement_table(report))
    skipped = [f"{item.check}: {item.reason}" for item in report.skipped if item.asked_for]
    for title, lines in (("Skipped", skipped), ("Gaps in the report", report.gaps)):
        if lines:
            console.print(heading(title))
            console.print(listed(lines))
    if report.partial:
        console.print(Text(f"\n{report.partial}", style="bold yellow"))
    console.print(_closing_line(report, console), highlight=False)


def _verdict_table(report: Report, console: "Console") -> "Table":
    from rich import box
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    is_wide = console.width >= WIDE
    table = Table(
        box=box.SIMPLE_HEAD if console.is_terminal else box.Box("    \n" * 8),
        padding=(0, 1, 0, 0),
        leading=1,
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    table.add_column("Verdict", no_wrap=True)
    table.add_column("Check", overflow="fold", max_width=NAME_WIDTH)
    table.add_column("Claim" if is_wide else "Claim and evidence", ratio=2 if is_wide else None)
    if is_wide:
        table.add_column("Evidence", ratio=3)
    for finding in report.worst_first:
        style = "" if is_wide or finding.verdict.must_explain else "dim"
        claim, evidence = Text(printable(finding.claim)), Text(_evidence(finding), style=style)
        cells = [claim, evidence] if is_wide else [Group(claim, Padding(evidence, (0, 0, 0, 2)))]
        table.add_row(badge(finding.verdict, console), Text(printable(finding.check)), *cells)
    return table


def _measurement_table(report: Report) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(overflow="fold", max_width=NAME_WIDTH)
    table.add_column(overflow="fold")
    table.add_column(justify="right", overflow="fold")
    for item in report.measurements:
        check, words = printable(item.check), printable(item.text or item.name)
        table.add_row(Text(check, style="dim"), Text(words), Text(quantity(item.value)))
    return table


def _evidence(finding: Finding) -> str:
    evidence = printable(finding.evidence) or "The report gives no evidence."
    if finding.verdict.must_explain:
        return evidence
    return _SENTENCE_END.split(evidence, maxsplit=1)[0]


def symbol(word: Verdict, console: "Console") -> str:
    """Return the symbol of a verdict, in ASCII where the console speaks no more."""
    return word.symbol if _speaks_unicode(console) else word.ascii_symbol


def badge(word: Verdict, console: "Console") -> "Text":
    """Return a verdict's symbol and word in its style."""
    from rich.text import Text

    return Text(f"{symbol(word, console)} {word}", style=STYLES[word])


def _speaks_unicode(console: "Console") -> bool:
    return console.encoding.lower().startswith("utf")


def heading(title: str) -> "Text":
    """Return the bold line above a table or a list."""
    from rich.text import Text

    return Text(f"\n{title}", style="bold")


def listed(lines: Iterable[str]) -> "Table":
    """Return ``lines``, made printable, as a list with hanging dashes."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    for line in lines:
        table.add_row("-", Text(printable(line)))
    return table


def _closing_line(report: Report, console: "Console") -> "Text":
    from rich.text import Text

    parts = [Text(f"{count} ").append(badge(word, console)) for word, count in report.counts.items()]
    return Text("\n").append(Text("   ").join(parts)).append(f"\n{report.sentence}", style="bold")
