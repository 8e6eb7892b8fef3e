"""Distances between the classes, before and after the orthogonal map."""

import math
from functools import partial
from typing import Any

from analysis.findings.values import numbers, sequence
from analysis.report import drawing
from analysis.report.drawing import Drawing
from analysis.report.figures.series import class_name, finite, require
from analysis.report.quantities import quantity

# More classes are drawn without the number in each cell.
MAX_WRITTEN_CLASSES = 12
MAX_CLASSES = 500
KEPT = 1e-6  # of the largest distance: less of a change is rounding


def distances(title: str, series: dict[str, Any], which: str) -> Drawing | None:
    """Draw the matrix of distances ``which``, "before" or "after" the map; None of one "after" that is the same as the one before."""
    are_same, kept = _is_kept(series)
    if are_same and which == "after":
        return None
    size = len(sequence(series.get(which)))
    require(size <= MAX_CLASSES, f"{size} are too many classes to draw")
    matrix = [numbers(row) for row in sequence(series.get(which))]
    require(size and all(len(row) == size for row in matrix) and any(map(finite, matrix)))
    both = [value for key in ("before", "after") for row in sequence(series.get(key)) for value in numbers(row)]
    names = [class_name(series, label) for label in sequence(series.get("classes"))][:size]
    names += [str(index) for index in range(len(names), size)]
    figure, axes = drawing.new_axes("", "", size=(5.6, 4.8))
    top = max(finite(both)) or 1.0
    image = axes.imshow(matrix, cmap="cividis", vmin=0, vmax=top, interpolation="nearest")
    step = math.ceil(size / 20)
    axes.set_xticks(
        range(0, size, step),
        [drawing.short(name) for name in names[::step]],
        rotation=90 * (max(map(len, names)) > 3),
    )
    axes.set_yticks(range(0, size, step), [drawing.short(name) for name in names[::step]])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if size <= MAX_WRITTEN_CLASSES:
        _write_cells(axes, matrix, half=top / 2)
    bar = figure.colorbar(image, shrink=0.9, format=drawing.tick)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    apart = finite([value for i, row in enumerate(matrix) for j, value in enumerate(row) if i != j])
    alternative = f"Heat map of the distances between {size} class means {which} the map" + (
        f": smallest {quantity(min(apart))}, largest {quantity(max(apart))}." if apart else "."
    )
    return Drawing(
        name=f"distances-{which}",
        title="Class distances" if are_same else title,
        caption=f"Distance between the mean states of each pair of classes: a brighter cell is a pair that lies further apart. {kept}",
        alternative=alternative,
        svg=drawing.inline_svg(figure, f"distances-{which}", alternative),
        table=drawing.table(["class", *names], [[name, *row] for name, row in zip(names, matrix, strict=True)]),
    )


def _is_kept(series: dict[str, Any]) -> tuple[bool, str]:
    """Return whether the distances after the map are those before it, to rounding, and what the caption says of it."""
    before, after = ([numbers(row) for row in sequence(series.get(key))] for key in ("before", "after"))
    if before == after:
        return bool(before), ""
    is_comparable = [len(row) for row in before] == [len(row) for row in after]
    flat_before, flat_after = ([value for row in matrix for value in row] for matrix in (before, after))
    largest = max(finite(flat_before), default=0.0)
    pairs = zip(flat_before, flat_after, strict=is_comparable)
    if is_comparable and all(abs(one - other) <= KEPT * largest for one, other in pairs):
        return True, "The orthogonal map keeps each of them, to rounding, so one matrix shows both."
    return False, "Before and after the orthogonal map share one colour scale."


def _write_cells(axes: Any, matrix: list[list[float]], *, half: float) -> None:
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            # The colour map is dark below its middle, in either scheme of the page.
            colour = "#ffffff" if value < half else "#111111"
            axes.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=9.5, color=colour)


distances_before = partial(distances, which="before")
distances_after = partial(distances, which="after")
