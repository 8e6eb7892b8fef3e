"""The tables of ``docs/results.md`` that come from a GPU's results (``gpu.json``, kept as ``benchmarks/gpu/results.json``)."""

from typing import Any

from stabdeq.percent import percent

Record = dict[str, Any]
COMMAND = "sh run.sh (from `make gpu-bundle`)"


def epochs(results: Record) -> Record:
    """Return seconds of an epoch by contestant and precision, and the ratios beside their goals."""
    measured = results["training"]["epoch_seconds"]
    ratios = results["training"]["ratios"]
    rows = [[name, *(f"{each[name]:.2f}" for each in measured.values())] for name in next(iter(measured.values()))]
    rows += [
        [f"**{name}**", *(f"{each[name]:.2f}" for each in ratios.values())] for name in next(iter(ratios.values()))
    ]
    note = f"Timed on {results['training']['images']} images, scaled to all; ratios of the seconds below them."
    return _published(results, "Seconds of an epoch of training on CIFAR-10", ["", *measured], rows, note)


def table(results: Record) -> Record:
    """Return the trained kinds with their accuracies under attack."""
    rows = results["table"]
    attacks = list(dict.fromkeys(name for row in rows for name in row["attacks"]))
    cells = [
        [
            f"`{row['kind']}`",
            str(row["epochs"]),
            percent(row["test_accuracy"]),
            *(percent(row["attacks"][name]["robust"]) if name in row["attacks"] else "no time" for name in attacks),
        ]
        for row in rows
    ]
    columns = ["kind", "epochs", "clean", *(f"{name}/255" for name in attacks)]
    return _published(results, "CIFAR-10 on a GPU, extractor in bfloat16", columns, cells, "One seed.")


def _published(results: Record, title: str, columns: list[str], rows: list[list[str]], note: str) -> Record:
    machine = results["machine"]
    return {
        "title": title,
        "date": results["date"],
        "machine": f"{machine['device']}, torch {machine['torch']}, CUDA {machine['CUDA']}",
        "commands": [COMMAND],
        "columns": columns,
        "rows": rows,
        "note": note,
    }
