"""How V falls along trajectories, where the unprojected field breaks its bound, and with what margin both fields keep it."""

import math
from typing import Any

from analysis.findings.values import mapping, mappings, number, numbers, printable
from analysis.report import drawing
from analysis.report.drawing import DASHES, INK, SERIES, Drawing
from analysis.report.figures.series import finite, require
from analysis.report.quantities import quantity

MAX_POINTS = 1000


def flow(title: str, series: dict[str, Any]) -> Drawing:
    """Draw V along trajectories against the bound exp(-alpha t), on a log axis."""
    curves = mapping(series.get("flow"))
    require(not curves.get("not_drawn"), printable(curves.get("not_drawn")))
    times = numbers(curves.get("times"))
    _require_few(times)
    median, maximum, bound = (drawing.padded(curves.get(key), len(times)) for key in ("median", "maximum", "bound"))
    require(finite(times) and finite(median + maximum))
    figure, axes = drawing.new_axes("time t", "V(z(t)) / V(z(0))")
    axes.plot(times, drawing.positive(bound), color=SERIES[1], linestyle=DASHES[1], label="bound exp(−αt)")
    axes.plot(times, drawing.positive(maximum), color=SERIES[0], label="largest")
    axes.plot(times, drawing.positive(median), color=SERIES[2], linestyle=DASHES[2], label="median")
    drawing.log_scale(axes)
    figure.legend(loc="outside upper left", frameon=False, ncols=3)
    above = sum(value > limit * (1 + 1e-9) for value, limit in zip(maximum, bound, strict=True))
    alternative = (
        f"Line chart on a log scale: the largest value of all trajectories ends at "
        f"{quantity(drawing.last(maximum))}, the bound at {quantity(drawing.last(bound))}; "
        f"the largest value lies above the bound at {above} of {len(times)} times."
    )
    return Drawing(
        name="flow",
        title=title,
        caption="The claim: every trajectory stays on or below the bound, and so approaches the equilibrium "
        "at the promised rate or faster.",
        alternative=alternative,
        svg=drawing.inline_svg(figure, "flow", alternative),
        table=drawing.table(
            ["time", "median", "largest", "bound"],
            [list(row) for row in zip(times, median, maximum, bound, strict=True)],
        ),
    )


def raw_field(title: str, series: dict[str, Any]) -> Drawing | None:
    """Draw the share of states at which the unprojected field violates the decay, by distance; None where none does."""
    curves = mapping(series.get("raw"))
    rates = numbers(curves.get("violation_rate"))
    _require_few(rates)
    radii, upper = (drawing.padded(curves.get(key), len(rates)) for key in ("radii", "upper"))
    require(finite(rates) and finite(radii))
    if not any(rates):
        return None  # which the measurement beside it says
    figure, axes = drawing.new_axes("distance from the centre", "share of states")
    reach = [max(high - rate, 0.0) if math.isfinite(high) else 0.0 for rate, high in zip(rates, upper, strict=True)]
    style = {"marker": "o", "markersize": 6, "capsize": 5, "linewidth": 1.2, "elinewidth": 1.6}
    axes.errorbar(radii, rates, yerr=[[0.0] * len(rates), reach], color=SERIES[0], **style)
    _log_distances(axes, radii)
    highest = max(finite(rates + upper))
    axes.set_ylim(-0.03 * highest - 1e-9, min(1.15 * highest + 1e-6, 1.05))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %" if value >= 0 else "")
    pairs = [f"{quantity(rate)} at {quantity(radius)}" for radius, rate in zip(radii, rates, strict=True)]
    alternative = f"Share of violating states by distance: {'; '.join(pairs[:20])}."
    return Drawing(
        name="raw-field",
        title=title,
        caption="How often the field breaks the decay bound before it is projected. Points: share of the "
        "sampled states; bars reach the 95 % upper bound.",
        alternative=alternative,
        svg=drawing.inline_svg(figure, "raw-field", alternative),
        table=drawing.table(
            ["distance", "share", "95 % upper bound"],
            [list(row) for row in zip(radii, rates, upper, strict=True)],
        ),
    )


def margin(title: str, series: dict[str, Any]) -> Drawing:
    """Draw the decay margin of the unprojected and of the stabilised field, by distance."""
    found = mapping(series.get("margin"))
    radii = numbers(found.get("radii"))
    _require_few(radii)
    fields = {name: mappings(found.get(name)) for name in ("unprojected", "stabilised")}
    require(len(finite(radii)) == len(radii) and all(len(rows) == len(radii) > 0 for rows in fields.values()))
    figure, axes = drawing.new_axes("distance from the centre", "decay margin")
    rows, ends = [], []
    for index, (name, spreads) in enumerate(fields.items()):
        worst, lower, median, upper = (
            [number(spread.get(key)) for spread in spreads] for key in ("worst", "lower", "median", "upper")
        )
        require(finite(worst) and max(map(abs, finite(worst + lower + median + upper))) < 1e9)
        axes.fill_between(radii, lower, upper, color=SERIES[index], alpha=0.18, linewidth=0)
        # The first is the wider, so that it is seen where the second lies on it.
        style: dict[str, Any] = {"color": SERIES[index], "linewidth": (4.5, 1.6)[index]}
        axes.plot(radii, median, label=f"{name}, median", **style)
        axes.plot(radii, worst, linestyle=DASHES[1], label=f"{name}, worst", **style)
        ends.append(
            f"{name}, median {quantity(drawing.last(median))} at the largest, worst of all {quantity(min(finite(worst)))}"
        )
        missing = [number(spread.get("not_finite")) for spread in spreads]
        rows += [[name, *row] for row in zip(radii, worst, lower, median, upper, missing, strict=True)]
    axes.axhline(0, color=INK, linewidth=1.2)
    _log_distances(axes, radii)
    figure.legend(loc="outside upper left", frameon=False, ncols=2)
    lost = sum(finite([row[-1] for row in rows]))
    alternative = (
        f"Line chart of the decay margin at {len(radii)} distances: {'; '.join(ends)}; "
        f"{quantity(int(lost))} states gave no number."
    )
    return Drawing(
        name="margin",
        title=title,
        caption="By how much V falls faster than promised, as a fraction of what it is computed from: 1 is the fastest possible, "
        "0 just what is promised, and below the line the promise is broken. Bands hold 90 % of the states. Stabilising should "
        "lift whatever lies below the line onto it, and leave the rest alone."
        + (f" {quantity(int(lost))} states gave no number and are not in the picture." if lost else ""),
        alternative=alternative,
        svg=drawing.inline_svg(figure, "margin", alternative),
        table=drawing.table(["field", "distance", "worst", "5 %", "median", "95 %", "states without a number"], rows),
    )


def _require_few(points: list[float]) -> None:
    require(len(points) <= MAX_POINTS, f"{len(points)} are too many points to draw")


def _log_distances(axes: Any, radii: list[float]) -> None:
    """Put the horizontal axis on a log scale where ``radii`` span more than one power of ten."""
    if min(radii) > 0 and max(radii) > 20 * min(radii):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: drawing.power_of_ten(value))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.tick_params(which="both", length=0)
