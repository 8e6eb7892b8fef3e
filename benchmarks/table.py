"""Results as text: a Markdown table of ratios, and a summary with the goals."""

from collections.abc import Iterable
from statistics import median
from typing import Any

Record = dict[str, Any]

SOLVES = ("forward", "forward and backward")
GOALS = {"anderson": {"compiled": 5.0, "eager": 2.5}, "broyden": {"compiled": 8.0, "eager": 4.0}}
MODES = ("compiled", "eager")
OTHER_GOALS = {"training step": 2.0, "PGD": 1.0}
HEAD = (
    *("problem", "batch", "solver", "tolerance", "what", "TorchDEQ ms", "eager", "compiled", "SciPy / compiled"),
    *("calls: ours", "theirs", "notes"),
)


def markdown(results: Record) -> str:
    """Return the whole results as Markdown."""
    records = results["records"]
    parts = [
        f"Measured {results['date']} on {_machine(results)}, by `{results['command']}`. Ratios are the rival's time over ours, "
        "at the same true residual: median (quartiles) of alternating runs. Above 1, ours is faster.",
        table(HEAD, map(row, races_of(records))),
        *_extras(records),
        "\n".join(f"- {line}" for line in [*results["skipped"], *summary(records)]),
    ]
    return "\n\n".join(parts) + "\n"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def row(record: Record) -> list[str]:
    """Return the cells of one raced case."""
    found, ratio = record["contestants"], record["ratios"]
    ours = found.get("eager") or {}
    rival = found.get("TorchDEQ") or {}
    return [
        record["problem"],
        str(record["batch"]),
        record["solver"],
        f"{record['tolerance']:g}",
        record["direction"],
        f"{1e3 * rival['seconds'][1]:.1f}" if rival else "",
        spread(ratio.get("TorchDEQ/eager")),
        spread(ratio.get("TorchDEQ/compiled")),
        spread(ratio.get("SciPy/compiled")),
        calls(ours),
        calls(rival),
        notes(record),
    ]


def spread(values: list[float] | None) -> str:
    """Return median and quartiles."""
    return f"**{values[1]:.2f}** ({values[0]:.2f}-{values[2]:.2f})" if values else ""


def calls(found: Record) -> str:
    """Return the calls of the cell, and of its adjoint."""
    if not found:
        return ""
    adjoint = found.get("adjoint_evaluations")
    return str(found["evaluations"]) + (f" + {adjoint}" if adjoint else "")


def notes(record: Record) -> str:
    """Say where a contestant does not reach the tolerance, or was set otherwise than by default."""
    said = []
    for name, found in record["contestants"].items():
        if not found:
            said.append(f"{name} does not reach")
            continue
        setting = found["setting"]
        if "lam" in setting["options"]:
            said.append(f"{name} with lam {setting['options']['lam']:g}")
        if name != "SciPy" and setting["tolerance"] < 0.99 * record["tolerance"]:
            said.append(f"{name} told {setting['tolerance']:g}")
    for pair, ratio in record["ratios"].items():
        rival, mode = pair.rsplit("/", 1)
        if rival not in ("TorchDEQ", "SciPy"):
            said.append(f"{rival} over ours {mode} {spread(ratio)}")
    return "; ".join(said)


def ratio_table(results: Record) -> Record:
    """Return the ratios of TorchDEQ's time to ours, cell by cell, for the results page."""
    races = races_of(results["records"])
    rows = [
        _ratio_row(shown, batch, tolerance, chosen)
        for shown, batch, chosen in groups(races)
        for tolerance in ("1e-3", "1e-5")
    ]
    rows.append(_ratio_row("training step", "128", "1e-3", [r for r in races if r["direction"] == "training step"]))
    columns = ["cell", "batch", "tolerance", "Anderson, compiled", "eager", "Broyden, compiled", "eager"]
    note = "Median (lowest to highest); above 1, ours is faster."
    return _published(results, "TorchDEQ's time over ours", columns, rows, note)


def groups(races: list[Record]) -> list[tuple[str, str, list[Record]]]:
    """Return the solves that stand together: the cell and the batch as they are shown, and their records."""
    solves = [record for record in races if record["direction"] in SOLVES]
    return [
        (shown, batch, [one for one in solves if one["problem"] in problems and one["batch"] in batches])
        for shown, batch, batches, problems in (
            *(("digits, MNIST (n = 64)", str(size), (size,), ("digits", "mnist")) for size in (1, 128, 1024, 8192)),
            ("convolution, 64 x 16 x 16", "1, 16", (1, 16), ("convolution, 64 x 16 x 16",)),
            ("convolution, 128 x 32 x 32", "1", (1,), ("convolution, 128 x 32 x 32",)),
            ("attention, 16 tokens of 32", "64", (64,), ("attention",)),
            ("graph, 50 nodes of 16", "64", (64,), ("graph",)),
            ("linear, spectral radius 0.99", "128", (128,), ("linear, radius 0.99",)),
        )
    ]


