"""What ``benchmarks.scaling`` measured, as a table with fitted exponents and as a figure of ``docs/results.md``."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).with_name("scaling.json")
FIGURE = Path(__file__).parents[1] / "docs" / "_static" / "scaling.png"
LEAST = 1.0  # MiB: less than that is what an allocator rounds
NOTE = (
    "One run each, in a process of its own; MiB are the most that it held beyond what it held before. An exponent is the slope of the "
    "logarithm over that of the size by least squares, with its standard error: 1 is linear, 0 is flat. Of several processes the one that "
    "takes most counts."
)


class Fit(NamedTuple):
    """The exponent b of a cost that grows as size^b, and the standard error of it, 0 with two sizes alone."""

    exponent: float
    error: float

    def __str__(self) -> str:
        """The exponent with its error, two digits each."""
        return f"{self.exponent:.2f} ± {self.error:.2f}"


def fit(sizes: Sequence[float], costs: Sequence[float]) -> Fit:
    """Fit the line log cost = a + b log size, by least squares, to two sizes or more."""
    x, y = ([math.log(value) for value in column] for column in (sizes, costs))
    middle, height = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - middle) ** 2 for a in x)
    slope = sum((a - middle) * (b - height) for a, b in zip(x, y, strict=True)) / spread
    misses = sum((b - height - slope * (a - middle)) ** 2 for a, b in zip(x, y, strict=True))
    return Fit(slope, (misses / max(1, len(x) - 2) / spread) ** 0.5)


def fits(group: dict[str, list[float]]) -> tuple[Fit, Fit]:
    """Return the exponents of the seconds and of the memory."""
    memory = [max(LEAST, value) for value in group["mebibytes"]]
    return fit(group["sizes"], group["seconds"]), fit(group["sizes"], memory)


def record(results: dict[str, Any]) -> dict[str, Any]:
    """Return the table of ``docs/results.md``."""
    rows = []
    for name, group in results["groups"].items():
        seconds, memory = fits(group)
        rows.append(
            [
                name,
                ", ".join(map(str, group["sizes"])),
                ", ".join(f"{value:.2g}" for value in group["seconds"]),
                str(seconds),
                ", ".join(f"{value:.0f}" for value in group["mebibytes"]),
                str(memory),
            ]
        )
    return {
        "title": "Time and memory against size",
        "date": results["date"],
        "machine": results["machine"],
        "commands": [results["command"]],
        "columns": ["what grows", "sizes", "CPU seconds", "exponent", "MiB", "exponent"],
        "rows": rows,
        "note": NOTE,
    }


def draw(path: Path = FIGURE) -> None:
    """Draw cost over size, each relative to the smallest, into the file ``path``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = json.loads(FILE.read_text(encoding="utf-8"))["groups"]
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 6.2), layout="constrained", sharex=True)
    for axis, field, which, title in (
        (axes[0], "seconds", 0, "CPU seconds"),
        (axes[1], "mebibytes", 1, "memory beyond the start"),
    ):
        for marker, (name, group) in zip("osD^vP", groups.items(), strict=False):
            sizes = [size / group["sizes"][0] for size in group["sizes"]]
            costs = [max(LEAST, value) if which else value for value in group[field]]
            label = f"{name}: {fits(group)[which]}"
            axis.loglog(sizes, [cost / costs[0] for cost in costs], marker=marker, linewidth=1.8, label=label)
        longest = max(group["sizes"][-1] / group["sizes"][0] for group in groups.values())
        axis.loglog([1, longest], [1, longest], color="0.6", linestyle="--", linewidth=1.2, label="linear")
        axis.loglog([1, longest], [1, 1], color="0.6", linestyle=":", linewidth=1.2, label="flat")
        axis.set_title(f"{title}, times that of the smallest size", loc="left", fontsize=11)
        axis.set_xlabel("size, times the smallest")
        axis.grid(visible=True, which="major", color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False, fontsize=8.5, title="exponents")
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)
