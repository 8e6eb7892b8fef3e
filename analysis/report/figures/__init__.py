"""The figures of a report, each drawn from one series of ``report.json``; a missing one is a gap that is said."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from analysis.findings.catalogue import CHECKS, function
from analysis.report import drawing
from analysis.report.drawing import Drawing
from analysis.report.figures import certified
from analysis.report.figures.series import CLASS_NAMES, NO_NUMBERS, NotDrawnError, require

MAX_SVG = 1_000_000  # characters of one figure
# Of what weights prove, all in the series "certify": the key there, without which there is nothing to draw, and the figure.
OF_WEIGHTS = {
    "radius": ("radii", {"Certified accuracy in l2": certified.l2}),
    "linf": ("linf", {"Certified accuracy in l-infinity": certified.linf}),
}


def draw(check: str, series: Mapping[str, Any], class_names: Sequence[str] = ()) -> tuple[list[Drawing], list[str]]:
    """Return the figures of ``check`` from its ``series``, and a sentence for each that could not be drawn.

    ``class_names`` are those of the data, by label, for legends; where there are none, labels stand there.
    """
    series = {**series, CLASS_NAMES: list(class_names)}
    if check in OF_WEIGHTS:
        key, makers = OF_WEIGHTS[check]
        return draw_all(makers if key in series else {}, series)
    return draw_all(CHECKS[check].figures if check in CHECKS else {}, series)


def draw_all(makers: Mapping[str, Callable[..., Any] | str], series: Any) -> tuple[list[Drawing], list[str]]:
    """Return what each of ``makers``, (title, series) -> Drawing or None, draws of ``series``, and a sentence for each failure."""
    drawings, missing = [], []
    for title, make in makers.items():
        try:
            with drawing.page_style():
                drawn = function(make)(title, series)
            if drawn is None:
                continue
            require(len(drawn.svg) <= MAX_SVG, "it would make the page too large")
            drawings.append(drawn)
        except (ValueError, TypeError, ArithmeticError) as error:
            # The series is foreign data: what is wrong with it costs this one figure, and the page says so.
            reason = error if isinstance(error, NotDrawnError) else NO_NUMBERS
            missing.append(f"“{title}” is not drawn: {reason}.")
    return drawings, missing
