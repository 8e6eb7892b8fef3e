"""Numbers of a series, rounded: a figure shows four digits, and seventeen of each would make a report large."""

from typing import Any


def rounded(values: Any) -> Any:
    """Return a number, or nested lists of numbers, with four significant digits each.

    >>> rounded([[1 / 3], float("inf")])
    [[0.3333], inf]
    """
    return [rounded(item) for item in values] if isinstance(values, list) else float(f"{values:.4g}")
