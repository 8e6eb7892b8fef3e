"""Values from a file that may be foreign, old or damaged: a value of the asked type or its gap."""

import math
import unicodedata
from typing import Any

TOO_DEEP = "nested too deeply to show; report.json holds it all"


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


def printable(value: Any) -> str:
    r"""Return ``value`` as text that can neither steer a terminal nor reorder a line: controls become "\ufffd".

    >>> printable("a\x1b[31mb\u202ec\n") == "a\ufffd[31mb\ufffdc "
    True
    """
    return "".join(map(_printable_character, as_text(value)))


def as_text(value: Any) -> str:
    try:
        return "" if value is None else str(value)
    except RecursionError:
        return TOO_DEEP


def _printable_character(character: str) -> str:
    if character.isprintable():
        return character
    is_space = character in "\n\r\t" or unicodedata.category(character).startswith("Z")
    return " " if is_space else "\ufffd"
