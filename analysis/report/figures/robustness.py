"""Accuracy under attack against eps."""

import math
from typing import Any

from analysis.findings.values import number, numbers
from analysis.report import drawing
from analysis.report.drawing import MUTED, SERIES, Drawing
from analysis.report.figures.series import finite, require
from analysis.report.quantities import quantity
from stabdeq.percent import percent_in_digits


def accuracy(title: str, series: dict[str, Any]) -> Drawing:
    """Draw the share of images right by eps, beside the clean one and the worst of all attacks."""
    accuracy = numbers(series.get("accuracy"))
    eps, lower, upper = (drawing.padded(series.get(key), len(accuracy)) for key in ("eps", "lower", "upper"))
    levels = [255 * value for value in eps]
    require(finite(accuracy) and finite(levels))
    figure, axes = drawing.new_axes("eps, in grey levels (255 allows any image)", "images right")
    axes.fill_between(levels, lower, upper, color=SERIES[0], alpha=0.18, linewidth=0)
    axes.plot(levels, accuracy, color=SERIES[0], marker="o", markersize=5, label="PGD")
    clean, worst, at = (number(series.get(key)) for key in ("clean", "worst", "compared_at"))
    if math.isfinite(clean):
        axes.axhline(clean, color=MUTED, linewidth=1.2, linestyle=":", label=f"clean, {percent_in_digits(clean)}")
    if math.isfinite(worst) and math.isfinite(at):
        label = f"worst of all attacks, {percent_in_digits(worst)}"
        axes.plot([255 * at], [worst], color=SERIES[1], marker="D", markersize=8, linestyle="", label=label)
    # Linear from 0 to the smallest radius, which a log scale could not show beside the row of eps = 0.
    smallest = min((level for level in levels if level > 0), default=1.0)
    axes.set_xscale("symlog", linthresh=smallest)
    axes.set_xlim(-0.3 * smallest, 1.3 * max(finite(levels)))
    axes.set_xticks([0, *(level for level in (1 / 8, 1, 8, 64, 255) if level > smallest)])
    axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %" if 0 <= value < 1.01 else "")
    figure.legend(loc="outside upper left", frameon=False, ncols=2)
    pairs = [f"{percent_in_digits(share)} at {quantity(level)}" for share, level in zip(accuracy, levels, strict=True)]
    alternative = f"Line chart of the images right under attack by eps in grey levels: {'; '.join(pairs[:20])}."
    return Drawing(
        name="accuracy",
        title=title,
        caption="What the model gets right when every pixel may move by eps. It should begin at the clean accuracy, fall "
        "without a cliff, and end at nothing: any image is allowed there. The band is the 95 % interval.",
        alternative=alternative,
        svg=drawing.inline_svg(figure, "accuracy", alternative),
        table=drawing.table(
            ["eps, grey levels", "images right", "95 % lower", "95 % upper"],
            [list(row) for row in zip(levels, accuracy, lower, upper, strict=True)],
        ),
    )
