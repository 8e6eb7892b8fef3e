"""Shares in percent, as text: it says 100 of all alone, and 0 of none alone."""


def in_percent(share: float, unit: float) -> float:
    """Return ``share`` of 1 in percent; where it is neither 0 nor 1, ``unit`` or more off 0 and 100, so that no rounding makes it either.

    >>> in_percent(0.99999, 0.1), in_percent(0.5, 0.1), in_percent(1e-9, 0.1)
    (99.9, 50.0, 0.1)
    """
    percent = 100.0 * share
    return min(max(percent, unit), 100.0 - unit) if 0 < share < 1 else percent


def percent(share: float, decimals: int = 2) -> str:
    """Return ``share`` of 1 in percent with ``decimals``.

    >>> [percent(share) for share in (1.0, 0.99996, 0.5, 1e-9, 0.0)]
    ['100.00%', '99.99%', '50.00%', '0.01%', '0.00%']
    """
    return f"{in_percent(share, 10.0**-decimals):.{decimals}f}%"


def percent_in_digits(share: float, digits: int = 3) -> str:
    """Return ``share`` of 1 in percent with so many significant ``digits`` at most, from 2 on.

    >>> [percent_in_digits(share) for share in (1.0, 0.99996, 0.5, 1e-9, 0.0)]
    ['100 %', '99.9 %', '50 %', '1e-07 %', '0 %']
    """
    below = 100.0 - 10.0 ** (2 - digits)
    return f"{min(100.0 * share, below) if share < 1 else 100.0 * share:.{digits}g} %"
