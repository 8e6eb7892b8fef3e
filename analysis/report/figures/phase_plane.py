"""Level sets of V, the stabilised field and its trajectories on a plane through V's centre."""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

from analysis.findings.values import mapping, mappings, number, numbers, printable, sequence
from analysis.report import drawing
from analysis.report.drawing import INK, MUTED, SERIES, Drawing
from analysis.report.figures.series import class_name, finite, require
from analysis.report.quantities import quantity

LEVELS = 9
LARGEST = 1e100  # numbers beyond it overflow in the drawing
MAX_GRID = 101
MAX_PATHS = 40
MAX_POINTS = 1200  # of a trajectory
_CLOSE = 1e-6  # to the plane, as a fraction of its half width
_PLANES = {
    "growth": "Across: the direction in which V grows fastest; up: of those at right angles to it, the slowest.",
    "classes": "The plane goes through V’s centre and the marked equilibria.",
}


def plane(title: str, series: dict[str, Any], which: str) -> Drawing:
    """Draw the plane ``which``, "growth" or "classes"."""
    found = mapping(series.get("planes"))
    require(not found.get("not_drawn"), printable(found.get("not_drawn")))
    shown = mapping(found.get(which))
    has_marks = bool(mappings(shown.get("marks")))
    require(which != "classes" or has_marks, "no other equilibrium was found that it could go through")
    axis, value = _values(shown)
    figure, axes = drawing.new_axes("distance from V’s centre", "", size=(5.6, 5.6))
    finite_values = finite([height for row in value for height in row])
    require(finite_values)
    _draw_levels(axes, axis, value, min(finite_values), max(finite_values))
    _draw_field(axes, shown)
    paths = _draw_paths(axes, shown)
    names = [class_name(series, mark.get("class")) for mark in mappings(shown.get("marks"))]
    marks = _draw_marks(axes, shown, names, axis[-1], is_anchored=found.get("centre") == "equilibrium")
    axes.set_xlim(axis[0], axis[-1])
    axes.set_ylim(axis[0], axis[-1])
    axes.set_aspect("equal")
    axes.grid(visible=False)
    figure.legend(loc="outside upper left", frameon=False, ncols=2, columnspacing=1.2)
    lost = sum(map(len, value)) - len(finite_values)
    ends = finite(numbers(shown.get("ends")))
    far = f" {paths} trajectories end at most {quantity(max(ends))} from the centre." if ends else ""
    alternative = (
        f"Level sets of V on a plane {quantity(axis[-1] - axis[0])} wide: V is least {quantity(min(finite_values))} and at most "
        f"{quantity(max(finite_values))}.{far}{marks} V is not finite at {lost} of {len(axis) ** 2} points."
    )
    table = drawing.table(["up, across", *map(quantity, axis)], [[y, *row] for y, row in zip(axis, value, strict=True)])
    return Drawing(
        name=f"plane-{which}",
        title=title,
        caption=_caption(found, shown, class_name(series, found.get("class")), which, lost),
        alternative=alternative,
        svg=drawing.inline_svg(figure, f"plane-{which}", alternative),
        table=replace(table, note=f"{table.note} The arrows and trajectories are in report.json.".strip()),
    )


def _values(shown: dict[Any, Any]) -> tuple[list[float], list[list[float]]]:
    """Return a rising axis of k finite numbers and V, k x k, over it; raise where they are none."""
    axis = numbers(shown.get("axis"))
    rows = [numbers(row) for row in sequence(shown.get("value"))[: MAX_GRID + 1]]
    require(2 <= len(axis) <= MAX_GRID and len(rows) == len(axis) and all(len(row) == len(axis) for row in rows))
    require(all(abs(x) < LARGEST for x in axis) and all(low < high for low, high in pairwise(axis)))
    require(not any(abs(x) >= LARGEST for row in rows for x in finite(row)))
    return axis, rows


def _draw_levels(axes: Any, axis: list[float], value: list[list[float]], low: float, high: float) -> None:
    """Draw level sets at the squares of even steps: rings at even distances where V is quadratic, and darker towards its least."""
    import numpy as np

    levels = sorted({low + (high - low) * (step / LEVELS) ** 2 for step in range(1, LEVELS)} - {low, high})
    if not levels:
        return  # V is the same everywhere
    heights = np.ma.masked_invalid(np.array(value))
    for level in levels:
        axes.contourf(axis, axis, heights, [low - (high - low), level], colors=[SERIES[0]], alpha=0.07)
    lines = axes.contour(axis, axis, heights, levels, colors=[SERIES[0]], linewidths=1.0, alpha=0.8)
    axes.clabel(lines, lines.levels[1::2], fmt=lambda level: quantity(float(f"{level:.3g}")), fontsize=9)
    axes.plot([], [], color=SERIES[0], linewidth=1.0, label="level set of V")


