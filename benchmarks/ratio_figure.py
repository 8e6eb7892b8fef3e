"""The races against TorchDEQ as a figure: how many times longer it takes, problem by problem."""

import json
from pathlib import Path
from statistics import median

from benchmarks.table import GOALS, groups, medians, races_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
FIGURE = ROOT / "docs" / "_static" / "solver-ratios.png"
TOLERANCES = ("1e-3", "1e-5")
COLOURS = {"compiled": "#1f77b4", "eager": "#e08214"}


def draw(path: Path = FIGURE, results: Path = RESULTS) -> None:
    """Draw into ``path`` the median of each group of cases in ``results``, with a line from the lowest to the highest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    chosen = groups(races_of(json.loads(results.read_text(encoding="utf-8"))["records"]))
    rows = [(f"{shown}, batch {batch}, {tol}", tol, races) for shown, batch, races in chosen for tol in TOLERANCES]
    figure, axes = pyplot.subplots(
        1, len(GOALS), figsize=(11, 0.32 * len(rows) + 1.6), layout="constrained", sharey=True
    )
    for axis, solver in zip(axes, GOALS, strict=True):
        for place, (_, tolerance, races) in enumerate(rows):
            for shift, mode in ((-0.13, "compiled"), (0.13, "eager")):
                ratios = medians(
                    [r for r in races if r["solver"] == solver and r["tolerance"] == float(tolerance)], mode
                )
                if not ratios:
                    continue
                at, colour = place + shift, COLOURS[mode]
                axis.plot([min(ratios), max(ratios)], [at, at], color=colour, linewidth=1.6)
                axis.plot(median(ratios), at, "o", color=colour, markersize=5, label=mode if place == 0 else None)
        axis.axvline(1, color="0.5", linewidth=1)
        axis.set_xscale("log")
        axis.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
        axis.minorticks_off()
        axis.grid(axis="x", color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_title(f"{solver.capitalize()}: TorchDEQ's time over ours", loc="left", fontsize=11)
    axes[0].set_yticks(range(len(rows)), [label for label, _, _ in rows])
    axes[0].invert_yaxis()
    axes[0].legend(frameon=False, loc="upper right")
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)
