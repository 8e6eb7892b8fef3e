"""What a series of a report must hold for a figure to be drawn."""

import math
from typing import Any

NO_NUMBERS = "the report holds no usable numbers for it"


class NotDrawnError(ValueError):
    """A figure cannot be drawn; the message goes on "is not drawn: "."""


def finite(values: list[float]) -> list[float]:
    """Return the finite ones among ``values``."""
    return [value for value in values if math.isfinite(value)]


def require(usable: Any, otherwise: str = NO_NUMBERS) -> None:
    """Raise NotDrawnError, which costs a report this one figure, unless ``usable``."""
    if not usable:
        raise NotDrawnError(otherwise[:200])
