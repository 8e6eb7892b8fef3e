"""Certified accuracy against the radius, of one model for its report, and of several for a comparison."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from analysis.findings.values import mapping, number, numbers, sequence
from analysis.report import drawing
from analysis.report.drawing import DASHES, MUTED, SERIES, Drawing
from analysis.report.figures.series import finite, require
from analysis.report.quantities import quantity
from stabdeq.percent import percent_in_digits

Norm = Literal["l2", "linf"]
MAX_CURVES = 20
STEPS = 200  # of the radius, at which the share of images with at least that is drawn
AXES = {"l2": "l2 radius, in pixels of [0, 1]", "linf": "eps, in grey levels of 255"}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Shares of images right within ``radii``: ``certified``, which no change in reach turns, or seen under an attack."""

    label: str
    radii: list[float]
    shares: list[float]
    certified: bool = True


def accuracy(title: str, series: dict[str, Any], norm: Norm) -> Drawing:
    """Draw certified accuracy in ``norm`` from what a certification wrote down, beside the clean accuracy."""
    curve = certified_curve("certified", series, norm)
    require(curve)
    assert curve is not None
    return _drawing(title, norm, [curve], _clean(series))


def compared(title: str, reports: Mapping[str, Mapping[str, Any]], norm: Norm) -> Drawing | None:
    """Draw the curves of several reports, by what they are called the series of each; None where none holds a certified one.

    An audit's accuracy under PGD, in l-infinity, is drawn where one has it.
    """
    curves = []
    for name, series in reports.items():
        curves.append(certified_curve(f"{name} certified", mapping(series.get("certify")), norm))
        if norm == "linf":
            curves.append(_attacked(f"{name} under PGD", mapping(series.get("robustness"))))
    drawn = [curve for curve in curves if curve is not None]
    if not any(curve.certified for curve in drawn):
        return None
    require(len(drawn) <= MAX_CURVES, f"{len(drawn)} are too many curves to draw")
    return _drawing(title, norm, drawn, math.nan)


def certified_curve(label: str, series: Mapping[str, Any], norm: Norm) -> Curve | None:
    """Return the curve that the ``series`` of a certification holds, None where there is none to read."""
    return (
        _of_radii(label, mapping(series.get("radii"))) if norm == "l2" else _of_eps(label, mapping(series.get("linf")))
    )


def _of_radii(label: str, series: Mapping[str, Any]) -> Curve | None:
    radius, right = numbers(series.get("radius")), _right(series)
    if not radius or len(radius) != len(right):
        return None
    certified = [size if is_right else -1.0 for size, is_right in zip(radius, right, strict=True)]
    top = max([size for size in finite(certified) if size > 0], default=1.0)
    grid = [top * step / STEPS for step in range(STEPS + 1)]
    return Curve(
        label=label, radii=grid, shares=[sum(size >= least for size in certified) / len(radius) for least in grid]
    )


def _of_eps(label: str, series: Mapping[str, Any]) -> Curve | None:
    eps, flags = mapping(series.get("eps")), mapping(series.get("certified"))
    points = sorted((255 * number(eps.get(name)), sequence(listed)) for name, listed in flags.items())
    points = [(level, listed) for level, listed in points if math.isfinite(level) and listed]
    if not points:
        return None
    shares = [sum(flag is True for flag in listed) / len(listed) for _, listed in points]
    return Curve(label=label, radii=[level for level, _ in points], shares=shares)


def _attacked(label: str, series: Mapping[str, Any]) -> Curve | None:
    shares = numbers(series.get("accuracy"))
    levels = [255 * value for value in drawing.padded(series.get("eps"), len(shares))]
    pairs = [(level, share) for level, share in zip(levels, shares, strict=True) if math.isfinite(level + share)]
    if not pairs:
        return None
    return Curve(label=label, radii=[pair[0] for pair in pairs], shares=[pair[1] for pair in pairs], certified=False)


def _right(series: Mapping[str, Any]) -> list[bool]:
    labels, predicted = sequence(series.get("labels")), sequence(series.get("predicted"))
    return [one == other for one, other in zip(labels, predicted, strict=False)]


def _clean(series: Mapping[str, Any]) -> float:
    right = _right(mapping(series.get("radii")))
    return sum(right) / len(right) if right else math.nan


def _drawing(title: str, norm: Norm, curves: Sequence[Curve], clean: float) -> Drawing:
    figure, axes = drawing.new_axes(AXES[norm], "images right")
    furthest = 1.05 * max(max(curve.radii) for curve in curves if curve.certified) or 1.0
    for index, curve in enumerate(curves):
        is_stepped = norm == "linf" and curve.certified
        # What is certified at one eps is so at each smaller one, down to 0.
        start = ([0.0], curve.shares[:1]) if is_stepped else ([], [])
        (line,) = axes.plot(
            start[0] + curve.radii,
            start[1] + curve.shares,
            color=SERIES[index % len(SERIES)],
            linestyle=DASHES[(index + index // len(SERIES)) % len(DASHES)],
            label=drawing.short(curve.label),
        )
        if norm == "linf":
            line.set(marker="o" if curve.certified else "X", markersize=6, markevery=(len(start[0]), 1))
            line.set_drawstyle("steps-pre" if is_stepped else "default")
    if math.isfinite(clean):
        axes.axhline(clean, color=MUTED, linewidth=1.2, linestyle=":", label=f"clean, {percent_in_digits(clean)}")
    axes.set_xlim(0, furthest)
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %" if 0 <= value < 1.01 else "")
    figure.legend(loc="outside upper left", frameon=False, ncols=2)
    rows = [[curve.label, *pair] for curve in curves for pair in _told(curve)]
    said = [f"{label} {percent_in_digits(float(share))} at {quantity(radius)}" for label, radius, share in rows[:20]]
    alternative = f"Line chart of the images right by radius: {'; '.join(said)}."
    return Drawing(
        name=f"certified-{norm}",
        title=title,
        caption=_caption(norm, any(not curve.certified for curve in curves)),
        alternative=alternative,
        svg=drawing.inline_svg(figure, f"certified-{norm}", alternative),
        table=drawing.table(["curve", AXES[norm], "images right"], rows),
    )


def _told(curve: Curve) -> list[tuple[float, float]]:
    """Return the points of a curve that its table lists: all where they are few, else each twentieth."""
    points = list(zip(curve.radii, curve.shares, strict=True))
    return points if len(points) <= 20 else points[:: len(points) // 20]


def _caption(norm: Norm, is_attacked: bool) -> str:
    reach = "that moves it no further than the radius" if norm == "l2" else "that moves each pixel by at most eps"
    said = f"Images that are classified as labelled, and proved to be so after any change {reach}."
    if norm == "linf":
        said += " Each marked eps was proved on its own; it holds for all smaller ones."
    return said + (" Under PGD is what an attack left, which a stronger one may lower." if is_attacked else "")


l2 = partial(accuracy, norm="l2")
linf = partial(accuracy, norm="linf")
