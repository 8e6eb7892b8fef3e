"""The paper's Figure 4: accuracy against the radius of the attack, a panel for each model.

Each panel holds the paper's two attacks, as we measure them, beside the honest one; rings are what the paper prints.
"""

import math
from collections.abc import Sequence
from typing import Any

from analysis.report import drawing
from analysis.report.drawing import DASHES, MUTED, PAPER, SERIES
from analysis.reproduce.table import ATTACK_NAMES, Row

COLUMNS = 3
STYLES = {name: (PAPER[colour], dash) for name, colour, dash in zip(ATTACK_NAMES, SERIES, DASHES, strict=False)}


def draw_radii(rows: Sequence[Row], data: str, seeds: int) -> dict[str, bytes]:
    """Return the figure of ``rows``, all of one data set, as the contents of files, by suffix.

    Lines are means over ``seeds`` seeds, with a band of one standard deviation to each side.
    """
    from matplotlib.figure import Figure

    systems = list(dict.fromkeys(row.system for row in rows))
    columns = min(COLUMNS, len(systems))
    lines = math.ceil(len(systems) / columns)
    with drawing.page_style(PAPER):
        figure = Figure(figsize=(1.2 + 3.2 * columns, 1.2 + 2.8 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat
        for index, (axes, system) in enumerate(zip(panels, systems, strict=False)):
            for row in rows:
                if row.system == system:
                    (_draw_paper if row.count is None else _draw_ours)(axes, row)
            axes.set_title(system, fontsize=12, loc="left")
            axes.set(ylim=(-2, 102), xticks=range(0, 21, 4))
            if index % columns == 0:
                axes.set_ylabel("accuracy, %")
            if index + columns >= len(systems):
                axes.set_xlabel("radius, in 255ths of a pixel")
            axes.tick_params(length=0)
        for axes in list(panels)[len(systems) :]:
            axes.set_visible(False)
        over = f", mean and standard deviation of {seeds} seeds" if seeds > 1 else ""
        figure.suptitle(f"{data}: accuracy under attack{over}", fontsize=12)
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, frameon=False)
        return {suffix: drawing.file_content(figure, suffix) for suffix in (".png", ".svg")}


def _draw_ours(axes: Any, row: Row) -> None:
    colour, dash = STYLES[row.attack]
    radii = sorted(row.cells)
    cells = [row.cells[eps] for eps in radii]
    means = [math.nan if cell.mean is None else cell.mean for cell in cells]
    spreads = [cell.spread or 0.0 for cell in cells]
    low, high = ([mean + sign * spread for mean, spread in zip(means, spreads, strict=True)] for sign in (-1, 1))
    axes.fill_between(radii, low, high, color=colour, alpha=0.18, linewidth=0)
    name = f"{ATTACK_NAMES[row.attack]}, n={row.count}"
    axes.plot(radii, means, color=colour, linestyle=dash, marker="o", markersize=3.5, label=name)


def _draw_paper(axes: Any, row: Row) -> None:
    points = [(eps, cell.mean) for eps, cell in row.cells.items() if eps and cell.mean is not None]
    if points:
        style = {"markerfacecolor": "none", "markeredgecolor": STYLES[row.attack][0], "color": PAPER[MUTED]}
        axes.plot(*zip(*points, strict=True), "o", markersize=7, **style, label=f"{ATTACK_NAMES[row.attack]}, paper")
