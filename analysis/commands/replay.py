"""``stabdeq replay``: its arguments, and what it prints."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.checks.witness import NotReplayableError, Replay
    from analysis.replay import Fetch
    from stabdeq.checkpoint import Checkpoint

    Row = tuple[str, "Replay | NotReplayableError"]


def replay(
    report: Path, *, finding: str | None = None, checkpoint: Path | None = None, data_dir: Path | None = None
) -> None:
    """Evaluate the witnesses of a report's refuted claims anew, on the checkpoint that the report names.

    Exits with 0 where every witness refutes its claim again, 1 where one does not, 3 where one cannot be replayed, 2 on a usage
    error.

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
    from rich.console import Console
    from rich.text import Text

    from analysis.checks.witness import NotReplayableError
    from analysis.replay import Replayer
    from analysis.report.reading import read_report

    told = read_report(report)
    chosen = _refuted(report, told, finding)
    loaded = _load(told, report, checkpoint)
    replayer = Replayer(report=told, model=loaded.model, fetch=_fetch_from(loaded, data_dir))
    console = Console()
    rows: list[Row] = []
    for name, item in chosen.items():
        with console.status(Text(f"replaying {name}")):
            try:
                rows.append((name, replayer.replay(item)))
            except NotReplayableError as error:
                rows.append((name, error))
    raise SystemExit(_conclude(rows, console))


def _refuted(path: Path, report: dict[str, Any], name: str | None) -> dict[str, dict[Any, Any]]:
    """Return the refuted findings of ``report`` by their ids, or the one of them that is called ``name``."""
    from analysis.findings.values import mappings, printable
    from analysis.report.reading import SCHEMA, ReportError, finding_ids, verdict
    from stabdeq.errors import ConfigError, closest

    if type(report.get("schema")) is not int or report["schema"] != SCHEMA:
        came = printable(report.get("schema", "none"))[:20]
        raise ReportError(f"{path}: expected a report of schema {SCHEMA}, found {came}: audit anew with this version")
    named = dict(zip(finding_ids(report), mappings(report.get("findings")), strict=True))
    refuted = {key: item for key, item in named.items() if verdict(item) == "REFUTED"}
    if not refuted:
        raise ConfigError(f"{path}: no finding is refuted, so there is no witness to replay")
    if name is None:
        return refuted
    if name not in refuted:
        was = f"is {verdict(named[name])}, not refuted" if name in named else "is no finding of this report"
        raise ConfigError(f"--finding {name}: it {was}: {closest(name, refuted)}")
    return {name: refuted[name]}


def _load(report: dict[str, Any], path: Path, given: Path | None) -> "Checkpoint":
    """Return the checkpoint at ``given``, or where the report says, or beside the report; only one of the report's SHA-256."""
    from hashlib import file_digest

    from analysis.findings.values import mapping, printable
    from stabdeq.checkpoint import load_checkpoint
    from stabdeq.errors import CheckpointError

    told = mapping(report.get("checkpoint"))
    named, expected = printable(told.get("path")), printable(told.get("sha256"))
    if not named or not expected:
        raise CheckpointError(
            f"{path}: names no checkpoint with its SHA-256, as an audit in Python: replay it in Python"
        )
    places = [given] if given else [Path(named), path.parent / named, path.parent / Path(named).name]
    digests = {}
    try:
        # A report may name any file of this machine: only what may be a checkpoint is opened.
        for place in dict.fromkeys(places):
            if place.is_file() and (given or place.suffix == ".safetensors"):
                with place.open("rb") as file:
                    digests[place] = file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"{named[:200]}: cannot be read ({error.strerror}): say with --checkpoint where the checkpoint lies"
        ) from None
    for place, digest in digests.items():
        if digest == expected:
            return load_checkpoint(place)
    if not digests:
        raise CheckpointError(f"{given or named}: no such file: say with --checkpoint where the checkpoint lies")
    raise CheckpointError(
        f"{next(iter(digests))}: its SHA-256 is not that of the report, {expected[:64]}: not the checkpoint that was audited; "
        "say with --checkpoint where that lies"
    )


def _fetch_from(loaded: "Checkpoint", data_dir: Path | None) -> "Fetch":
    """Return what gives test images of the checkpoint's data set, read where the first ones are asked for."""
    from functools import cache

    import torch
    from torch import Tensor

    from analysis.checks.witness import NotReplayableError
    from stabdeq.data import Split, load_data, to_unit

    @cache
    def read() -> Split:
        return load_data(loaded.data, data_dir=data_dir).test

    def fetch(places: list[int]) -> tuple[Tensor, Tensor]:
        test = read()
        if max(places) >= len(test):
            raise NotReplayableError(f"the report names an image beyond the {len(test)} test images: other data?")
        return to_unit(test.images[places], torch.float64), test.labels[places]

    return fetch


def _conclude(rows: "list[Row]", console: "Console") -> int:
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
    table.add_column("Finding", no_wrap=True, max_width=36)
    table.add_column("Measured")
    table.add_column("Report", justify="right")
    table.add_column("Now", justify="right")
    table.add_column("Refutes again?")
    for name, outcome in rows:
        if isinstance(outcome, Replay):
            cells = [outcome.quantity, quantity(outcome.reported), quantity(outcome.now)]
        else:
            cells = [str(outcome), "", ""]
        table.add_row(*map(Text, (name, *cells, _word(outcome))))
    print_everywhere(lambda console: console.print(table), console)
    replayed = [outcome for _, outcome in rows if isinstance(outcome, Replay)]
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
