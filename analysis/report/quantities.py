"""Numbers and texts as a reader wants them."""

import math
from typing import Any

from analysis.findings.values import as_text, number, printable

GAP = "—"


MAX_TEXT = 20_000  # characters that a page shows of one text


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

    Whole numbers are written out. None is a gap, and what is not finite is named, never hidden.

    >>> [quantity(value) for value in (None, 1797, 0.25, -1.5e-9, "nan", "inf")]
    ['—', '1797', '0.25', '−1.5\u2009×\u200910⁻⁹', 'NaN', 'infinite']
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
    if real == 0 or 1e-3 <= abs(real) < 1e5:
        return f"{real:.{4 if abs(real) < 1e4 else 5}g}".replace("-", "−")
    mantissa, exponent = f"{real:.3e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".").replace("-", "−")
    return f"{mantissa}\u2009×\u2009{superscript(int(exponent))}"


def superscript(exponent: int) -> str:
    """Return the power of ten with this exponent.

    >>> superscript(-12)
    '10⁻¹²'
    """
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"
