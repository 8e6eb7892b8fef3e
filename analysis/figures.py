"""The figures of a report, each drawn from one series of ``report.json``; a missing one is a gap that is said.

``plot_comparison`` draws the report's figure of convergence as a file of its own, for ``stabdeq solvers``.
"""

import math
from collections.abc import Sequence
from typing import Any

from analysis import drawing
from analysis.drawing import DASHES, INK, MUTED, PAPER, SERIES, Drawing
from analysis.reading import mapping, number, numbers, printable, quantity, sequence

# More points than this are drawn as a picture, more classes without the number in each cell.
MAX_VECTOR_POINTS = 2000
MAX_WRITTEN_CLASSES = 12


def draw(check: str, series: dict[str, Any]) -> tuple[list[Drawing], list[str]]:
    """Return the figures of ``check`` from its ``series``, and a sentence for each that could not be drawn."""
    drawings, missing = [], []
    for title, make in _FIGURES.get(check, {}).items():
        try:
            with drawing.page_style():
                drawings.append(make(title, series))
        except (ValueError, TypeError, ArithmeticError):
            # The series is foreign data: what is wrong with it costs this one figure, and the page says so.
            missing.append(f"“{title}” is not drawn: the report holds no usable numbers for it.")
    return drawings, missing


def _convergence(title: str, series: dict[str, Any]) -> Drawing:
    solvers = {printable(name): mapping(curve) for name, curve in mapping(series.get("solvers")).items()}
    solvers = {name: curve for name, curve in solvers.items() if _finite(numbers(curve.get("median")))}
    _require(solvers)
    figure, axes = drawing.new_axes("evaluations of the cell", "residual")
    shares = {name: number(curve.get("converged")) for name, curve in solvers.items()}
    percent = {name: "" if math.isnan(share) else f", {100 * share:.3g} %" for name, share in shares.items()}
    labels = {name: drawing.short(name) + percent[name] for name in solvers}
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
        "Lines are medians over images, bands span the quantiles listed in the data, and the percentage is the "
        "share of images that converged. Lower is better.",
        alternative=alternative,
        svg=drawing.inline_svg(figure, "convergence", alternative),
        table=drawing.table(["solver", "evaluations", "median", "lower", "upper"], rows),
    )


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


def _spectrum(title: str, series: dict[str, Any]) -> Drawing:
    pairs = [numbers(pair) for pair in sequence(series.get("eigenvalues"))]
    # The largest real part first, so that a shortened table keeps what stability hangs on.
    points = sorted((pair for pair in pairs if len(pair) == 2 and all(map(math.isfinite, pair))), reverse=True)
    _require(points)
    figure, axes = drawing.new_axes("real part", "imaginary part", size=(5.6, 4.7))
    angles = [2 * math.pi * step / 180 for step in range(181)]
    circle = [math.cos(angle) for angle in angles], [math.sin(angle) for angle in angles]
    many = len(points) > MAX_VECTOR_POINTS
    # A picture cannot follow the page's scheme: a middle blue reads on both.
    colour = "#3b8bd0" if many else SERIES[0]
    axes.scatter(
        *zip(*points, strict=True),
        s=18,
        color=colour,
        alpha=0.7,
        linewidths=0,
        rasterized=many,
        label="eigenvalues",
    )
    axes.plot(*circle, color=SERIES[2], linewidth=1.6, linestyle=DASHES[1], label="unit circle")
    axes.axvline(1, color=SERIES[1], linewidth=1.6, label="Re = 1")
    axes.set_aspect("equal", adjustable="datalim")
    figure.legend(loc="outside upper left", frameon=False, ncols=3)
    radius = max(math.hypot(*point) for point in points)
    alternative = (
        f"Scatter plot of {len(points)} eigenvalues: the largest real part is {quantity(points[0][0])}, "
        f"the largest modulus {quantity(radius)}."
    )
    return Drawing(
        name="spectrum",
        title=title,
        caption="The flow is locally stable when every point lies left of the line Re = 1. Plain fixed-point "
        "iteration converges locally when every point lies inside the unit circle: another question.",
        alternative=alternative,
        svg=drawing.inline_svg(figure, "spectrum", alternative),
        table=drawing.table(["real part", "imaginary part"], points),
    )


def _flow(title: str, series: dict[str, Any]) -> Drawing:
    curves = mapping(series.get("flow"))
    times = numbers(curves.get("times"))
    median, maximum, bound = (drawing.padded(curves.get(key), len(times)) for key in ("median", "maximum", "bound"))
    _require(_finite(times) and _finite(median + maximum))
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


