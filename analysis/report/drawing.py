"""Canvas of the figures: axes in the page's own colours, and a matplotlib figure as inline SVG or as a file.

Colours are CSS variables of the page, so that one drawing reads in a light and in a dark scheme. matplotlib
knows no such variables: figures are drawn in the stand-in colours below, which :func:`inline_svg` replaces.
"""

import html
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.findings.values import numbers
from analysis.report.quantities import quantity, superscript

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE = "#010101", "#010102", "#010103"
SERIES = ("#010111", "#010112", "#010113", "#010114")
# In a file of its own a figure has the colours of the page's light scheme (report.css).
PAPER = {
    INK: "#1d2229",
    MUTED: "#59616c",
    RULE: "#dfe1e4",
    **dict(zip(SERIES, ("#0b6bb8", "#c8500a", "#00805e", "#8a4a86"), strict=True)),
}
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), "-.")
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {
    colour: f"--series-{index}" for index, colour in enumerate(SERIES, start=1)
}

# A figure brings no more of its data to the page, whatever the report holds; the page cuts each long cell.
MAX_TABLE_CELLS = 12_000
MAX_LABEL = 22
NARROWEST = 0.02  # of its largest number: the length of an axis


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text or numbers under their column names; ``note`` says what was left out."""

    columns: list[str]
    rows: list[list[Any]]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One figure: ``svg`` is markup made here, everything else is plain text that is still to be escaped."""

    name: str
    title: str
    caption: str
    alternative: str
    svg: str
    table: Table


@contextmanager
def page_style(colours: Mapping[str, str] | None = None) -> Iterator[None]:
    """Set matplotlib up for the page; figures are both drawn and saved within this context.

    ``colours`` replace the stand-ins where a figure is a file of its own (``PAPER``).
    """
    import matplotlib

    ink, muted, rule = ((colours or {}).get(stand_in, stand_in) for stand_in in (INK, MUTED, RULE))
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "stabdeq",
        "font.family": "sans-serif",
        "font.size": 12,
        # A class may be called "$\\frac": names are text, never formulas.
        "text.parse_math": False,
        "text.usetex": False,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": muted,
        "axes.unicode_minus": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": rule,
        "grid.linewidth": 0.8,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "lines.linewidth": 2.0,
        "legend.fontsize": 11.5,
        "legend.handlelength": 2.6,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The browser has glyphs that the layout font lacks; a layout a little too tight still reads.
        warnings.simplefilter("ignore", UserWarning)
        yield


def new_figure(size: tuple[float, float]) -> "Figure":
    """Return a new figure of ``size`` inches that lets the page's background through."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained", facecolor="none")


def new_axes(xlabel: str, ylabel: str, *, size: tuple[float, float] = (5.6, 3.9)) -> "tuple[Figure, Axes]":
    """Return a new figure of ``size`` inches and its axes: small, so that text reads on a telephone."""
    figure = new_figure(size)
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(tick)
    axes.tick_params(length=0)
    return figure, axes


def tick(value: float, _: Any = None) -> str:
    """Return the label of a tick: matplotlib's own may be a difference from a number beside the axis, as in "1e-9 + 1"."""
    return quantity(float(value))


def log_scale(axes: "Axes") -> None:
    """Put the vertical axis on a log scale with powers of ten for labels."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: power_of_ten(value))
    axes.yaxis.set_minor_formatter(lambda value, _: "")
    axes.tick_params(which="both", length=0)


def power_of_ten(value: float) -> str:
    """Return the label of a tick on a log axis: a power of ten where ``value`` is one, else the quantity.

    >>> power_of_ten(1e-9), power_of_ten(0.01), power_of_ten(1.0)
    ('10⁻⁹', '10⁻²', '1')
    """
    exponent = round(math.log10(value)) if value > 0 else 0
    return superscript(exponent) if exponent and math.isclose(value, 10.0**exponent) else quantity(float(value))


def inline_svg(figure: "Figure", name: str, alternative: str) -> str:
    """Return ``figure`` as an ``<svg>`` element for a page: transparent, scalable, with no reference elsewhere.

    Ids carry ``name`` as a prefix, since all figures share the page's namespace; ``alternative`` is what a screen
    reader says instead.
    """
    _make_room(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for unwanted in (
        r"<!--.*?-->",
        r"<metadata>.*?</metadata>",
        r"<style[^>]*>.*?</style>",
        r' xmlns(:\w+)?="[^"]*"',
    ):
        svg = re.sub(unwanted, "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r"(stroke|fill): (#0101[01]\d)", lambda match: f"{match[1]}: {_variable(match[2])}", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    opening = f'<svg {box[0] if box else ""} role="img" aria-label="{html.escape(alternative)}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1).strip()


def file_content(figure: "Figure", suffix: str) -> bytes:
    """Return ``figure`` as the content of a file, ".svg", ".pdf" or ".png", on white paper; the same figure gives the same bytes."""
    _make_room(figure)
    buffer = io.BytesIO()
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
    figure.savefig(buffer, format=suffix[1:], dpi=160, facecolor="white", metadata=metadata)
    return buffer.getvalue()


def _make_room(figure: "Figure") -> None:
    """Widen the linear axes whose ticks differ in no digit that their labels have: what differs by less is the same to a reader."""
    for axes in figure.axes:
        for name in ("x", "y"):
            low, high = getattr(axes, f"get_{name}lim")()
            least = NARROWEST * max(abs(low), abs(high))
            if getattr(axes, f"get_{name}scale")() == "linear" and abs(high - low) < least < math.inf:
                middle = (low + high) / 2
                getattr(axes, f"set_{name}lim")(middle - least / 2, middle + least / 2)


def _variable(stand_in: str) -> str:
    return f"var({_VARIABLES[stand_in]})" if stand_in in _VARIABLES else stand_in


def table(columns: list[str], rows: list[list[Any]]) -> Table:
    """Return the table of a figure's data, cut with a note where it would make the page too large."""
    fits = max(MAX_TABLE_CELLS // max(len(columns), 1), 1)
    note = f"The first {fits} of {len(rows)} rows; report.json holds them all." if len(rows) > fits else ""
    return Table(columns=columns, rows=rows[:fits], note=note)


def padded(values: Any, length: int) -> list[float]:
    """Return ``values`` as ``length`` floats: NaN where there are fewer, nothing beyond."""
    return (numbers(values) + [math.nan] * length)[:length]


def positive(values: list[float]) -> list[float]:
    """Return ``values`` with NaN, which leaves a gap in a line, where a log scale has no place for them."""
    return [value if value > 0 and math.isfinite(value) else math.nan for value in values]


def last(values: list[float]) -> float:
    """Return the last finite value, NaN where there is none."""
    return next((value for value in reversed(values) if math.isfinite(value)), math.nan)


def short(label: str) -> str:
    """Return ``label`` cut to what fits beside an axis."""
    return label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…"
