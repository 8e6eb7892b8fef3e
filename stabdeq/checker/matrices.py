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


def diagonal(entries: Sequence[Any]) -> arb_mat:
    n = len(entries)
    return arb_mat(n, n, [entries[i] if i == j else 0 for i in range(n) for j in range(n)])


def block(*rows: list[arb_mat]) -> arb_mat:
    parts = [zip(*(part.tolist() for part in row), strict=True) for row in rows]
    return arb_mat([list(chain(*pieces)) for row in parts for pieces in row])


def norm_of(vector: Sequence[arb]) -> arb:
    return sum((x * x for x in vector), arb(0)).sqrt()


def affine(x: arb_mat, weight: arb_mat, bias: arb_mat) -> arb_mat:
    """Return the rows of ``x`` after the map x -> weight x + bias, a column."""
    return x * weight.transpose() + arb_mat(x.nrows(), 1, [1] * x.nrows()) * bias.transpose()


def relu(matrix: arb_mat) -> arb_mat:
    return arb_mat([[x.max(0) for x in row] for row in matrix.tolist()])


def require_definite(matrix: arb_mat, what: str) -> None:
    """Raise Failure unless the symmetric matrix A in the ball ``matrix`` is proved positive definite.

    X is about the inverse of A's Cholesky factor, computed in doubles and trusted in nothing: where in each row of XAX' - I the
    absolute values sum to less than 1, XAX' is positive definite (Gershgorin), so X is regular, and A is positive definite.
    """
    rows, factor, inverse = [[float(x) for x in row] for row in matrix.tolist()], [], []
    try:
        for i, row in enumerate(rows):
            factor.append([])
            for j in range(i):
                factor[i].append((row[j] - sum(map(mul, factor[i], factor[j]))) / factor[j][j])
            factor[i].append(math.sqrt(row[i] - sum(map(mul, factor[i], factor[i]))))
        for j in range(len(rows)):
            column = [1 / factor[j][j]]
            for i in range(j + 1, len(rows)):
                column.append(-sum(map(mul, factor[i][j:], column)) / factor[i][i])
            inverse.append([0.0] * j + column)
    except (ValueError, ZeroDivisionError):
        raise Failure(f"{what} is not positive definite") from None
    X = arb_mat(inverse).transpose()
    for row in (X * (matrix * X.transpose()) - diagonal([1] * len(rows))).tolist():
        require(sum(map(abs, row)) < 1, f"{what} is not proved to be positive definite")