def _raw_field(title: str, series: dict[str, Any]) -> Drawing:
    curves = mapping(series.get("raw"))
    rates = numbers(curves.get("violation_rate"))
    radii, upper = (drawing.padded(curves.get(key), len(rates)) for key in ("radii", "upper"))
    _require(_finite(rates) and _finite(radii))
    figure, axes = drawing.new_axes("distance from the centre", "share of states")
    reach = [max(high - rate, 0.0) if math.isfinite(high) else 0.0 for rate, high in zip(rates, upper, strict=True)]
    style = {"marker": "o", "markersize": 6, "capsize": 5, "linewidth": 1.2, "elinewidth": 1.6}
    axes.errorbar(radii, rates, yerr=[[0.0] * len(rates), reach], color=SERIES[0], **style)
    if min(radii) > 0 and max(radii) > 20 * min(radii):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: drawing.power_of_ten(value))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.tick_params(which="both", length=0)
    highest = max(_finite(rates + upper))
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


def _accuracy(title: str, series: dict[str, Any]) -> Drawing:
    accuracy = numbers(series.get("accuracy"))
    eps, lower, upper = (drawing.padded(series.get(key), len(accuracy)) for key in ("eps", "lower", "upper"))
    levels = [255 * value for value in eps]
    _require(_finite(accuracy) and _finite(levels))
    figure, axes = drawing.new_axes("eps, in grey levels (255 allows any image)", "images right")
    axes.fill_between(levels, lower, upper, color=SERIES[0], alpha=0.18, linewidth=0)
    axes.plot(levels, accuracy, color=SERIES[0], marker="o", markersize=5, label="PGD")
    clean, worst, at = (number(series.get(key)) for key in ("clean", "worst", "compared_at"))
    if math.isfinite(clean):
        axes.axhline(clean, color=MUTED, linewidth=1.2, linestyle=":", label=f"clean, {100 * clean:.3g} %")
    if math.isfinite(worst) and math.isfinite(at):
        label = f"worst of all attacks, {100 * worst:.3g} %"
        axes.plot([255 * at], [worst], color=SERIES[1], marker="D", markersize=8, linestyle="", label=label)
    # Linear from 0 to the smallest radius, which a log scale could not show beside the row of eps = 0.
    smallest = min((level for level in levels if level > 0), default=1.0)
    axes.set_xscale("symlog", linthresh=smallest)
    axes.set_xlim(-0.3 * smallest, 1.3 * max(_finite(levels)))
    axes.set_xticks([0, *(level for level in (1 / 8, 1, 8, 64, 255) if level > smallest)])
    axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %" if 0 <= value < 1.01 else "")
    figure.legend(loc="outside upper left", frameon=False, ncols=2)
    pairs = [f"{100 * share:.3g} % at {quantity(level)}" for share, level in zip(accuracy, levels, strict=True)]
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


def _distances(title: str, series: dict[str, Any], which: str) -> Drawing:
    matrix = [numbers(row) for row in sequence(series.get(which))]
    size = len(matrix)
    _require(size and all(len(row) == size for row in matrix) and any(map(_finite, matrix)))
    both = [value for key in ("before", "after") for row in sequence(series.get(key)) for value in numbers(row)]
    names = [printable(name) for name in sequence(series.get("classes"))][:size]
    names += [str(index) for index in range(len(names), size)]
    figure, axes = drawing.new_axes("", "", size=(5.6, 4.8))
    top = max(_finite(both)) or 1.0
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
    bar = figure.colorbar(image, shrink=0.9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    apart = _finite([value for i, row in enumerate(matrix) for j, value in enumerate(row) if i != j])
    alternative = f"Heat map of the distances between {size} class means {which} the map" + (
        f": smallest {quantity(min(apart))}, largest {quantity(max(apart))}." if apart else "."
    )
    return Drawing(
        name=f"distances-{which}",
        title=title,
        caption="Distance between the mean states of each pair of classes. Both maps share one colour scale; "
        "a brighter cell is a pair that lies further apart.",
        alternative=alternative,
        svg=drawing.inline_svg(figure, f"distances-{which}", alternative),
        table=drawing.table(["class", *names], [[name, *row] for name, row in zip(names, matrix, strict=True)]),
    )


def _write_cells(axes: Any, matrix: list[list[float]], *, half: float) -> None:
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            # The colour map is dark below its middle, in either scheme of the page.
            colour = "#ffffff" if value < half else "#111111"
            axes.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=9.5, color=colour)


def _finite(values: list[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _require(usable: Any) -> None:
    if not usable:
        raise ValueError("the series holds no usable numbers")


_FIGURES = {
    "convergence": {"Residual against evaluations": _convergence},
    "spectrum": {"Eigenvalues of the cell’s Jacobian at the equilibrium": _spectrum},
    "decay": {
        "V along trajectories of the stabilised field": _flow,
        "Violations of the unprojected field": _raw_field,
    },
    "robustness": {"Accuracy against eps": _accuracy},
    "separation": {
        "Class distances before the orthogonal map": lambda title, series: _distances(title, series, "before"),
        "Class distances after the orthogonal map": lambda title, series: _distances(title, series, "after"),
    },
}
