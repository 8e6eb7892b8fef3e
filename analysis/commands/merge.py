"""``stabdeq merge``: its arguments, and what it prints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from analysis.shards.part import Part
    from stabdeq.terminal import Console


def merge(folder: Path, *, out: Annotated[Path, Parameter(show_default=False)]) -> int:
    """Join the parts that all shards of one work wrote: the result is that of one process.

    Parameters
    ----------
    folder
        The folder that --shard wrote into, of "stabdeq audit", "attack", "certify" or "check". Each shard must be there, whole, and of
        the same checkpoint, options, images and versions.
    out
        Where to write report.json and report.html, or attack.json.
    """
    from analysis.shards.folder import parts_in
    from stabdeq.terminal import Console

    parts = parts_in(folder)
    show = _attack if parts[0].work["command"] == "attack" else _report
    return show(parts, out, Console(highlight=False))


def _attack(parts: "list[Part]", out: Path, console: "Console") -> int:
    from analysis.shards.attacks import joined_attack
    from stabdeq.files import make_folder, replace_file

    result = joined_attack(parts)
    make_folder(out)
    replace_file(out / "attack.json", result.to_json().encode())  # before the rest: printing may fail
    result.show(console)
    console.print(f"wrote {out / 'attack.json'}", soft_wrap=True)
    return 0


def _report(parts: "list[Part]", out: Path, console: "Console") -> int:
    from analysis.report.terminal import print_verdicts
    from analysis.shards.reports import joined_report

    report = joined_report(parts)
    paths = report.save(out)
    print_verdicts(report, console)
    for path in paths:
        console.print(f"wrote {path}", soft_wrap=True)
    return report.exit_code
