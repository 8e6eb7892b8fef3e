"""Numbers and texts as a reader wants them."""

import math
import re
from decimal import Decimal
from typing import Any

from analysis.findings.values import as_text, number, printable

GAP = "—"


MAX_TEXT = 20_000  # characters that a page shows of one text
MANY_DIGITS, FEW_DIGITS = 8, 6  # a number of a sentence with more than the one is shown by as many as the other

_NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:\.\d+)?(?:e[+-]?\d{1,4})?(?!\.?\w)")
_SIZES = re.compile(r"(?<=[\d\]]) x (?=[\d\[])")
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def cut(value: Any, limit: int = MAX_TEXT) -> str:
    """Return the first ``limit`` characters of ``value`` as printable text, with a note where there are more.

    >>> cut("abc", 2)
    'ab … (cut here; report.json holds it all)'
    """
    text = as_text(value)
    return (
        printable(text) if len(text) <= limit else f"{printable(text[:limit])} … (cut here; report.json holds it all)"
    )


def quantity(value: Any) -> str:
    """Return a number as a reader wants it: four digits, a true minus, a power of ten where it is long.

    Whole numbers are written out. None is a gap, and what is not finite is named, never hidden. What is below 1 does not become 1: shares
    and rates of contraction are numbers too.

    >>> [quantity(value) for value in (None, 1797, 0.25, 0.99996, -1.5e-9, "nan", "inf")]
    ['—', '1797', '0.25', '0.9999', '−1.5\u2009×\u200910⁻⁹', 'NaN', 'infinite']
    """
    if value is None:
        return GAP
    if isinstance(value, int):
        return str(value).replace("-", "−")
    real = number(value)
    if math.isnan(real):
        return "NaN"
    if math.isinf(real):
        return "infinite" if real > 0 else "−infinite"
    if real == 0:
        return "0"  # which may have a sign
    if 1e-3 <= abs(real) < 1e5:
        text = f"{real:.{4 if abs(real) < 1e4 else 5}g}".replace("-", "−")
        return "0.9999" if text == "1" and real < 1 else text
    mantissa, exponent = f"{real:.3e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".").replace("-", "−")
    return f"{mantissa}\u2009×\u2009{superscript(int(exponent))}"


def superscript(exponent: int) -> str:
    """Return the power of ten with this exponent.

    >>> superscript(-12)
    '10⁻¹²'
    """
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def for_people(text: str) -> str:
    """Return a sentence with its numbers as people write them: see ``in_figures``.

    >>> for_people("the ball of radius 30.21643448307345, to within 2.3e-11, of a 64 x 64 map in torch 2.15.0")
    'the ball of radius 30.2164…, to within 2.3\u2009×\u200910⁻¹¹, of a 64 × 64 map in torch 2.15.0'
    """
    return _SIZES.sub(" × ", _NUMBER.sub(lambda found: in_figures(found[0]), text))


def in_figures(text: str) -> str:
    """Return a number of a sentence as people write it; of one with many digits the first, and "…": it is not rounded.

    >>> [in_figures(text) for text in ("9.8e-12", "1e-09", "-0.5", "0.0e+00", "30.21643448307345", "60388", "1.5e-02")]
    ['9.8\u2009×\u200910⁻¹²', '10⁻⁹', '−0.5', '0', '30.2164…', '60388', '0.015']
    """
    if "e" in text and not Decimal(text):  # 0.0 may be a rounded number; and a float would be 0 at 1e-400, too
        return "0"
    if "e" in text and 1e-4 <= abs(float(text)) < 1e5:
        text = f"{Decimal(text):f}"
    digits, _, exponent = text.partition("e")
    if len(digits.strip("-0.").replace(".", "")) > MANY_DIGITS and "." in digits:
        whole, _, fraction = digits.partition(".")
        leading = len(fraction) - len(fraction.lstrip("0")) if whole.strip("-") == "0" else -len(whole.strip("-"))
        first = fraction[: max(FEW_DIGITS + leading, 1)]
        digits = f"{whole}.{first}{'…' * (first != fraction)}"
    power = int(exponent) if exponent else 0
    digits = digits.replace("-", "−")
    if not power:
        return digits
    return superscript(power) if digits == "1" else f"{digits}\u2009×\u2009{superscript(power)}"
