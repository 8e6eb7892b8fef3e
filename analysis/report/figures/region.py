"""The region that a user's V is judged on, in two dimensions: level sets of V, the dynamics, and where claims are refuted."""

import itertools
import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.evidence.regions import Ball, Box
from analysis.evidence.sublevel import Sublevel
from analysis.findings import Finding, Verdict, exactly
from analysis.findings.values import numbers, printable
from analysis.findings.verdict import WORST_FIRST
from analysis.report import drawing
from analysis.report.drawing import INK, MUTED, PAPER, SERIES
from analysis.report.quantities import for_people
from analysis.report.report import Report
from analysis.user_function.sentences import OF_A_BARRIER
from analysis.user_function.subject import Subject
from stabdeq.errors import ConfigError, EvaluationError
from stabdeq.files import replace_file

Function = Callable[[Tensor], Tensor]
SUFFIXES = (".svg", ".png", ".pdf")
GRID, STREAMS, ARROWS = 161, 41, 17  # points along a side of the base, at which V, velocities and steps are evaluated
LEVELS, MOST_LEVELS = 4, 14
# A set that is small in its ball or box is shown with so much around it.
BEYOND = 1.5
RAYS = 720
LEFT_OUT = {"linestyle": "--", "hatch": "////", "linewidth": 1.4}
WIDTH = 78  # characters of a line of the title
# Coordinates of units as different as this have scales of their own.
MOST_OBLONG = 2.5


def require_drawable(path: Path, dim: int) -> None:
    """Raise ConfigError where no figure of states of ``dim`` coordinates can be drawn into the file ``path``."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"figure must be a file {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {str(path)!r}")
    if dim != 2:
        raise ConfigError(
            f"a figure shows states of 2 coordinates, and these have {dim}: leave figure out, or check V on a plane of states"
        )


def draw_region(path: Path, report: Report, subject: Subject, joint: Subject | None = None) -> None:
    """Draw into the file ``path`` the region of ``subject``, of 2 coordinates, and what ``report`` found on it.

    ``joint`` has as its dynamics those of ``subject`` as a velocity of (z, d): they are shown for the middle d.
    """
    motion, words = subject.motion, "z to z+" if subject.in_steps else "velocity"
    if joint is not None and joint.motion is not None:
        along, middle, words = joint.motion, joint.centre[2:], "velocity, the middle disturbance"
        motion = lambda states: along(torch.cat([states, middle.expand(len(states), -1)], 1))[:, :2]  # noqa: E731
    replace_file(path, _content(report, subject, motion, words, path.suffix))


def _content(report: Report, subject: Subject, motion: Function | None, words: str, suffix: str) -> bytes:
    low, high = _view(subject, report)
    with drawing.page_style(PAPER):
        oblong = float((high - low).max() / (high - low).min())
        figure, axes = drawing.new_axes("z₁", "z₂", size=(7.2, 7.4))
        axes.set_aspect("equal" if oblong <= MOST_OBLONG else "auto")
        axes.grid(visible=False)
        edge = _draw_base(axes, subject.base, low, high)
        of_barrier = any(one.check in OF_A_BARRIER for one in report.findings)
        _draw_levels(axes, subject, low, high, edge, of_barrier=of_barrier)
        if motion is not None:
            draw = _draw_steps if subject.in_steps else _draw_velocity
            draw(axes, subject.base.contains, motion, words, low, high)
        _draw_hole(axes, subject)
        _draw_refuted(axes, report)
        centre = subject.centre.tolist()
        style = {"marker": "+", "markersize": 13, "markeredgewidth": 2.2, "linestyle": ""}
        axes.plot(*[[x] for x in centre], color=PAPER[INK], zorder=6, label="centre", **style)
        (left, bottom), (right, top) = ((low - 0.03 * (high - low)).tolist(), (high + 0.03 * (high - low)).tolist())
        axes.set(xlim=(left, right), ylim=(bottom, top))
        figure.suptitle(_title(report), x=0.02, ha="left", fontsize=10.5)
        figure.legend(loc="outside lower left", frameon=False, ncols=2, fontsize=10.5)
        return drawing.file_content(figure, suffix)


def _view(subject: Subject, report: Report) -> tuple[Tensor, Tensor]:
    """Return the corners (2,) of what is shown: the ball or the box, or less of it where the set is small in it."""
    low, high = _corners(subject.base)
    if subject.level == math.inf:
        return low, high
    _, _, states = _grid(low, high, GRID)
    states = states[subject.base.contains(states)]
    seen = states[_evaluated(subject.value, states, 1).squeeze(1) <= subject.level]
    seen = torch.cat(
        [seen, subject.centre[None], *(torch.tensor([state], dtype=seen.dtype) for _, state in _refuting(report))]
    )
    first, last = seen.amin(0), seen.amax(0)
    middle, half = (first + last) / 2, BEYOND * ((last - first) / 2 + (high - low) / GRID)
    if bool((half > 0.3 * (high - low)).any()):
        return low, high
    half = half.max().expand(2) if isinstance(subject.base, Ball) else half
    return torch.maximum(low, middle - half), torch.minimum(high, middle + half)


def _corners(base: Ball | Box) -> tuple[Tensor, Tensor]:
    if isinstance(base, Box):
        return base.low, base.high
    return base.centre - base.radius, base.centre + base.radius


def _grid(low: Tensor, high: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``count`` numbers across, as many up, and all the states (count^2, 2) with them as coordinates, row by row."""
    across, up = (
        torch.linspace(float(a), float(b), count, dtype=torch.float64) for a, b in zip(low, high, strict=True)
    )
    return across, up, torch.stack(torch.meshgrid(across, up, indexing="xy"), -1).flatten(0, 1)


