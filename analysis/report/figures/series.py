"""What a series of a report must hold for a figure to be drawn."""

import math
from collections.abc import Mapping
from typing import Any

from analysis.findings.values import printable, sequence

NO_NUMBERS = "the report holds no usable numbers for it"
CLASS_NAMES = "class names"  # the page's own key of a series


class NotDrawnError(ValueError):
    """A figure cannot be drawn; the message goes on "is not drawn: "."""


def finite(values: list[float]) -> list[float]:
    """Return the finite ones among ``values``."""
    return [value for value in values if math.isfinite(value)]


def require(usable: Any, otherwise: str = NO_NUMBERS) -> None:
    """Raise NotDrawnError, which costs a report this one figure, unless ``usable``."""
    if not usable:
        raise NotDrawnError(otherwise[:200])


def class_name(series: Mapping[str, Any], label: Any) -> str:
    """Return the name of the class with this ``label``: the label itself where the report names none."""
    names = sequence(series.get(CLASS_NAMES))
    return printable(names[label] if type(label) is int and 0 <= label < len(names) else label)
