"""``stabdeq verify``: its arguments, and what it prints."""

from pathlib import Path
from typing import TYPE_CHECKING

from stabdeq.arguments import Quiet, Trusted

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.verify import Difference, Verification

LONGEST = 4000  # characters of a sentence: more than evidence of ours has, so that both are seen where they differ


def verify(
    checkpoint: Path, report: Path, *, data_dir: Path | None = None, trusted: Trusted = False, quiet: Quiet = False
) -> int:
    """Judge a checkpoint again as its report says that it was judged, and compare claim by claim.

    Takes as long as the audit did.

    Parameters
    ----------
    checkpoint
        The checkpoint.safetensors that the report is about; its SHA-256 must be the report's.
    report
        A report.json that "stabdeq audit" or "stabdeq certify --json" wrote; it is not trusted.
    data_dir
        Where the data set lies, for sets that are not embedded.
    """
    from rich.text import Text

    from analysis.verify import verify as repeat
    from stabdeq.terminal import Console

    with Console(stderr=True, quiet=quiet).status("judging again") as status:
        found = repeat(
            checkpoint,
            report,
            data_dir=data_dir,
            trusted=trusted,
            on_step=lambda words: status.update(Text(f"judging again: {words}")),
        )
    _show(found, Console())
    return found.exit_code


def _show(found: "Verification", console: "Console") -> None:
    from rich.text import Text

    from analysis.report.terminal import print_everywhere

    def print_all(console: "Console") -> None:
        for title, decides in (
            ("Not as the report says", True),
            ("Otherwise than in the report, which decides nothing", False),
        ):
            rows = [one for one in found.differences if one.decides == decides]
            if rows:
                console.print(Text(f"\n{title}", style="bold"))
                console.print(_table(rows, console))
        if found.again.partial:
            console.print(Text(f"\n{found.again.partial}", style="bold yellow"))
        console.print(Text(f"\n{_sentence(found)}", style="bold"))

    print_everywhere(print_all, console)


def _table(rows: "list[Difference]", console: "Console") -> object:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from analysis.findings.values import printable
    from analysis.report.quantities import cut

    lines = box.SIMPLE_HEAD if console.is_terminal else box.Box("    \n" * 8)
    table = Table(box=lines, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for heading in ("What", "Report", "Now"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cut(printable(text), LONGEST)) for text in (row.what, row.reported, row.now)))
    return table


def _sentence(found: "Verification") -> str:
    from analysis.verify import evidence_of

    names = {**found.report.named, **found.again.named}
    differing = {one.what for one in found.differences if one.decides}
    same = len(names.keys() - differing)
    ends = f"{same} of {len(names)} claims end as the report says"
    if found.holds:
        others = len({evidence_of(name) for name in names} & {one.what for one in found.differences})
        but = f", but for the evidence of {others}, which decides nothing: compare both above" if others else ""
        return f"{ends}: it is repeated{but}."
    others = len(differing - names.keys())
    return f"{ends}{f', and {others} other things are not as it says' if others else ''}: it is not repeated."
