"""The states of the images in two dimensions, clean and attacked, before and after the orthogonal layer."""

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.findings.values import mapping, number, numbers, printable, sequence
from analysis.report import drawing
from analysis.report.drawing import INK, MUTED, Drawing
from analysis.report.figures.separation import KEPT
from analysis.report.figures.series import class_name, require
from analysis.report.quantities import quantity
from stabdeq.percent import percent

# Okabe & Ito 2008, told apart by every kind of colour vision, with two more for ten classes; all read on light and on dark.
COLOURS = (
    "#0a7cc0", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK, "#a39500", "#8f5bb5", "#8b929a",
)  # fmt: skip
# Each ten classes have marks of their own; a wrong prediction is always some cross.
RIGHT, WRONG = ("o", "s", "^", "D", "v"), ("x", "+", "1", "2", "3")
MAX_NAMED = 40  # more classes have no legend
MAX_STATES = 1000
MAX_CLASSES = 200
HALVES = ("clean", "PGD, 8/255")

Point = Sequence[float]


def draw_maps(
    figure: Any,
    maps: Mapping[str, Sequence[Point]],
    classes: Sequence[int],
    right: Sequence[bool],
    names: Sequence[str],
    colours: Mapping[str, str],
) -> None:
    """Fill ``figure`` with a row for each of ``maps``, and a panel for the clean and for the attacked half of its points.

    A map holds M points, N clean ones and, where M is 2N, the attacked ones; ``classes`` (N,) index ``names``, ``right`` (M,)
    says whose prediction was right. ``colours`` replace the stand-ins of the page where a figure is a file of its own.
    """
    count, columns = len(classes), len(right) // len(classes)
    panels = figure.subplots(len(maps), columns, sharex="row", sharey="row", squeeze=False)
    for row, (layer, points) in zip(panels, maps.items(), strict=True):
        for column, axes in enumerate(row):
            part = slice(column * count, (column + 1) * count)
            _scatter(axes, points[part], classes, right[part], names, colours)
            share = sum(right[part]) / count
            name = f"{layer}, {HALVES[column]}" if len(maps) > 1 else HALVES[column]
            axes.set_title(f"{name}: {percent(share, 1)} right", fontsize=11)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=colours.get(MUTED, MUTED))
    if len(names) <= MAX_NAMED:
        handles, labels = panels[0, 0].get_legend_handles_labels()
        options = {"ncols": 5, "frameon": False, "markerscale": 1.6, "handletextpad": 0.2, "columnspacing": 1.2}
        figure.legend(handles, labels, loc="outside lower center", **options)


def _scatter(
    axes: Any,
    points: Sequence[Point],
    classes: Sequence[int],
    right: Sequence[bool],
    names: Sequence[str],
    colours: Mapping[str, str],
) -> None:
    looks = len(COLOURS) * len(RIGHT)  # classes that look the same are drawn together
    groups: dict[tuple[int, bool], list[Point]] = {}
    for point, own, held in zip(points, classes, right, strict=True):
        groups.setdefault((own % looks, held), []).append(point)
    for index, name in enumerate(names[:looks]):
        colour, turn = COLOURS[index % len(COLOURS)], index // len(COLOURS)
        for is_right, marks in ((True, RIGHT), (False, WRONG)):
            chosen = groups.get((index, is_right), [])
            axes.scatter(
                [x for x, _ in chosen],
                [y for _, y in chosen],
                s=13 if is_right else 26,
                marker=marks[turn],
                color=colours.get(colour, colour),
                linewidths=0 if is_right else 1.2,
                label=drawing.short(name) if is_right else None,
            )


def states(title: str, series: dict[str, Any]) -> Drawing:
    """Draw the t-SNE maps of the audited images' states."""
    found = mapping(series.get("embedding"))
    require(not found.get("not_drawn"), printable(found.get("not_drawn")))
    named = {printable(label): class_name(series, label) for label in sequence(found.get("labels"))}
    labels = [printable(label) for label in sequence(found.get("labels"))]
    right, distortion = sequence(found.get("right")), number(found.get("distortion"))
    count = len(labels)
    maps = {
        name: [numbers(point) for point in sequence(points)]
        for name, points in mapping(found.get("maps")).items()
        if name == "before" or (name == "after" and not distortion <= KEPT)
    }
    require(0 < count <= MAX_STATES and len(right) in (count, 2 * count) and maps)
    require(
        all(isinstance(value, bool) for value in right) and all(len(points) == len(right) for points in maps.values())
    )
    require(all(len(point) == 2 and all(abs(x) < 1e30 for x in point) for points in maps.values() for point in points))
    kinds = sorted(named, key=lambda label: (len(label), label))
    require(len(kinds) <= MAX_CLASSES, f"{len(kinds)} are too many classes to draw")
    classes, names = [kinds.index(label) for label in labels], [named[label] for label in kinds]
    figure = drawing.new_figure((5.6, 1.2 + 2.5 * len(maps)))
    draw_maps(figure, maps, classes, right, names, {})
    attacked = len(right) > count
    shares = [sum(right[start : start + count]) / count for start in range(0, len(right), count)]
    alternative = (
        f"Scatter plots of {count} states of {len(names)} classes"
        + (f", {' and '.join(maps)} the orthogonal layer" if len(maps) > 1 else "")
        + f": {percent(shares[0], 1)} of the clean images are right"
        + (f", and {percent(shares[1], 1)} under PGD." if attacked else ".")
    )
    return Drawing(
        name="states",
        title=title,
        caption=_caption(found, attacked, len(names)),
        alternative=alternative,
        svg=drawing.inline_svg(figure, "states", alternative),
        table=drawing.table(
            ["map", "images", "class", "x", "y", "right"],
            [
                [name, HALVES[place // count], named[labels[place % count]], *point, "yes" if right[place] else "no"]
                for name, points in maps.items()
                for place, point in enumerate(points)
            ],
        ),
    )


def _caption(found: dict[Any, Any], attacked: bool, classes: int) -> str:
    """Say what a reader sees, and what is left out and why."""
    said = (
        "Each mark is an image, placed by t-SNE so that states near each other stay so; long distances mean little. The colour is "
        "the true class, a cross a wrong prediction."
    )
    if classes > MAX_NAMED:
        said += " Marks repeat among so many classes: the data name each."
    elif classes > len(COLOURS):
        said += " Colours repeat every ten classes, with marks of another shape."
    if attacked:
        said += " On the right the same images, each pixel moved by at most 8 grey levels by the attack PGD."
    elif reason := printable(found.get("unattacked")):
        said += f" The attacked half is left out: {reason[:200].rstrip('.')}."
    distortion = number(found.get("distortion"))
    if "after" not in mapping(found.get("maps")):
        return said
    if distortion <= KEPT:
        return f"{said} After the orthogonal layer the map is the same: it keeps every distance."
    return f"{said} The orthogonal layer changes a distance by up to {quantity(distortion)} of the largest."
