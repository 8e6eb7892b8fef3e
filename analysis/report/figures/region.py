"""The region that a user's V is judged on, in two dimensions: level sets of V, the dynamics, and where claims are refuted."""

import math
import textwrap
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from analysis.evidence.regions import Ball, Box
from analysis.evidence.sublevel import Sublevel
from analysis.findings import Verdict, exactly
from analysis.findings.values import numbers, printable
from analysis.findings.verdict import WORST_FIRST
from analysis.report import drawing
from analysis.report.drawing import INK, MUTED, PAPER, SERIES
from analysis.report.report import Report
from analysis.user_function.subject import Subject
from stabdeq.errors import EvaluationError

SUFFIXES = (".svg", ".png", ".pdf")
GRID, STREAMS, ARROWS = 161, 41, 17  # points along a side of the base, at which V, velocities and steps are evaluated
LEVELS = 6
WIDTH = 78  # characters of a line of the title
# Coordinates of units as different as this have scales of their own.
MOST_OBLONG = 2.5


def plot_region(
    subject: Subject, report: Report, suffix: str, *, motion: Callable[[Tensor], Tensor] | None, arrows: str
) -> bytes:
    """Return the content of a file, one of ``SUFFIXES``, that shows the region of ``subject`` and what ``report`` found on it.

    The states have 2 coordinates. ``motion`` is the velocity or the next state, (B, 2) -> (B, 2), and ``arrows`` its words.
    """
    low, high = _corners(subject.base)
    with drawing.page_style(PAPER):
        oblong = float((high - low).max() / (high - low).min())
        figure, axes = drawing.new_axes("z₁", "z₂", size=(7.2, 7.4))
        axes.set_aspect("equal" if oblong <= MOST_OBLONG else "auto")
        axes.grid(visible=False)
        edge = _draw_base(axes, subject.base)
        _draw_levels(axes, subject, low, high, edge)
        if motion is not None:
            draw = _draw_steps if subject.in_steps else _draw_velocity
            draw(axes, subject.base, motion, arrows)
        _draw_hole(axes, subject)
        _draw_refuted(axes, report)
        centre = subject.centre.tolist()
        style = {"marker": "+", "markersize": 13, "markeredgewidth": 2.2, "linestyle": ""}
        axes.plot(*[[x] for x in centre], color=PAPER[INK], zorder=6, label="centre", **style)
        (left, bottom), (right, top) = ((low - 0.03 * (high - low)).tolist(), (high + 0.03 * (high - low)).tolist())
        axes.set(xlim=(left, right), ylim=(bottom, top))
        figure.suptitle(_title(report), x=0.02, ha="left", fontsize=10.5)
        figure.legend(loc="outside lower left", frameon=False, ncols=2)
        return drawing.file_content(figure, suffix)


def _corners(base: Ball | Box) -> tuple[Tensor, Tensor]:
    if isinstance(base, Box):
        return base.low, base.high
    return base.centre - base.radius, base.centre + base.radius


