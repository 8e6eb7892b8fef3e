"""The verdict table in the terminal: coloured where there is one, plain text where the output is piped."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from analysis.findings.values import mappings, printable
from analysis.report.quantities import quantity
from analysis.report.reading import findings_worst_first, gaps, outcome, verdict, verdict_counts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# Blue and red are told apart by every kind of colour vision; the word and the symbol say the same.
STYLES = {
    "PROVED": "bold cyan",
    "SUPPORTED": "cyan",
    "REFUTED": "bold red",
    "INCONCLUSIVE": "yellow",
    "UNKNOWN": "yellow",
}
SYMBOLS = {"PROVED": "✓", "SUPPORTED": "◐", "REFUTED": "✗", "INCONCLUSIVE": "?", "UNKNOWN": "?"}
ASCII_SYMBOLS = {"PROVED": "+", "SUPPORTED": "~", "REFUTED": "x", "INCONCLUSIVE": "?", "UNKNOWN": "?"}
MUST_EXPLAIN = frozenset({"REFUTED", "INCONCLUSIVE", "UNKNOWN"})

# Below this width evidence stands under its claim instead of beside it.
WIDE = 110
_SHORT_EVIDENCE = 100


def print_verdicts(report: dict[str, Any], console: "Console | None" = None) -> None:
    """Print the verdict on each claim, worst first, then measurements, skipped checks, gaps, and the counts.

    ``report`` is the dictionary of ``report.json``. What is refuted or left open shows its evidence in full, the
    rest its first sentence. Without a terminal there are neither colours nor lines; nothing exceeds the width.
    """
    from rich.console import Console

    print_everywhere(lambda console: _print_all(report, console), console or Console())


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


def _print_all(report: dict[str, Any], console: "Console") -> None:
    console.print()
    if findings_worst_first(report):
        console.print(_verdict_table(report, console))
    if mappings(report.get("measurements")):
        console.print(heading("Measured, not judged"))
        console.print(_measurement_table(report))
    skipped = [f"{_text(item, 'check')}: {_text(item, 'reason')}" for item in mappings(report.get("skipped"))]
    for title, lines in (("Skipped", skipped), ("Gaps in the report", gaps(report))):
        if lines:
            console.print(heading(title))
            console.print(listed(lines))
    console.print(_closing_line(report, console), highlight=False)


def _verdict_table(report: dict[str, Any], console: "Console") -> "Table":
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
    table.add_column("Check", no_wrap=True, max_width=14)
    table.add_column("Claim" if is_wide else "Claim and evidence", ratio=2 if is_wide else None)
    if is_wide:
        table.add_column("Evidence", ratio=3)
    for finding in findings_worst_first(report):
        word = verdict(finding)
        style = "" if is_wide or word in MUST_EXPLAIN else "dim"
        claim, evidence = Text(_text(finding, "claim")), Text(_evidence(finding), style=style)
        cells = [claim, evidence] if is_wide else [Group(claim, Padding(evidence, (0, 0, 0, 2)))]
        table.add_row(badge(word, console), Text(_text(finding, "check")), *cells)
    return table


def _measurement_table(report: dict[str, Any]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True, max_width=14)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    for item in mappings(report.get("measurements")):
        value = Text(quantity(item.get("value")))
        table.add_row(Text(_text(item, "check"), style="dim"), Text(_text(item, "text") or _text(item, "name")), value)
    return table


def _evidence(finding: dict[Any, Any]) -> str:
    evidence = _text(finding, "evidence") or "The report gives no evidence."
    if verdict(finding) in MUST_EXPLAIN:
        return evidence
    first = evidence.split(". ")[0].rstrip(".")
    return first + "." if len(first) <= _SHORT_EVIDENCE else first[:_SHORT_EVIDENCE].rsplit(" ", 1)[0] + " …"


def symbol(word: str, console: "Console") -> str:
    """Return the symbol of a verdict, in ASCII where the console speaks no more."""
    return (SYMBOLS if _speaks_unicode(console) else ASCII_SYMBOLS)[word]


def badge(word: str, console: "Console") -> "Text":
    """Return a verdict's symbol and word in its style."""
    from rich.text import Text

    return Text(f"{symbol(word, console)} {word}", style=STYLES[word])


def _speaks_unicode(console: "Console") -> bool:
    return console.encoding.lower().startswith("utf")


def heading(title: str) -> "Text":
    """Return the bold line above a table or a list."""
    from rich.text import Text

    return Text(f"\n{title}", style="bold")


def listed(lines: list[str]) -> "Table":
    """Return ``lines``, made printable, as a list with hanging dashes."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    for line in lines:
        table.add_row("-", Text(printable(line)))
    return table


def _closing_line(report: dict[str, Any], console: "Console") -> "Text":
    from rich.text import Text

    counts = [(word, count) for word, count in verdict_counts(report).items()]
    parts = [Text(f"{count} ").append(badge(word, console)) for word, count in counts]
    return Text("\n").append(Text("   ").join(parts)).append(f"\n{outcome(report)[1]}", style="bold")


def _text(item: dict[Any, Any], key: str) -> str:
    return printable(item.get(key))
