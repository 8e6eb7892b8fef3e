"""The rows of a table: what the paper prints, and ours, with mean and spread over seeds; on a terminal, as Markdown, as JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.reproduce import paper
from analysis.reproduce.jobs import Attack
from analysis.reproduce.plan import HONEST, Study
from stabdeq.percent import percent

if TYPE_CHECKING:
    from rich.console import Console

GAP = "-"
ATTACK_NAMES = {"ifgsm": "I-FGSM", "pgd": "PGD", HONEST: "honest"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Accuracies in %, one for each seed that has a result, of the ``asked`` ones."""

    values: tuple[float, ...]
    asked: int = 1

    @classmethod
    def of_paper(cls, printed: float | None) -> "Cell":
        """Return the cell of a printed figure, or the gap where there is none."""
        return cls(values=() if printed is None else (printed,))

    @property
    def mean(self) -> float | None:
        """The mean, None without values."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """The sample standard deviation over seeds, None of fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def text(self) -> str:
        """Return the cell in words: a gap, a number, or mean and spread; a star where seeds are missing.

        >>> Cell(values=(97.0, 98.0), asked=3).text()
        '97.50±0.71*'
        """
        if self.mean is None:
            return GAP
        spread = "" if self.spread is None else f"±{self.spread:.2f}"
        mean = percent(self.mean / 100).removesuffix("%")
        return f"{mean}{spread}{'' if len(self.values) == self.asked else '*'}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line: ``count`` test images under ``attack``, None in the paper's rows; cells by radius, 0 for clean images."""

    data: str
    system: str
    attack: str
    count: int | None
    epochs: int | None = None
    cells: dict[int, Cell]
    warnings: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What was measured, and by whom."""
        return f"{ATTACK_NAMES[self.attack]} {'paper' if self.count is None else f'n={self.count}'}"


def make_rows(study: Study, results: Sequence[Attack]) -> list[Row]:
    """Return the rows of ``study`` from those of ``results`` that are there."""
    rows = []
    for data in study.data:
        for system in study.systems:
            jobs = [job for job in results if job.data == data and job.training.system.name == system.name]
            for attack, radii in study.radii.items():
                if attack != HONEST:
                    columns = (0, *radii)
                    cells = {eps: Cell.of_paper(paper.printed(data, system.name, attack, eps)) for eps in columns}
                    rows.append(Row(data=data, system=system.name, attack=attack, count=None, cells=cells))
                rows.append(_our_row([job for job in jobs if job.attack == attack]))
    return rows


def _our_row(jobs: list[Attack]) -> Row:
    """Return the row of one attack on one system, from its jobs at all radii and seeds.

    The honest figure is the worst over its attacks and the clean image, the paper's that under the attack alone.
    """
    first = jobs[0]
    key = "worst" if first.attack == HONEST else "robust"
    clean: dict[int, float] = {}
    found: dict[int, list[float]] = {}
    warnings = []
    for job in jobs:
        values = found.setdefault(job.eps, [])
        if (content := job.read()) is not None:
            accuracy = content["accuracy"]
            clean.setdefault(job.training.seed, 100 * accuracy["clean"])
            values.append(100 * accuracy[key])
            warnings += [f"{job.name}: {warning}" for warning in content["warnings"]]
            if share := content["unconverged"]["robust"]:
                warnings.append(f"{job.name}: no equilibrium was found for {percent(share)} of the attacked images")
    asked = len({job.training.seed for job in jobs})
    values_by_radius = {0: list(clean.values()), **found}
    return Row(
        data=first.data,
        system=first.training.system.name,
        attack=first.attack,
        count=first.count,
        epochs=first.training.epochs,
        cells={eps: Cell(values=tuple(values), asked=asked) for eps, values in values_by_radius.items()},
        warnings=tuple(warnings),
    )


def explanation(seeds: Sequence[int]) -> str:
    """Return how to read the table."""
    over = f"mean±standard deviation over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return (
        f"Accuracy in %. Rows 'paper': as printed in arXiv 2304.12707. Rows 'n=': ours, on n test images, {over}; 'honest' is "
        f"the worst of several attacks, image by image; {GAP}: no result; *: fewer seeds than asked."
    )


def notes(rows: Sequence[Row]) -> list[str]:
    """Return what the reader of the table must know of its gaps and of the attacks' warnings."""
    found = []
    trained = {row.data: row.epochs for row in rows if row.epochs is not None}
    for data, epochs in trained.items():
        if epochs != paper.EPOCHS.get(data, epochs):
            found.append(f"Ours on {data} were trained for {epochs} epochs, the paper's for {paper.EPOCHS[data]}.")
    ours = [cell for row in rows if row.count is not None for eps, cell in row.cells.items() if eps]
    if missing := sum(cell.asked - len(cell.values) for cell in ours):
        asked = sum(cell.asked for cell in ours)
        found.append(f"{missing} of {asked} results are missing.")
    if warned := [warning for row in rows for warning in row.warnings]:
        found.append(f"{len(warned)} warnings of the attacks; the first: {warned[0]}.")
    return found


