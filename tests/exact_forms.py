"""An independent judge of certificates: everything in fractions."""

from fractions import Fraction

import torch
from torch import Tensor

from analysis.proofs.cells.decay import Decay
from analysis.proofs.cells.gain import Gain
from analysis.proofs.cells.network import ReluNetwork

Exact = list[list[Fraction]]


def exact(matrix: Tensor) -> Exact:
    return [[Fraction(entry) for entry in row] for row in matrix.tolist()]


def product(a: Exact, b: Exact) -> Exact:
    return [
        [sum((x * y for x, y in zip(row, column, strict=True)), Fraction()) for column in zip(*b, strict=True)]
        for row in a
    ]


def combine(a: Exact, b: Exact, factor: Fraction | int = 1) -> Exact:
    return [[x + factor * y for x, y in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]


def transpose(a: Exact) -> Exact:
    return [list(column) for column in zip(*a, strict=True)]


def scaled(a: Exact, factor: Fraction) -> Exact:
    return [[factor * entry for entry in row] for row in a]


def joined(a: Exact, b: Exact, c: Exact, d: Exact) -> Exact:
    return [x + y for x, y in zip(a, b, strict=True)] + [x + y for x, y in zip(c, d, strict=True)]


def is_definite(matrix: Exact) -> bool:
    """Whether a symmetric matrix is positive definite, by the pivots of its LDL' factorisation."""
    rest = matrix
    while rest:
        if rest[0][0] <= 0:
            return False
        rest = [
            [rest[i][j] - rest[i][0] * rest[0][j] / rest[0][0] for j in range(1, len(rest))]
            for i in range(1, len(rest))
        ]
    return True


def of_forms(network: ReluNetwork) -> tuple[Exact, Exact, Exact, Exact]:
    """A, B, D, N: the centres, which are exact here (sums with 0 and products with 1), whatever error their radii allow for."""
    parts = (network.skip, network.state, network.output, network.hidden)
    assert all(float(part.radius.sum()) < 1e-13 for part in parts)
    A, B, D, N = (exact(part.centre) for part in parts)
    return A, B, D, N


def holds_exactly(network: ReluNetwork, proof: Decay, kind: str) -> bool:
    A, B, D, N = of_forms(network)
    P, L, rate = exact(proof.norm), exact(torch.diag(proof.multiplier)), Fraction(proof.rate)
    if not L:  # no activations
        PA = product(P, A)
        return is_definite(P) and is_definite(combine(combine(scaled(P, -2 * rate), PA, -1), transpose(PA), -1))
    LN = product(L, N)
    corner = combine(combine(scaled(L, Fraction(2)), LN, -1), transpose(LN), -1)
    if kind == "flow":
        PA = product(P, A)
        first = combine(combine(scaled(P, -2 * rate), PA, -1), transpose(PA), -1)
        mixed = scaled(combine(product(P, D), product(transpose(B), L)), Fraction(-1))
    else:
        AP = product(transpose(A), P)
        first = combine(scaled(P, rate * rate), product(AP, A), -1)
        mixed = scaled(combine(product(AP, D), product(transpose(B), L)), Fraction(-1))
        corner = combine(corner, product(product(transpose(D), P), D), -1)
    return is_definite(P) and is_definite(joined(first, mixed, transpose(mixed), corner))


def gain_holds_exactly(weight: Exact, output: Exact, injection: Exact, proof: Gain) -> bool:
    L = exact(torch.diag(proof.multiplier))
    LM, LU = product(L, weight), product(L, injection)
    S = combine(combine(scaled(L, Fraction(2)), LM, -1), transpose(LM), -1)
    room = combine(S, product(transpose(output), output), -1)
    columns = len(injection[0])
    square = [[Fraction(proof.value) ** 2 * (i == j) for j in range(columns)] for i in range(columns)]
    return is_definite(joined(room, scaled(LU, Fraction(-1)), scaled(transpose(LU), Fraction(-1)), square))
