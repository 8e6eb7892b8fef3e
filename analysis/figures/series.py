"""What a series of a report must hold for a figure to be drawn."""

import math
from typing import Any


def finite(values: list[float]) -> list[float]:
    """Return the finite ones among ``values``."""
    return [value for value in values if math.isfinite(value)]


def require(usable: Any) -> None:
    """Raise ValueError, which costs a report this one figure, unless ``usable``."""
    if not usable:
        raise ValueError("the series holds no usable numbers")
