"""What metrics.jsonl tells of a training: numbers by epoch, and a sentence for all that is missing or cannot be read."""

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from analysis.findings.values import number, printable
from analysis.report.report import numbered
from stabdeq.errors import ReportError
from stabdeq.metrics_lines import LARGEST, METRICS_NAME, is_of_test, parsed_metrics
from stabdeq.reading import read_regular

MOST_SAID = 10  # lines, or epochs, that are named one by one
# A foreign file may be made to be large when it is read: each name is a column with a place for each epoch.
MOST_EPOCHS, MOST_NAMES = 100_000, 100


@dataclass(frozen=True, kw_only=True)
class TrainingLog:
    """A training as its metrics.jsonl tells it.

    ``epochs`` rise; ``columns`` hold a number for each of them by name, None where the line has none, NaN and infinite ones as they
    are; ``test`` is the line of the test at the end, empty where there is none; ``gaps`` are sentences on what is not whole.
    """

    folder: Path
    epochs: list[int]
    columns: dict[str, list[float | None]]
    test: dict[str, float]
    gaps: list[str]


def read_training(folder: Path) -> TrainingLog:
    """Return what the metrics.jsonl in ``folder`` holds, which may be cut off, damaged or of a training that is still at work.

    Raises ReportError where there is no such file, or none that may be read.
    """
    path = folder / METRICS_NAME
    try:
        content = read_regular(path, LARGEST)
    except OSError as error:
        raise ReportError(
            f"{path}: {error.strerror}: give the report.json that 'stabdeq audit' wrote, or a folder that 'stabdeq train' wrote into"
        ) from None
    rows, test, refused = _rows(content)
    epochs = [row["epoch"] for row in rows]
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "epoch"]
    if len(names) > MOST_NAMES:
        refused.append(f"There are {len(names)} names of numbers: the first {MOST_NAMES} are read.")
    columns = _columns(rows, names[:MOST_NAMES])
    gaps = [] if rows else [f"No epoch has ended: {METRICS_NAME} holds no line of one."]
    for said in (refused, _missing_epochs(epochs), _not_finite(epochs, columns)):
        gaps += _some(said)
    return TrainingLog(folder=folder, epochs=epochs, columns=columns, test=test, gaps=gaps)


def _rows(content: bytes) -> tuple[list[dict[str, Any]], dict[str, float], list[str]]:
    """Return the lines of epochs, that of the test, and a sentence for each that is neither."""
    *lines, last = content.split(b"\n")
    rows: list[dict[str, Any]] = []
    test: dict[str, float] = {}
    refused = []
    for place, line in enumerate([*lines, last] if last else lines, start=1):
        try:
            metrics = parsed_metrics(line)
            if is_of_test(metrics):
                test = {printable(name): number(value) for name, value in metrics.items()}
                continue
            if rows and metrics["epoch"] <= rows[-1]["epoch"]:
                raise ValueError(f"its epoch is {metrics['epoch']}, and that of a line before {rows[-1]['epoch']}")
            if len(rows) == MOST_EPOCHS:
                refused.append(f"Line {place} and those after it are not drawn: there are {MOST_EPOCHS} epochs before.")
                break
            rows.append(metrics)
        except ValueError as error:
            cut = "The last line was cut off as it was written, and is not drawn."
            refused.append(cut if place > len(lines) else f"Line {place} is not drawn: {printable(error)}.")
    return rows, test, refused


def _columns(rows: list[dict[str, Any]], names: list[str]) -> dict[str, list[float | None]]:
    shown = numbered(map(printable, names))
    return {
        title: [number(row[name]) if name in row else None for row in rows]
        for title, name in zip(shown, names, strict=True)
    }


def _missing_epochs(epochs: list[int]) -> list[str]:
    holes = [(before + 1, after - 1) for before, after in pairwise([0, *epochs]) if after > before + 1]
    return [
        f"There is no line of epoch {first}." if first == last else f"There are no lines of epochs {first} to {last}."
        for first, last in holes
    ]


def _not_finite(epochs: list[int], columns: dict[str, list[float | None]]) -> list[str]:
    said = []
    for name, values in columns.items():
        places = [
            epoch for epoch, value in zip(epochs, values, strict=True) if value is not None and not math.isfinite(value)
        ]
        if places:
            listed = ", ".join(map(str, places[:MOST_SAID])) + (", …" if len(places) > MOST_SAID else "")
            said.append(f"{name} is NaN or infinite in {len(places)} of {len(epochs)} epochs: {listed}.")
    return said


def _some(said: list[str]) -> list[str]:
    """Return the first of these sentences, and how many there are more."""
    return said[:MOST_SAID] + ([f"{len(said) - MOST_SAID} more of that kind."] if len(said) > MOST_SAID else [])
