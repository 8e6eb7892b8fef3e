"""The tables of ``docs/results.md`` that come from a GPU's results (``gpu.json``, kept as ``benchmarks/gpu/results.json``)."""

from typing import Any

from benchmarks.gpu.training import GOALS
from stabdeq.percent import percent

Record = dict[str, Any]
COMMAND = "sh run.sh (from `make gpu-bundle`)"


def epochs(results: Record) -> Record:
    """Return seconds of an epoch by contestant and precision, and their ratios beside the goals."""
    measured = results["training"]["epoch_seconds"]
    compiled = results.get("training_compiled", {}).get("epoch_seconds", {})
    seconds = {precision: each | compiled.get(precision, {}) for precision, each in measured.items()}
    rows = [[name, *(_number(each.get(name)) for each in seconds.values())] for name in next(iter(seconds.values()))]
    rows += [
        [f"**{name} / {other} (goal: {goal})**", *(_number(_ratio(each, name, other)) for each in seconds.values())]
        for name, other, goal in GOALS
    ]
    note = f"Timed on {results['training']['images']} images, scaled to all; ratios of the seconds below them."
    return _published(results, "Seconds of an epoch of training on CIFAR-10", ["", *seconds], rows, note)


def _ratio(seconds: dict[str, float], name: str, other: str) -> float | None:
    return seconds[name] / seconds[other] if name in seconds else None


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


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
