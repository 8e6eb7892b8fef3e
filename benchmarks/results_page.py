"""``make results``: write every table of ``docs/results.md`` anew from what was measured.

A table stands between ``<!-- measured: NAME -->`` and ``<!-- end -->``. It comes from ``docs/measured/NAME.json``, or, where
``COMPUTED`` says so, from a benchmark's own results; all else on the page is prose, and is left alone.
"""

import json
import re
from pathlib import Path

from benchmarks import ratio_figure, scaling_page
from benchmarks.gpu import page
from benchmarks.table import Record, goal_table, ratio_table, table
from stabdeq.files import replace_file

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
MEASURED = ROOT / "docs" / "measured"
SOLVERS = ROOT / "benchmarks" / "results.json"
GPU = ROOT / "benchmarks" / "gpu" / "results.json"
COMPUTED = {
    "solvers": (SOLVERS, ratio_table),
    "solver-goals": (SOLVERS, goal_table),
    "gpu-epochs": (GPU, page.epochs),
    "gpu-table": (GPU, page.table),
    "scaling": (scaling_page.FILE, scaling_page.record),
}
FIELDS = {"title", "date", "machine", "commands", "columns", "rows", "note"}
BLOCK = re.compile(r"(<!-- measured: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrite the page, and draw its figures."""
    ratio_figure.draw()
    scaling_page.draw()
    replace_file(PAGE, with_tables(PAGE.read_text(encoding="utf-8")).encode())


def with_tables(page: str) -> str:
    """Return the Markdown ``page`` with each of its tables as it was measured."""
    return BLOCK.sub(lambda found: f"{found[1]}{block(measured(found[2]))}\n{found[3]}", page)


def measured(name: str) -> Record:
    """Return the record ``name``: title, date, machine, commands, columns, rows of Markdown cells, note.

    Raises ValueError where a field is missing or unknown, or a row has another length than the columns.
    """
    if name in COMPUTED:
        path, make = COMPUTED[name]
        return make(json.loads(path.read_text(encoding="utf-8")))
    record = json.loads((MEASURED / f"{name}.json").read_text(encoding="utf-8"))
    if record.keys() != FIELDS:
        raise ValueError(f"{name}.json: add or remove the fields {sorted(record.keys() ^ FIELDS)}")
    for row in record["rows"]:
        if len(row) != len(record["columns"]):
            raise ValueError(f"{name}.json: {len(record['columns'])} columns, but a row has {len(row)} cells: {row}")
    return record


def block(record: Record) -> str:
    """Return title, table, and the line that says how it was measured."""
    commands = ", ".join(f"`{command}`" for command in record["commands"])
    source = f"{commands}; {record['machine']}; {record['date']}. {record['note']}".strip()
    return f"**{record['title']}**\n\n{table(record['columns'], record['rows'])}\n\n{source}\n"


if __name__ == "__main__":
    main()
