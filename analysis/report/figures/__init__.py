"""The figures of a report, each drawn from one series of ``report.json``; a missing one is a gap that is said."""

from typing import Any

from analysis.report import drawing
from analysis.report.drawing import Drawing
from analysis.report.figures.convergence import convergence
from analysis.report.figures.decay import flow, margin, raw_field
from analysis.report.figures.embedding import states
from analysis.report.figures.phase_plane import plane
from analysis.report.figures.robustness import accuracy
from analysis.report.figures.separation import distances
from analysis.report.figures.series import NO_NUMBERS, NotDrawnError, require
from analysis.report.figures.spectrum import spectrum

MAX_SVG = 1_000_000  # characters of one figure

_FIGURES = {
    "convergence": {"Residual against evaluations": convergence},
    "spectrum": {"Eigenvalues of the cell’s Jacobian at the equilibrium": spectrum},
    "decay": {
        "V where it grows fastest and slowest": lambda title, series: plane(title, series, "growth"),
        "V towards other equilibria": lambda title, series: plane(title, series, "classes"),
        "V along trajectories of the stabilised field": flow,
        "Decay margin against distance": margin,
        "Violations of the unprojected field": raw_field,
    },
    "robustness": {"Accuracy against eps": accuracy},
    "separation": {
        "Class distances before the orthogonal map": lambda title, series: distances(title, series, "before"),
        "Class distances after the orthogonal map": lambda title, series: distances(title, series, "after"),
        "Map of the states (t-SNE)": states,
    },
}


def draw(check: str, series: dict[str, Any]) -> tuple[list[Drawing], list[str]]:
    """Return the figures of ``check`` from its ``series``, and a sentence for each that could not be drawn."""
    drawings, missing = [], []
    for title, make in _FIGURES.get(check, {}).items():
        try:
            with drawing.page_style():
                drawn = make(title, series)
            require(len(drawn.svg) <= MAX_SVG, "it would make the page too large")
            drawings.append(drawn)
        except (ValueError, TypeError, ArithmeticError) as error:
            # The series is foreign data: what is wrong with it costs this one figure, and the page says so.
            reason = error if isinstance(error, NotDrawnError) else NO_NUMBERS
            missing.append(f"“{title}” is not drawn: {reason}.")
    return drawings, missing