def _title(report: Report) -> str:
    """Return what was judged, and the claims under their verdicts, the worst first."""
    lines = textwrap.wrap(for_people(report.title), WIDTH)
    for verdict in WORST_FIRST:
        names = [printable(one.check) for one in report.findings if one.verdict is verdict]
        if names:
            lines += textwrap.wrap(f"{verdict.name}: {', '.join(names)}", WIDTH)
    return "\n".join(lines)


def _draw_base(axes: Any, base: Ball | Box, low: Tensor, high: Tensor) -> Any:
    """Draw where the ball or the box ends, and return the ball's circle, to clip by; None of a box, beyond which nothing is drawn."""
    from matplotlib.patches import Circle, Rectangle

    style = {"fill": False, "edgecolor": PAPER[INK], "linewidth": 1.4, "zorder": 4}
    first, last = _corners(base)
    if bool(((first >= low) | (last <= high)).any()):  # else it lies beyond what is shown
        style["label"] = for_people(base.words)
    if isinstance(base, Ball):
        return axes.add_patch(Circle(tuple(base.centre.tolist()), base.radius, **style))
    axes.add_patch(Rectangle(tuple(first.tolist()), *(last - first).tolist(), **style))
    return None


def _draw_levels(axes: Any, subject: Subject, low: Tensor, high: Tensor, edge: Any, *, of_barrier: bool) -> None:
    """Draw level sets of V, {V <= C} filled, {V < C1} hatched, all within the base; of a barrier {B <= 0}, and its sets."""
    import numpy as np

    across, up, states = _grid(low, high, GRID)
    # Outside of the base, where V need not be defined, nothing is shown; its edge stands in there.
    states = subject.base.project(states)

    def over(function: Function) -> Any:
        return np.ma.masked_invalid(_evaluated(function, states, 1).reshape(GRID, GRID).numpy())

    heights, name, at = over(subject.value), "B" if of_barrier else "V", (across.numpy(), up.numpy())
    if heights.mask.any():
        axes.plot([], [], linestyle="", label=f"{name} is not finite at {int(heights.mask.sum())} of {GRID**2} points")
    level = 0.0 if of_barrier else subject.level
    lower = subject.region.lower if isinstance(subject.region, Sublevel) else -math.inf
    ink, blue, orange, green = (PAPER[colour] for colour in (INK, *SERIES[:3]))
    style: dict[str, Any] = {"facecolor": (blue, 0.2), "edgecolor": blue, "linewidth": 2.6}
    if of_barrier:
        _draw_set(axes, *at, heights, level, edge, "{B ≤ 0}", **style)
    elif isinstance(subject.region, Sublevel) and level < math.inf:
        # Parts of {V <= C} that the claims are not about stay white within their boundary.
        _draw_set(axes, *at, heights, level, edge, "", **style | {"facecolor": "none"})
        _swatch(axes, f"{{V ≤ {exactly(level)}}}, seen along rays from the centre", **style)
        _fill_seen(axes, subject.region, style["facecolor"])
    if lower > -math.inf:
        words = f"{{V < {exactly(lower)}}}, left out"
        _draw_set(axes, *at, heights, lower, edge, words, facecolor="white", edgecolor=ink, **LEFT_OUT)
    for role, colour, hatch in (("initial", green, ".."), ("unsafe", orange, "xx")):
        if role in subject.sets:
            style = {"facecolor": "none", "edgecolor": colour, "hatch": hatch, "linewidth": 2.0}
            _draw_set(axes, *at, over(subject.sets[role]), 0.0, edge, f"{role} set", **style)
    if heights.count() == 0 or not heights.min() < heights.max():
        return
    # Rings at even distances where V is quadratic, the level itself being one of them.
    least, most = float(heights.min()), float(heights.max())
    top, apart = (level, LEVELS) if least < level < most else (most, 2 * LEVELS)
    steps = [least + (top - least) * (step / apart) ** 2 for step in range(1, MOST_LEVELS)]
    if of_barrier:
        steps = [least + (most - least) * step / MOST_LEVELS for step in range(1, MOST_LEVELS)]
    rings = sorted({one for one in steps if least < one < most and not math.isclose(one, level)})
    lines = axes.contour(*at, heights, rings, colors=[blue], linewidths=0.9, linestyles="-", alpha=0.75, zorder=1)
    if edge is not None:
        lines.set_clip_path(edge)
    axes.plot([], [], color=blue, linewidth=0.9, label=f"level sets of {name}")


