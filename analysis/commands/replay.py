"""``stabdeq replay``: its arguments, and what it prints."""

from pathlib import Path
from typing import TYPE_CHECKING

from stabdeq.arguments import Quiet, Trusted

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.checks.witness import Replay
    from stabdeq.errors import NotReplayableError

    Row = tuple[str, "Replay | NotReplayableError"]


def replay(
    report: Path,
    *,
    finding: str | None = None,
    checkpoint: Path | None = None,
    data_dir: Path | None = None,
    trusted: Trusted = False,
    quiet: Quiet = False,
) -> int:
    """Evaluate the witnesses of a report's refuted claims anew, on the checkpoint that the report names.

    Parameters
    ----------
    report
        A report.json that "stabdeq audit" wrote; it is not trusted.
    finding
        Which finding, such as decay.stabilised; all refuted ones by default. For an indicator of robustness that whole check is
        run again on the same images: a minute or more, once for all indicators.
    checkpoint
        Where the checkpoint lies, if not where the report says; its SHA-256 must be the report's all the same.
    data_dir
        Where the data set lies, for sets that are not embedded.
    """
    from rich.text import Text

    from analysis.replay import replay as replay_report
    from stabdeq.terminal import Console

    with Console(stderr=True, quiet=quiet).status("replaying") as status:
        results = replay_report(
            report,
            finding=finding,
            checkpoint=checkpoint,
            data_dir=data_dir,
            trusted=trusted,
            on_finding=lambda name: status.update(Text(f"replaying {name}")),
        )
    return _conclude(results, Console())


def _conclude(rows: "dict[str, Replay | NotReplayableError]", console: "Console") -> int:
    """Print what became of each witness; return the exit code."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from analysis.checks.witness import Replay
    from analysis.report.quantities import quantity
    from analysis.report.terminal import print_everywhere

    table = Table(
        box=box.SIMPLE_HEAD if console.is_terminal else box.Box("    \n" * 8), pad_edge=False, show_edge=False
    )
    table.add_column("Finding", overflow="fold", width=min(36, max(map(len, rows), default=0)))
    table.add_column("Measured")
    table.add_column("Report", justify="right")
    table.add_column("Now", justify="right")
    table.add_column("Refutes again?")
    for name, outcome in rows.items():
        if isinstance(outcome, Replay):
            cells = [outcome.quantity, quantity(outcome.reported), quantity(outcome.now)]
        else:
            cells = [str(outcome), "", ""]
        table.add_row(*map(Text, (name, *cells, _word(outcome))))
    print_everywhere(lambda console: console.print(table), console)
    replayed = [outcome for outcome in rows.values() if isinstance(outcome, Replay)]
    again = sum(outcome.refutes for outcome in replayed)
    console.print(f"\n{again} of {len(rows)} witnesses refute their claim again.", highlight=False)
    if again < len(replayed):
        return 1
    return 3 if len(replayed) < len(rows) else 0


def _word(outcome: "Replay | NotReplayableError") -> str:
    from analysis.checks.witness import Replay

    if not isinstance(outcome, Replay):
        return "cannot be replayed"
    if not outcome.refutes:
        return "NO"
    return "yes" if outcome.is_same_amount else "yes, by another amount"
