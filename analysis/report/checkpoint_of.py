"""The checkpoint that a report is about, found by its SHA-256."""

from hashlib import file_digest
from pathlib import Path

from analysis.findings.values import printable
from analysis.report.made_by import how_again
from analysis.report.report import Report
from stabdeq.checkpoint import Checkpoint, load_checkpoint
from stabdeq.errors import CheckpointError
from stabdeq.reading import open_regular


def checkpoint_of(report: Report, path: Path, given: Path | None = None, *, trusted: bool = False) -> Checkpoint:
    """Return the checkpoint that ``report``, the file ``path``, is about: at ``given``, or where it says, or beside it.

    Raises CheckpointError where no file of the report's SHA-256 is there, and as ``load_checkpoint``.
    """
    named, expected = (printable(report.checkpoint.get(key)) for key in ("path", "sha256"))
    if not named and report.command.get("name") in ("check", "certify"):
        raise CheckpointError(
            f"{path}: is about functions, and names no checkpoint; code that a report names is not run. Evaluate your functions at the "
            f'"state" of a witness yourself, or {how_again(report.command)}'
        )
    if not named or not expected:
        raise CheckpointError(
            f"{path}: names no checkpoint with its SHA-256, as an audit of a model in Python: give the report of a checkpoint; "
            "a model of your own audit again, and compare the two reports by 'stabdeq compare'"
        )
    places = [given] if given else [Path(named), path.parent / named, path.parent / Path(named).name]
    digests = {}
    try:
        # A report may name any file of this machine: only what may be a checkpoint is opened.
        for place in dict.fromkeys(places):
            if place.is_file() and (given or place.suffix == ".safetensors"):
                with open_regular(place) as file:
                    digests[place] = file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"{named[:200]}: cannot be read ({error.strerror}): say with --checkpoint where the checkpoint lies"
        ) from None
    for place, digest in digests.items():
        if digest == expected:
            loaded = load_checkpoint(place, trusted=trusted)
            if loaded.sha256 != expected:
                raise CheckpointError(f"{place}: was replaced while it was read: try again")
            return loaded
    if not digests:
        raise CheckpointError(f"{given or named}: no such file: say with --checkpoint where the checkpoint lies")
    raise CheckpointError(
        f"{next(iter(digests))}: its SHA-256 is not that of the report, {expected[:64]}: not the checkpoint that was audited; "
        "say with --checkpoint where that lies"
    )