def _fill_seen(axes: Any, region: Sublevel, colour: Any) -> None:
    """Fill the part of {V <= C} that is seen along rays from the centre."""
    from matplotlib.patches import Polygon

    angles = torch.arange(RAYS, dtype=torch.float64) * (2 * math.pi / RAYS)
    rays = torch.stack([angles.cos(), angles.sin()], 1)
    ends = region.centre + region.reach(rays) * rays
    axes.add_patch(Polygon(ends.numpy(), facecolor=colour, edgecolor="none", zorder=0.5))


def _draw_set(
    axes: Any, across: Any, up: Any, values: Any, level: float, edge: Any, words: str, *, hatch: str = "", **style: Any
) -> None:
    """Draw {g <= ``level``}, by g's ``values``, a masked array, and its boundary in the edge's colour, within the circle ``edge``."""
    if words:
        _swatch(axes, words, hatch=hatch, **style)
    if values.count() == 0:
        return
    bottom = min(float(values.min()), level) - 1.0
    colour, width, dashes = style["edgecolor"], style["linewidth"], style.get("linestyle", "-")
    part = axes.contourf(
        across,
        up,
        values,
        [bottom, level],
        colors=[style["facecolor"]],
        hatches=[hatch or None],
        zorder=0.5 if not hatch else 1.5,
    )
    part.set(edgecolor=colour, linewidth=0)
    line = axes.contour(across, up, values, [level], colors=[colour], linewidths=width, linestyles=[dashes], zorder=3)
    for drawn in (part, line) if edge is not None else ():
        drawn.set_clip_path(edge)


def _evaluated(function: Function, states: Tensor, columns: int) -> Tensor:
    """Return what ``function`` gives (B, columns) at ``states`` (B, 2), NaN where it raises."""
    try:
        with torch.no_grad():
            return function(states).reshape(len(states), columns)
    except EvaluationError:
        if len(states) == 1:
            return states.new_full((1, columns), math.nan)
        return torch.cat([_evaluated(function, half, columns) for half in states.tensor_split(2)])


def _draw_velocity(axes: Any, contains: Function, motion: Function, words: str, low: Tensor, high: Tensor) -> None:
    across, up, states = _grid(low, high, STREAMS)
    inside = contains(states)
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


def _draw_steps(axes: Any, contains: Function, motion: Function, words: str, low: Tensor, high: Tensor) -> None:
    """Draw the way of a step from states on a grid, all of them longer or shorter by one factor."""
    spacing = (high - low) / (ARROWS + 1)
    _, _, states = _grid(low + spacing, high - spacing, ARROWS)
    states = states[contains(states)]
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
        style = {"facecolor": "white", "edgecolor": PAPER[INK], **LEFT_OUT}
        axes.add_patch(Circle(tuple(subject.centre.tolist()), subject.inner, zorder=3, **style))
        _swatch(axes, f"within {exactly(subject.inner)} of the centre, left out", **style)


def _draw_refuted(axes: Any, report: Report) -> None:
    """Mark the states that refute claims, one mark for all that a state refutes."""
    names: dict[tuple[float, ...], list[str]] = {}
    for finding, state in _refuting(report):
        names.setdefault(state, []).append(printable(finding.check))
    style = {"markersize": 12, "markeredgecolor": "white", "linestyle": "", "zorder": 7}
    for ((x, y), refuted), marker in zip(names.items(), itertools.cycle("XDv^s")):
        axes.plot([x], [y], marker=marker, color=PAPER[SERIES[1]], label=f"refutes {', '.join(refuted)}", **style)


def _refuting(report: Report) -> list[tuple[Finding, tuple[float, ...]]]:
    """Return the refuted findings with the states of 2 coordinates that refute them."""
    found = [(one, tuple(numbers((one.witness or {}).get("state")))) for one in report.findings]
    return [(one, state) for one, state in found if one.verdict is Verdict.REFUTED and len(state) == 2]


def _swatch(axes: Any, words: str, **style: Any) -> None:
    """Put a patch that is seen in the legend alone."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((math.nan, math.nan), 0, 0, label=for_people(words), **style))
