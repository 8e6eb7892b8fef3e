"""Bounds in four digits, rounded to the side on which they still hold."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Context


def at_least(bound: float) -> str:
    """Return a lower bound in four digits, rounded down: what is printed is proved, too."""
    return f"{float(Context(prec=4, rounding=ROUND_FLOOR).create_decimal(bound)):.4g}"


def at_most(bound: float) -> str:
    """Return an upper bound in four digits, rounded up."""
    return f"{float(Context(prec=4, rounding=ROUND_CEILING).create_decimal(bound)):.4g}"
