"""Matrices of balls, and the proof that one is positive definite.

An arb is a ball that holds the real number meant; a comparison of balls is true only where it is for all numbers in them.
"""

import math
from collections.abc import Sequence
from itertools import chain
from operator import mul
from typing import Any

from flint import arb, arb_mat

from .reading import Failure, require

# Parts of a diagonal, tried in turn: the more is taken off, the more of a ball's radius and of rounding it outweighs.
PARTS = [10.0**-k for k in range(7, 16)]


def diagonal(entries: Sequence[Any]) -> arb_mat:
    n = len(entries)
    return arb_mat([[0] * i + [entry] + [0] * (n - 1 - i) for i, entry in enumerate(entries)])


def scaled(entries: Sequence[Any], matrix: arb_mat) -> arb_mat:
    """Return diag(entries) times ``matrix``, row by row: for a matrix product most of the terms would be 0."""
    return arb_mat([[entry * x for x in row] for entry, row in zip(entries, matrix.tolist(), strict=True)])


def block(*rows: list[arb_mat]) -> arb_mat:
    parts = [zip(*(part.tolist() for part in row), strict=True) for row in rows]
    return arb_mat([list(chain(*pieces)) for row in parts for pieces in row])


def norm_of(vector: Sequence[arb]) -> arb:
    """Return an upper bound of the length: a ball around 0 has a square that may be below 0."""
    return sum((x.abs_upper() ** 2 for x in vector), arb(0)).sqrt()


def affine(x: arb_mat, weight: arb_mat, bias: arb_mat) -> arb_mat:
    """Return the rows of ``x`` after the map x -> weight x + bias, a column."""
    return x * weight.transpose() + arb_mat(x.nrows(), 1, [1] * x.nrows()) * bias.transpose()


def relu(matrix: arb_mat) -> arb_mat:
    zero = arb(0)
    return arb_mat([[x.max(zero) for x in row] for row in matrix.tolist()])


def require_definite(matrix: arb_mat, what: str) -> None:
    """Raise Failure unless the symmetric matrix A in the ball ``matrix`` is proved positive definite.

    R is about the Cholesky factor of A less a part of its diagonal, computed in doubles and trusted in nothing: RR' has no negative
    eigenvalue, whatever R is. Where in each row of E = A - RR', scaled by numbers q > 0 on both sides, the diagonal exceeds the
    other absolute values' sum, E is positive definite (Gershgorin), and so is A.
    """
    rows = [[float(x) for x in row] for row in matrix.tolist()]
    factors = (_factor(rows, part) for part in PARTS)
    R = next((factor for factor in factors if factor is not None), None)
    if R is None:
        raise Failure(f"{what} is not positive definite")
    q = [arb(row[i]).rsqrt() for i, row in enumerate(rows)]
    for i, row in enumerate((matrix - R * R.transpose()).tolist()):
        sizes = sum(map(mul, map(abs, row), q))
        require(sizes < 2 * row[i] * q[i], f"{what} is not proved to be positive definite")


def _factor(rows: list[list[float]], part: float) -> arb_mat | None:
    """Return about the lower triangular R with RR' = ``rows``, its diagonal times 1 - ``part``, or None."""
    factor: list[list[float]] = []
    try:
        for i, row in enumerate(rows):
            own: list[float] = []
            for j, other in enumerate(factor):
                own.append((row[j] - sum(map(mul, own, other))) / other[j])
            factor.append([*own, math.sqrt(row[i] * (1 - part) - sum(map(mul, own, own)))])
    except (ValueError, ZeroDivisionError):
        return None
    return arb_mat([row + [0.0] * (len(rows) - len(row)) for row in factor])