def _draw_field(axes: Any, shown: dict[Any, Any]) -> None:
    """Draw the field's direction on the plane, as arrows of one length; none where it does not move there."""
    axis = numbers(shown.get("arrow_axis"))
    rows = [[numbers(arrow) for arrow in sequence(row)] for row in sequence(shown.get("arrows"))[: MAX_GRID + 1]]
    require(2 <= len(axis) <= MAX_GRID and len(rows) == len(axis) and all(abs(x) < LARGEST for x in axis))
    require(all(len(row) == len(axis) and all(len(arrow) == 2 for arrow in row) for row in rows))
    length = 0.7 * abs(axis[1] - axis[0])
    arrows = []
    for y, row in zip(axis, rows, strict=True):
        for x, (u, v) in zip(axis, row, strict=True):
            speed = math.hypot(u, v)
            if 0 < speed < LARGEST:
                arrows.append((x, y, length * u / speed, length * v / speed))
    if arrows:
        style = {"angles": "xy", "scale_units": "xy", "scale": 1, "pivot": "mid"}
        style |= {"width": 0.0035, "headwidth": 5.5, "headlength": 6, "headaxislength": 5.4}
        axes.quiver(*zip(*arrows, strict=True), color=MUTED, **style)
    axes.plot([], [], color=MUTED, linestyle="", marker=">", markersize=6, label="stabilised field")


def _draw_paths(axes: Any, shown: dict[Any, Any]) -> int:
    """Draw the trajectories with a dot where each begins, and return how many."""
    paths = [[numbers(point) for point in sequence(path)] for path in sequence(shown.get("paths"))[:MAX_PATHS]]
    require(all(0 < len(path) <= MAX_POINTS for path in paths))
    require(all(len(point) == 2 and max(map(abs, point)) < LARGEST for path in paths for point in path))
    style = {"color": SERIES[1], "linewidth": 1.5, "marker": "o", "markersize": 3.5}
    for path in paths:
        axes.plot(*zip(*path, strict=True), markevery=[0], zorder=3, **style)
    if paths:
        axes.plot([], [], label="trajectory", **style)
    return len(paths)


def _draw_marks(axes: Any, shown: dict[Any, Any], names: list[str], reach: float, *, is_anchored: bool) -> str:
    """Draw the centre and the marked equilibria, of classes ``names``, on a plane that reaches so far, and say where they are."""
    own = "V’s centre, the equilibrium" if is_anchored else "V’s centre"
    axes.plot([0], [0], color=INK, marker="+", markersize=13, markeredgewidth=2, linestyle="", zorder=4, label=own)
    said = ""
    for index, mark in enumerate(mappings(shown.get("marks"))[: len(SERIES)]):
        position, name = numbers(mark.get("position")), names[index]
        require(len(position) == 2 and all(abs(x) < LARGEST for x in position))
        label = "its own equilibrium" if mark.get("own") is True else f"equilibrium, class {name}"
        off = number(mark.get("off"))
        colour = SERIES[2 + index % 2]
        style = {"marker": "s" if index % 2 else "D", "markersize": 8, "linestyle": "", "markeredgecolor": INK}
        # Hollow where the equilibrium lies off the plane, and only its projection is seen.
        face = colour if off < _CLOSE * reach else "none"
        axes.plot(position[:1], position[1:], markerfacecolor=face, zorder=4, label=drawing.short(label), **style)
        said += f" {label.capitalize()}: {quantity(position[0])} across, {quantity(position[1])} up, {quantity(off)} off the plane."
    return said


def _caption(found: dict[Any, Any], shown: dict[Any, Any], name: str, which: str, lost: int) -> str:
    """Say what the plane is, what a reader sees on it, and what is not as it should be."""
    said = (
        f"Test image {printable(found.get('image'))}, class {name}. {_PLANES[which]} V is an energy "
        "that the stabilised field has to lower, so that trajectories run down to the middle of the rings."
    )
    if number(found.get("dim")) > 2:
        said += " Arrows and trajectories live in all dimensions and are seen here in projection."
    if found.get("centre") == "origin":
        said += " V is centred at the origin, whatever the image"
        speed = number(found.get("speed_at_equilibrium"))
        drawn_away = ": states are drawn there, and not to the image’s own equilibrium, where the stabilised field moves at speed"
        said += f"{drawn_away} {quantity(speed)}." if speed > 0 else "."
    elif which == "classes" and mappings(shown.get("marks")):
        said += " The marks are where images of other classes rest: each image has a V and a field of its own."
    off = [number(mark.get("off")) for mark in mappings(shown.get("marks"))]
    if any(distance > _CLOSE * max(numbers(shown["axis"])) for distance in off):
        said += f" The hollow mark lies {quantity(max(off))} off the plane."
    until, horizon = number(shown.get("until")), number(shown.get("horizon"))
    if until < horizon:
        said += f" The trajectories were followed to t = {quantity(until)} of {quantity(horizon)}: the field is stiff there."
    stopped = number(shown.get("stopped"))
    if stopped > 0:
        said += f" {quantity(int(stopped))} trajectories end where the field is not finite."
    return said + (f" V is not finite at {lost} points, left blank." if lost else "")


growth_plane = partial(plane, which="growth")
classes_plane = partial(plane, which="classes")