def _ratio_row(cell: str, batch: str, tolerance: str, records: list[Record]) -> list[str]:
    row = [cell, batch, tolerance]
    for solver in GOALS:
        chosen = [r for r in records if r["solver"] == solver and r["tolerance"] == float(tolerance)]
        unreached = any("TorchDEQ" in r["contestants"] and not r["contestants"]["TorchDEQ"] for r in chosen)
        row += [_range(medians(chosen, mode)) or "not reached" * unreached for mode in MODES]
    return row


def _range(ratio: list[float]) -> str:
    """Return the median with the lowest and the highest, in bold where ours is slower."""
    if not ratio:
        return ""
    middle, low, high = (
        f"{value:.1f}" if value < 9.95 else f"{value:.0f}" for value in (median(ratio), min(ratio), max(ratio))
    )
    return f"{f'**{middle}**' if median(ratio) < 1 else middle} ({low} to {high})"


def goal_table(results: Record) -> Record:
    """Return the medians over all cases beside what was aimed at, for the results page."""
    races = races_of(results["records"])
    rows = []
    for solver, goals in GOALS.items():
        chosen = [record for record in races if record["solver"] == solver and record["direction"] in SOLVES]
        count = len(medians(chosen, "compiled"))
        rows.append([f"{solver.capitalize()}, median of {count}", *_beside_goals(chosen, goals)])
    for what, goal in OTHER_GOALS.items():
        chosen = [record for record in races if record["direction"] == what]
        if chosen:
            rows.append([what, *_beside_goals(chosen, dict.fromkeys(MODES, goal))])
    slowest = ["slowest case"]
    for mode in MODES:
        ratio = medians(races, mode)
        below = sum(value < 1 for value in ratio)
        slowest += [f"{min(ratio):.2f}; below 1 in {below} of {len(ratio)}", f"1, {'missed' if below else 'reached'}"]
    columns = ["over all cases", "ours compiled", "goal", "ours eager", "goal"]
    return _published(results, "The same ratios against the goals", columns, [*rows, slowest], "")


def _beside_goals(records: list[Record], goals: dict[str, float]) -> list[str]:
    cells = []
    for mode in MODES:
        found = median(medians(records, mode))
        cells += [f"{found:.2f}", f"{goals[mode]:g}, {'reached' if found >= goals[mode] else 'missed'}"]
    return cells


def _published(results: Record, title: str, columns: list[str], rows: list[list[str]], note: str) -> Record:
    return {
        "title": title,
        "date": results["date"],
        "machine": _machine(results),
        "commands": [results["command"]],
        "columns": columns,
        "rows": rows,
        "note": note,
    }


def _machine(results: Record) -> str:
    return ", ".join(f"{name} {value}" for name, value in results["machine"].items())


def summary(records: list[Record]) -> list[str]:
    """Return the lines that compare the ratios with the goals."""
    races = races_of(records)
    lines = []
    for solver, goals in GOALS.items():
        solves = [record for record in races if record["solver"] == solver and record["direction"] in SOLVES]
        lines += [_against_goal(f"{solver}, {mode}", medians(solves, mode), goal) for mode, goal in goals.items()]
    for what, goal in OTHER_GOALS.items():
        chosen = [record for record in races if record["direction"] == what]
        lines += [_against_goal(f"{what}, {mode}", medians(chosen, mode), goal) for mode in MODES]
    for mode in MODES:
        ratio = medians(races, mode)
        if ratio:
            lines.append(
                f"smallest ratio, {mode}: {min(ratio):.2f} (goal: never below 1); below 1 in {sum(r < 1 for r in ratio)} of {len(ratio)}"
            )
    return lines


def _against_goal(what: str, ratio: list[float], goal: float) -> str:
    found = f"{median(ratio):.2f} over {len(ratio)} cases" if ratio else "not measured"
    return f"median ratio, {what}: {found} (goal: {goal:g})"


def medians(records: list[Record], mode: str) -> list[float]:
    name = f"TorchDEQ/{mode}"
    return [record["ratios"][name][1] for record in records if name in record["ratios"]]


def races_of(records: list[Record]) -> list[Record]:
    return [record for record in records if "direction" in record]


def _extras(records: list[Record]) -> list[str]:
    """Return the tables of overhead, memory and the folded cell, those that there are."""
    found = []
    for kind, values, head, show in (
        ("overhead", "overhead", "Solver's cost of one iteration beyond the cell's own", spread),
        ("folded", "ratios", "TorchDEQ given the folded cell, and our Broyden's bounded memory", spread),
        ("memory", "bytes", "Peak memory of one solve, MB", lambda value: f"{value / 1e6:.1f}"),
    ):
        chosen = [record for record in records if record.get("kind") == kind]
        rows = [
            [record["problem"], str(record["batch"]), record["solver"], name, show(value)]
            for record in chosen
            for name, value in record[values].items()
        ]
        if rows:
            found.append(f"{head}:\n\n" + table(("problem", "batch", "solver", "of", "value"), rows))
    return found
