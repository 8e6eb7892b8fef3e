"""The residual of each solver against evaluations of the cell, in a report and as a file for ``stabdeq solvers``."""

import math
from collections.abc import Sequence
from typing import Any

from analysis.findings.values import mapping, number, numbers, printable
from analysis.report import drawing
from analysis.report.drawing import DASHES, INK, MUTED, PAPER, SERIES, Drawing
from analysis.report.figures.series import finite, require
from analysis.report.quantities import quantity
from stabdeq.percent import percent_in_digits

MAX_SOLVERS = 20


def convergence(title: str, series: dict[str, Any]) -> Drawing:
    """Draw the median residuals with bands between quantiles."""
    solvers = {printable(name): mapping(curve) for name, curve in mapping(series.get("solvers")).items()}
    solvers = {name: curve for name, curve in solvers.items() if finite(numbers(curve.get("median")))}
    require(solvers)
    require(len(solvers) <= MAX_SOLVERS, f"{len(solvers)} are too many solvers to draw")
    figure, axes = drawing.new_axes("evaluations of the cell", "residual")
    axes.locator_params(axis="x", integer=True)
    shares = {name: number(curve.get("converged")) for name, curve in solvers.items()}
    said = {name: "" if math.isnan(share) else f", {percent_in_digits(share)}" for name, share in shares.items()}
    labels = {name: drawing.short(name) + said[name] for name in solvers}
    rows = _draw_curves(axes, solvers, labels, SERIES)
    ends = [f"{name} ends at {quantity(drawing.last(numbers(curve['median'])))}" for name, curve in solvers.items()]
    drawing.log_scale(axes)
    tolerance = number(series.get("tolerance"))
    if 0 < tolerance < math.inf:
        axes.axhline(tolerance, color=MUTED, linewidth=1.2, linestyle=":", label=f"tolerance {quantity(tolerance)}")
    figure.legend(loc="outside upper left", frameon=False, ncols=2 if max(map(len, solvers)) < 12 else 1)
    alternative = f"Line chart on a log scale, median residual of each solver: {'; '.join(ends)}."
    return Drawing(
        name="convergence",
        title=title,
        caption="How far each solver still is from an equilibrium after as many evaluations of the cell. "
        f"Lines are medians over {_drawn(series)}images, bands span the quantiles listed in the data, and the percentage is the "
        "share of images that converged. Lower is better.",
        alternative=alternative,
        svg=drawing.inline_svg(figure, "convergence", alternative),
        table=drawing.table(["solver", "evaluations", "median", "lower", "upper"], rows),
    )


def _drawn(series: dict[str, Any]) -> str:
    """Return in words of which images the residuals were kept, where not of all."""
    count = number(series.get("drawn"))
    return f"the first {count:.0f} " if math.isfinite(count) else ""


def _draw_curves(axes: Any, solvers: dict[str, Any], labels: dict[str, str], colours: Sequence[str]) -> list[list[Any]]:
    """Draw the median residual of each solver with its band between quantiles, and return all of it as rows."""
    rows = []
    for index, (name, curve) in enumerate(solvers.items()):
        median = numbers(curve["median"])
        evaluations, lower, upper = (
            drawing.padded(curve.get(key), len(median)) for key in ("evaluations", "lower", "upper")
        )
        colour = colours[index % len(colours)]
        # Another dash for the same colour, so that the fifth solver does not look like the first.
        dashes = DASHES[(index + index // len(colours)) % len(DASHES)]
        band = drawing.positive(lower), drawing.positive(upper)
        axes.fill_between(evaluations, *band, color=colour, alpha=0.18, linewidth=0)
        axes.plot(evaluations, drawing.positive(median), color=colour, linestyle=dashes, label=labels[name])
        rows += [[name, *values] for values in zip(evaluations, median, lower, upper, strict=True)]
    return rows


def plot_comparison(summary: dict[str, Any], title: str, suffix: str) -> bytes:
    """Return the content of a file, ".svg" or ".png", that shows what ``solver_comparison.summarise`` found."""
    curves = {printable(name): record["curve"] for name, record in summary["solvers"].items()}
    floor = summary["floor"]
    with drawing.page_style(PAPER):
        figure, axes = drawing.new_axes("evaluations of the cell", "residual", size=(7.2, 4.8))
        _draw_curves(axes, curves, _rate_labels(summary), [PAPER[colour] for colour in SERIES])
        _draw_reference(axes, summary)
        drawing.log_scale(axes)
        _draw_tolerance(axes, summary["own_tolerance"])
        # Below the floor stands roundoff, and to the right of the last arrival nothing.
        length = max(sum(value > floor for value in curve["upper"]) for curve in curves.values()) + 1
        axes.set_xlim(1, max(2, length))
        axes.set_ylim(bottom=floor)
        axes.set_title(f"{title}: median, band 10–90 %", loc="left", fontsize=12)
        figure.legend(loc="outside lower left", frameon=False, ncols=2)
        return drawing.file_content(figure, suffix)


def _rate_labels(summary: dict[str, Any]) -> dict[str, str]:
    """Return the legend's words for each solver: its name, and its local rate where it has one."""
    labels = {}
    for name, record in summary["solvers"].items():
        rate = record["rate"]["median"]
        labels[printable(name)] = drawing.short(printable(name)) + ("" if rate is None else f", rate {rate:.2f}")
    return labels


def _draw_reference(axes: Any, summary: dict[str, Any]) -> None:
    """Draw the slope that the spectral radius gives Picard: a line a little above the second half of Picard's own."""
    radius = summary["spectral_radius"]["median"]
    median = [value for value in summary["solvers"]["picard"]["curve"]["median"] if summary["floor"] < value < math.inf]
    if not radius or not median:
        return
    first = len(median) // 2
    steps = range(first, len(median))
    line = [10 * median[first] * radius ** (step - first) for step in steps]
    label = f"slope of the spectral radius, {radius:.2f}"
    axes.plot([step + 1 for step in steps], line, color=PAPER[INK], linewidth=1.6, linestyle=(0, (4, 2)), label=label)


def _draw_tolerance(axes: Any, tolerance: float | None) -> None:
    if tolerance is not None:
        axes.axhline(
            tolerance, color=PAPER[MUTED], linewidth=1.4, linestyle=":", label=f"the model's tolerance, {tolerance:g}"
        )
