"""Whether two reports say the same: sentences word by word, whole numbers exactly, others to what another machine leaves of them."""

import math
import re
from typing import Any

from analysis.checks.witness import SAME
from analysis.findings.values import number
from analysis.measure.subject import TOLERANCE

NUMBER = re.compile(r"[-+−]?\d[\d.,]*(e[-+]?\d+)?")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def alike(told: Any, again: Any) -> bool:
    """Return whether two values are the same, numbers that are not both whole to what another machine leaves of them."""
    if isinstance(told, dict) and isinstance(again, dict):
        return told.keys() == again.keys() and all(alike(told[key], again[key]) for key in told)
    if isinstance(told, list | tuple) and isinstance(again, list | tuple):
        return len(told) == len(again) and all(map(alike, told, again))
    kinds = {type(told), type(again)}
    if kinds == {int} or not kinds <= {int, float}:  # counts; or "one", True, None, or a list and an object
        return type(told) is type(again) and told == again
    a, b = number(told), number(again)
    return a == b or math.isclose(a, b, rel_tol=SAME, abs_tol=TOLERANCE) or (math.isnan(a) and math.isnan(b))


def same_sentence(told: str, again: str) -> bool:
    """Return whether two sentences have the same words, and numbers that are ``alike``: whole ones, without point or exponent, exactly."""
    if NUMBER.sub("0", told) != NUMBER.sub("0", again):
        return False
    pairs = zip(NUMBER.finditer(told), NUMBER.finditer(again), strict=True)
    return all(a[0] == b[0] or alike(_value(a[0]), _value(b[0])) for a, b in pairs)


def _value(text: str) -> int | float | str:
    text = _THOUSANDS.sub("", text.rstrip(".,").replace("−", "-"))
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
