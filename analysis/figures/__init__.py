"""The figures of a report, each drawn from one series of ``report.json``; a missing one is a gap that is said."""

from typing import Any

from analysis import drawing
from analysis.drawing import Drawing
from analysis.figures.convergence import convergence
from analysis.figures.decay import flow, raw_field
from analysis.figures.robustness import accuracy
from analysis.figures.separation import distances
from analysis.figures.spectrum import spectrum

_FIGURES = {
    "convergence": {"Residual against evaluations": convergence},
    "spectrum": {"Eigenvalues of the cell’s Jacobian at the equilibrium": spectrum},
    "decay": {
        "V along trajectories of the stabilised field": flow,
        "Violations of the unprojected field": raw_field,
    },
    "robustness": {"Accuracy against eps": accuracy},
    "separation": {
        "Class distances before the orthogonal map": lambda title, series: distances(title, series, "before"),
        "Class distances after the orthogonal map": lambda title, series: distances(title, series, "after"),
    },
}


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
