"""``stabdeq compare``: reports side by side."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from stabdeq.arguments import require_writable
from stabdeq.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from analysis.compare import Comparison, Gap, Judged, Standing

# What a column of verdicts in words takes, the longest being "? INCONCLUSIVE", and what claims need beside them.
VERDICT_WIDTH, CLAIM_WIDTH = 15, 24


def compare(
    *reports: Path,
    out: Path | None = None,
    fail_on_difference: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Put the reports of several audits side by side: first the claims that end differently, then those that some lack.

    Parameters
    ----------
    reports
        Two or more report.json that "stabdeq audit" wrote; they are read as data.
    out
        Write the comparison as a page to this file, such as compare.html.
    fail_on_difference
        Exit with 1 where a claim ends differently, says something else, or is not in every report: of one model judged twice, say.
    """
    if len(reports) < 2:
        raise ConfigError("compare takes two or more reports: stabdeq compare A/report.json B/report.json")
    if out is not None and os.path.realpath(out) in map(os.path.realpath, reports):
        raise ConfigError(f"--out {out} is one of the reports: name another file")
    require_writable("--out", out, reports[0])

    from analysis.compare import Standing, compare_reports, render_comparison
    from analysis.report.reading import read_report
    from stabdeq.errors import ReportError
    from stabdeq.files import encoded, replace_file
    from stabdeq.terminal import Console

    read = [read_report(path) for path in reports]
    for path, report in zip(reports, read, strict=True):
        if not report.findings:
            raise ReportError(f"{path} holds no findings: give the report.json that 'stabdeq audit' wrote")
    comparison = compare_reports(read, [str(path) for path in reports])
    console = Console()
    print_comparison(comparison, console)
    if out is not None:
        replace_file(out, encoded(render_comparison(comparison)))
        console.print(f"wrote {out}", soft_wrap=True, highlight=False)
    return int(fail_on_difference and any(row.standing is not Standing.ALIKE for row in comparison.claims))


def print_comparison(comparison: "Comparison", console: "Console") -> None:
    """Print the models by letter, tables of verdicts, what differs first, one of measurements, and what is not comparable.

    Verdicts stand in words with their margins where the width allows, else as symbols.
    """
    from analysis.report.terminal import print_everywhere

    print_everywhere(lambda console: _print_all(comparison, console), console)


def _print_all(comparison: "Comparison", console: "Console") -> None:
    from rich.text import Text

    from analysis.report.terminal import heading, listed

    console.print()
    console.print(_models(comparison))
    is_wide = console.width >= CLAIM_WIDTH + VERDICT_WIDTH * len(comparison.models)
    for standing in comparison.standings:
        console.print(heading(standing))
        console.print(_verdicts(comparison, standing, console, is_wide))
    if comparison.claims:
        console.print(_legend(console, is_wide))
    if comparison.skipped:
        console.print(heading("Skipped"))
        console.print(listed(comparison.skipped))
    if any(group.measured for group in comparison.groups):
        console.print(heading("Measured, not judged"))
        console.print(_measurements(comparison, console))
    if comparison.warnings:
        console.print(heading("Not comparable as they stand"))
        console.print(listed(comparison.warnings))
    console.print(Text(f"\n{comparison.sentence}", style="bold"))


def _models(comparison: "Comparison") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for _ in ("letter", "title", "source"):
        table.add_column(overflow="fold")
    for model in comparison.models:
        table.add_row(Text(model.letter, style="bold"), Text(model.title), Text(model.source, style="dim"))
    return table


def _new_table(comparison: "Comparison", console: "Console", first: str) -> "Table":
    """Return a table with a column of that name and one for each model."""
    from rich import box
    from rich.table import Table

    lines = box.SIMPLE_HEAD if console.is_terminal else box.Box("    \n" * 8)
    table = Table(box=lines, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for model in comparison.models:
        table.add_column(model.letter, overflow="fold")
    return table


def _verdicts(comparison: "Comparison", standing: "Standing", console: "Console", is_wide: bool) -> "Table":
    from rich.text import Text

    table = _new_table(comparison, console, "Claim")
    for group in comparison.groups:
        for row in group.rows(standing):
            name = Text(row.title, style="bold" if row.differs else "").append(f"\n{row.name}", style="not bold dim")
            if row.is_worded_otherwise:
                name.append(f"\n{row.sentences}", style="not bold")
            table.add_row(name, *(_cell(cell, console, is_wide) for cell in row.cells))
    return table


def _cell(cell: "Judged | Gap", console: "Console", is_wide: bool) -> "Text":
    from rich.text import Text

    from analysis.compare import Gap
    from analysis.report.terminal import STYLES, badge, symbol

    if isinstance(cell, Gap):
        return Text(cell if is_wide else "-" if cell is Gap.NOT_CLAIMED else ".", style="dim")
    if not is_wide:
        return Text(symbol(cell.verdict, console), style=STYLES[cell.verdict])
    return badge(cell.verdict, console).append(f"\n{cell.margin}" if cell.margin else "", style="not bold dim")


def _legend(console: "Console", is_wide: bool) -> "Text":
    from rich.text import Text

    from analysis.findings import Verdict
    from analysis.report.terminal import badge

    if is_wide:
        said = "The margin, under a verdict, is positive where the claim holds, to rounding."
        return Text(f"\n{said}", style="dim")
    words = [badge(word, console) for word in Verdict if word is not Verdict.UNKNOWN]
    return Text("\n").append(Text("   ").join([*words, Text("- not claimed"), Text(". not judged")]))


def _measurements(comparison: "Comparison", console: "Console") -> "Table":
    from rich.text import Text

    table = _new_table(comparison, console, "Number")
    for group in comparison.groups:
        for row in group.measured:
            table.add_row(Text(f"{group.check}: {row.title}"), *(Text(value) for value, _ in row.cells))
    return table
