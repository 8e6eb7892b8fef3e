"""Values from a file that may be foreign, old or damaged: a value of the asked type or its gap."""

import math
from typing import Any

from stabdeq.printable import TOO_DEEP, as_text, printable

__all__ = ["TOO_DEEP", "as_text", "mapping", "mappings", "number", "numbers", "printable", "sequence"]


def mapping(value: Any) -> dict[Any, Any]:
    """Return ``value`` where it is a dictionary, else an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Return ``value`` as a list where it is a list or tuple, else an empty one."""
    return list(value) if isinstance(value, list | tuple) else []


def mappings(value: Any) -> list[dict[Any, Any]]:
    """Return the dictionaries in the list ``value``, dropping all else."""
    return [item for item in sequence(value) if isinstance(item, dict)]


def number(value: Any) -> float:
    """Return ``value`` as a float; the strings "nan", "inf", "-inf" of ``report.json`` count, else NaN.

    >>> number("-inf"), number(3), number("three")
    (-inf, 3.0, nan)
    """
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def numbers(value: Any) -> list[float]:
    """Return the list ``value`` as floats, NaN where an item is none; empty where it is no list."""
    return [number(item) for item in sequence(value)]