def _grid(low: Tensor, high: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``count`` numbers across, as many up, and all the states (count^2, 2) with them as coordinates, row by row."""
    across, up = (torch.linspace(float(a), float(b), count, dtype=torch.float64) for a, b in zip(low, high, strict=True))
    return across, up, torch.stack(torch.meshgrid(across, up, indexing="xy"), -1).flatten(0, 1)


def _title(report: Report) -> str:
    """Return what was judged, and the claims under their verdicts, the worst first."""
    lines = textwrap.wrap(report.title, WIDTH)
    for verdict in WORST_FIRST:
        names = [printable(one.check) for one in report.findings if one.verdict is verdict]
        if names:
            lines += textwrap.wrap(f"{verdict.name}: {', '.join(names)}", WIDTH)
    return "\n".join(lines)


def _draw_base(axes: Any, base: Ball | Box) -> Any:
    """Draw where the ball or the box ends, and return that patch, to clip by."""
    from matplotlib.patches import Circle, Rectangle

    style = {"fill": False, "edgecolor": PAPER[INK], "linewidth": 1.4, "zorder": 4}
    low, high = _corners(base)
    if isinstance(base, Ball):
        patch: Any = Circle(tuple(base.centre.tolist()), base.radius, label=f"within {base.within}", **style)
    else:
        patch = Rectangle(tuple(low.tolist()), *(high - low).tolist(), label=base.words, **style)
    return axes.add_patch(patch)


def _draw_levels(axes: Any, subject: Subject, low: Tensor, high: Tensor, edge: Any) -> None:
    """Draw level sets of V, {V <= C} filled, {V < C1} hatched, all within the base."""
    import numpy as np

    across, up, states = _grid(low, high, GRID)
    # Outside of the base, where V need not be defined, nothing is shown; its edge stands in there.
    height = _evaluated(subject.value, subject.base.project(states), 1).reshape(GRID, GRID).numpy()
    heights = np.ma.masked_invalid(height)
    if heights.mask.any():
        axes.plot([], [], linestyle="", label=f"V is not finite at {int(heights.mask.sum())} of {GRID**2} points")
    if heights.count() == 0 or not heights.min() < heights.max():
        return
    at = (across.numpy(), up.numpy(), heights)
    least, most = float(heights.min()), float(heights.max())
    level, lower = subject.level, subject.region.lower if isinstance(subject.region, Sublevel) else -math.inf
    below = least - (most - least)
    blue = PAPER[SERIES[0]]
    if level < math.inf:
        filled = axes.contourf(*at, [min(below, level - 1), level], colors=[blue], alpha=0.2, zorder=0.5)
        filled.set_clip_path(edge)
        end = axes.contour(*at, [level], colors=[blue], linewidths=2.6, zorder=3)
        end.set_clip_path(edge)
        _swatch(axes, f"{{V ≤ {exactly(level)}}}", facecolor=(blue, 0.2), edgecolor=blue, linewidth=2.6)
    if lower > -math.inf:
        hole = axes.contourf(*at, [min(below, lower - 1), lower], colors=["white"], hatches=["////"], zorder=1.5)
        hole.set(edgecolor=PAPER[MUTED], linewidth=0)
        hole.set_clip_path(edge)
        start = axes.contour(*at, [lower], colors=[PAPER[INK]], linewidths=1.4, linestyles=["--"], zorder=3)
        start.set_clip_path(edge)
        words = f"{{V < {exactly(lower)}}}, left out"
        _swatch(axes, words, facecolor="white", edgecolor=PAPER[INK], linestyle="--", hatch="////", linewidth=1.4)
    # Rings at even distances where V is quadratic, the level itself being one of them.
    top = level if level < math.inf else most
    steps = [least + (top - least) * (step / LEVELS) ** 2 for step in range(1, 4 * LEVELS)]
    rings = sorted({one for one in steps if least < one < most and not math.isclose(one, level)})
    lines = axes.contour(*at, rings, colors=[blue], linewidths=0.9, alpha=0.75, zorder=1)
    lines.set_clip_path(edge)
    axes.plot([], [], color=blue, linewidth=0.9, label="level sets of V")


def _evaluated(function: Callable[[Tensor], Tensor], states: Tensor, columns: int) -> Tensor:
    """Return what ``function`` gives (B, columns) at ``states`` (B, 2), NaN where it raises."""
    try:
        with torch.no_grad():
            return function(states).reshape(len(states), columns)
    except EvaluationError:
        if len(states) == 1:
            return states.new_full((1, columns), math.nan)
        return torch.cat([_evaluated(function, half, columns) for half in states.tensor_split(2)])


def _draw_velocity(axes: Any, base: Ball | Box, motion: Callable[[Tensor], Tensor], words: str) -> None:
    across, up, states = _grid(*_corners(base), STREAMS)
    inside = base.contains(states)
    velocity = torch.full_like(states, math.nan)
    velocity[inside] = _evaluated(motion, states[inside], 2)
    u, v = velocity.unflatten(0, (STREAMS, STREAMS)).unbind(-1)
    if not bool(velocity.isfinite().all(1).any()):
        return
    lines = axes.streamplot(
        across.numpy(), up.numpy(), u.numpy(), v.numpy(), color=PAPER[MUTED], linewidth=0.8, density=1.0, arrowsize=1.1
    )
    lines.lines.set(zorder=2)
    axes.plot([], [], color=PAPER[MUTED], linewidth=0.8, marker=">", markersize=5, label=words)


def _draw_steps(axes: Any, base: Ball | Box, motion: Callable[[Tensor], Tensor], words: str) -> None:
    """Draw the way of a step from states on a grid, all of them longer or shorter by one factor."""
    low, high = _corners(base)
    spacing = (high - low) / (ARROWS + 1)
    _, _, states = _grid(low + spacing, high - spacing, ARROWS)
    states = states[base.contains(states)]
    way = _evaluated(motion, states, 2) - states
    known = way.isfinite().all(1)
    states, way = states[known], way[known]
    longest = float((way / spacing).norm(dim=1).max()) if len(way) else 0.0
    if not longest:
        return
    factor = float(f"{1.8 / longest:.1g}")
    style = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.0028, "headwidth": 4.5, "zorder": 2}
    axes.quiver(*states.mT.numpy(), *(factor * way).mT.numpy(), color=PAPER[MUTED], **style)
    longer = "" if factor == 1 else f", drawn at {factor:g} times their length"
    axes.plot([], [], color=PAPER[MUTED], linewidth=0.8, marker=">", markersize=5, label=f"{words}{longer}")


def _draw_hole(axes: Any, subject: Subject) -> None:
    from matplotlib.patches import Circle

    if subject.inner:
        style = {"facecolor": "white", "edgecolor": PAPER[INK], "linestyle": "--", "hatch": "////", "linewidth": 1.4}
        axes.add_patch(Circle(tuple(subject.centre.tolist()), subject.inner, zorder=3, **style))
        _swatch(axes, f"within {exactly(subject.inner)} of the centre, left out", **style)


def _draw_refuted(axes: Any, report: Report) -> None:
    """Mark the states that refute claims, one mark for all that a state refutes."""
    names: dict[tuple[float, ...], list[str]] = {}
    for finding in report.findings:
        state = tuple(numbers((finding.witness or {}).get("state")))
        if finding.verdict is Verdict.REFUTED and len(state) == 2:
            names.setdefault(state, []).append(printable(finding.check))
    style = {"marker": "X", "markersize": 12, "markeredgecolor": "white", "linestyle": "", "zorder": 7}
    for (x, y), refuted in names.items():
        axes.plot([x], [y], color=PAPER[SERIES[1]], label=f"refutes {', '.join(refuted)}", **style)


def _swatch(axes: Any, words: str, **style: Any) -> None:
    """Put a patch that is seen in the legend alone."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((math.nan, math.nan), 0, 0, label=words, **style))
