"""The figures of a report, each drawn from one series of ``report.json``; a missing one is a gap that is said."""

from typing import Any

from analysis.findings.catalogue import CHECKS, function
from analysis.report import drawing
from analysis.report.drawing import Drawing
from analysis.report.figures.series import NO_NUMBERS, NotDrawnError, require

MAX_SVG = 1_000_000  # characters of one figure


def draw(check: str, series: dict[str, Any]) -> tuple[list[Drawing], list[str]]:
    """Return the figures of ``check`` from its ``series``, and a sentence for each that could not be drawn."""
    drawings, missing = [], []
    for title, make in (CHECKS[check].figures if check in CHECKS else {}).items():
        try:
            with drawing.page_style():
                drawn = function(make)(title, series)
            require(len(drawn.svg) <= MAX_SVG, "it would make the page too large")
            drawings.append(drawn)
        except (ValueError, TypeError, ArithmeticError) as error:
            # The series is foreign data: what is wrong with it costs this one figure, and the page says so.
            reason = error if isinstance(error, NotDrawnError) else NO_NUMBERS
            missing.append(f"“{title}” is not drawn: {reason}.")
    return drawings, missing
