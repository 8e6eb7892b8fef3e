"""The eigenvalues of the cell's Jacobian."""

import math
from typing import Any

from analysis.findings.values import number, numbers, sequence
from analysis.report import drawing
from analysis.report.drawing import DASHES, SERIES, Drawing
from analysis.report.figures.series import require
from analysis.report.quantities import quantity

# More points than this are drawn as a picture.
MAX_VECTOR_POINTS = 2000


def spectrum(title: str, series: dict[str, Any]) -> Drawing:
    """Draw the eigenvalues in the complex plane, with the unit circle and the line Re = 1."""
    pairs = [numbers(pair) for pair in sequence(series.get("eigenvalues"))]
    # The largest real part first, so that a shortened table keeps what stability hangs on.
    points = sorted((pair for pair in pairs if len(pair) == 2 and all(map(math.isfinite, pair))), reverse=True)
    require(points)
    figure, axes = drawing.new_axes("real part", "imaginary part", size=(5.6, 4.7))
    unstable = sum(real >= 1 for real, _ in points)
    angles = [2 * math.pi * step / 180 for step in range(181)]
    circle = [math.cos(angle) for angle in angles], [math.sin(angle) for angle in angles]
    many = len(points) > MAX_VECTOR_POINTS
    # A picture cannot follow the page's scheme: a middle blue reads on both.
    colour = "#3b8bd0" if many else SERIES[0]
    style = {"alpha": 0.7, "linewidths": 0, "rasterized": many}
    axes.scatter(*_columns(points[unstable:]), s=18, color=colour, label="eigenvalues", **style)
    if unstable:
        label = f"unstable: {unstable}"
        axes.scatter(*_columns(points[:unstable]), s=34, marker="D", color=SERIES[1], label=label, **style)
    axes.plot(*circle, color=SERIES[2], linewidth=1.6, linestyle=DASHES[1], label="unit circle")
    axes.axvline(1, color=SERIES[1], linewidth=1.2, label="Re = 1")
    axes.set_aspect("equal", adjustable="datalim")
    figure.legend(loc="outside upper left", frameon=False, ncols=2)
    radius = max(math.hypot(*point) for point in points)
    alternative = (
        f"Scatter plot of {len(points)} eigenvalues: the largest real part is {quantity(points[0][0])}, "
        f"the largest modulus {quantity(radius)}; {unstable} lie on or to the right of the line."
    )
    # Of large states the eigenvalues are those that Arnoldi's method found, each with its residual.
    part = " These are the outermost eigenvalues found; others may have been missed." if series.get("residuals") else ""
    return Drawing(
        name="spectrum",
        title=title,
        caption=f"{_shown(series)}The flow is locally stable when every point lies left of the line Re = 1. Plain fixed-point "
        f"iteration converges locally when every point lies inside the unit circle: another question.{part}",
        alternative=alternative,
        svg=drawing.inline_svg(figure, "spectrum", alternative),
        table=drawing.table(["real part", "imaginary part"], points),
    )


def _columns(points: list[list[float]]) -> tuple[list[float], list[float]]:
    return [real for real, _ in points], [imaginary for _, imaginary in points]


def _shown(series: dict[str, Any]) -> str:
    """Say of which images the eigenvalues are; nothing where the report does not hold it."""
    shown, of = number(series.get("shown")), number(series.get("of"))
    if not 0 < shown <= of < math.inf:
        return ""
    if shown == of:
        return f"Of all {quantity(int(of))} images looked at. "
    return f"Of the {quantity(int(shown))} worst of {quantity(int(of))} images, by real part and by modulus. "
