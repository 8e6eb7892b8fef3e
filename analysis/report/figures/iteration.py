"""What the iteration brings: accuracy after so many steps, beside that of states that bypass it."""

from typing import Any

from analysis.findings.values import mapping, number, numbers, printable
from analysis.report import drawing
from analysis.report.drawing import DASHES, MUTED, SERIES, Drawing
from analysis.report.figures.series import finite, require
from stabdeq.percent import percent

MOST = 8  # bypasses that are drawn
ON_THE_CURVE = ("the equilibrium", "one evaluation from 0")  # its last and its first point


def accuracy(title: str, series: dict[str, Any]) -> Drawing:
    """Draw accuracy and agreement against steps, and the accuracies of the bypasses as lines across."""
    steps, right, agreeing = (numbers(series.get(key)) for key in ("steps", "accuracy", "agreement"))
    require(finite(steps) and len(steps) == len(right) == len(agreeing))
    bypasses = {printable(name): number(value) for name, value in mapping(series.get("accuracies")).items()}
    require(len(bypasses) <= MOST, f"{len(bypasses)} are too many states to draw")
    figure, axes = drawing.new_axes("steps of Anderson's method", "share of answers")
    axes.plot(steps, right, color=SERIES[0], marker="o", label="right")
    axes.plot(steps, agreeing, color=SERIES[1], marker="s", linestyle=DASHES[1], label="answer as at the equilibrium")
    for index, (name, value) in enumerate(item for item in bypasses.items() if item[0] not in ON_THE_CURVE):
        axes.axhline(
            value, color=MUTED, linewidth=1.1, linestyle=DASHES[index % len(DASHES)], label=drawing.short(name)
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [f"{step:.0f}" for step in steps])
    axes.minorticks_off()
    axes.set_ylim(0, 1.02)
    figure.legend(loc="outside upper left", frameon=False, ncols=2)
    ends = f"{percent(right[0], 0)} of answers are right after {steps[0]:.0f} step, {percent(right[-1], 0)} after {steps[-1]:.0f}"
    alternative = f"Line chart: {ends}."
    rows = [[f"{step:.0f} steps", a, b] for step, a, b in zip(steps, right, agreeing, strict=True)]
    return Drawing(
        name="iteration",
        title=title,
        caption="Solved from 0 by so many steps. Level lines are the share that is right when the answer is "
        "read from another state than the one that was solved for. Where they all meet, the iteration does nothing.",
        alternative=alternative,
        svg=drawing.inline_svg(figure, "iteration", alternative),
        table=drawing.table(
            ["read from", "right", "as at the equilibrium"],
            rows + [[name, value, ""] for name, value in bypasses.items()],
        ),
    )