def print_table(study: Study, rows: Sequence[Row], seeds: Sequence[int], console: "Console | None" = None) -> None:
    """Print one table for each data set, no wider than 80 columns."""
    from analysis.report.terminal import print_everywhere
    from stabdeq.terminal import Console

    print_everywhere(lambda console: _print_all(study, rows, seeds, console), console or Console())


def _print_all(study: Study, rows: Sequence[Row], seeds: Sequence[int], console: "Console") -> None:
    from rich.text import Text

    console.print(Text(f"\n{study.title}", style="bold"))
    console.print(Text(explanation(seeds)))
    for data in study.data:
        console.print()
        console.print(_terminal_table(data, [row for row in rows if row.data == data], console))
    for note in notes(rows):
        console.print(Text(note, style="yellow"))


def _terminal_table(data: str, rows: Sequence[Row], console: "Console") -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    lines = box.SIMPLE_HEAD if console.is_terminal else box.Box("    \n" * 8)
    table = Table(box=lines, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column(data, no_wrap=True)
    columns = list(dict.fromkeys(eps for row in rows for eps in row.cells))
    for eps in columns:
        table.add_column(f"{eps}/255" if eps else "clean", justify="right", no_wrap=True)
    for system, own in _by_system(rows):
        table.add_row(Text(system, style="bold"))
        for row in own:
            style = "" if row.count is not None else "dim"
            table.add_row(
                Text(f" {row.label}", style=style), *(Text(text, style=style) for text in _texts(row, columns))
            )
    return table


def _by_system(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    return [(name, [row for row in rows if row.system == name]) for name in dict.fromkeys(row.system for row in rows)]


def _texts(row: Row, columns: Sequence[int]) -> list[str]:
    return [row.cells[eps].text() if eps in row.cells else "" for eps in columns]


def markdown(study: Study, rows: Sequence[Row], seeds: Sequence[int]) -> str:
    """Return the table as Markdown."""
    parts = [f"# {study.title}\n", f"{explanation(seeds)}\n"]
    for data in study.data:
        own = [row for row in rows if row.data == data]
        columns = list(dict.fromkeys(eps for row in own for eps in row.cells))
        heads = ["model", "measured", *(f"{eps}/255" if eps else "clean" for eps in columns)]
        lines = [heads, ["---", "---", *["--:"] * len(columns)]]
        lines += [[row.system, row.label, *_texts(row, columns)] for row in own]
        parts.append(f"## {data}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n".join([*parts, *(f"{note}\n" for note in notes(rows))])


def plain(study: Study, rows: Sequence[Row], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the table as plain values: accuracies in %, radii in 255ths, a missing value as None."""
    return {
        "schema": 1,
        "title": study.title,
        "seeds": list(seeds),
        "rows": [
            {
                "data": row.data,
                "system": row.system,
                "attack": row.attack,
                "source": "arXiv 2304.12707" if row.count is None else "ours",
                "n": row.count,
                "epochs": row.epochs,
                "warnings": list(row.warnings),
                "cells": {
                    str(eps): {"mean": cell.mean, "spread": cell.spread, "values": list(cell.values)}
                    for eps, cell in row.cells.items()
                },
            }
            for row in rows
        ],
    }
