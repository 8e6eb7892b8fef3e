"""The two matrix inequalities behind claims about a cell: of a gain, and of a rate."""

from typing import Any

from flint import arb, arb_mat

from .matrices import block, diagonal, require_definite, scaled
from .parameters import Cell
from .reading import items, number, numbers, require


def read_multiplier(cell: Cell, values: Any, where: str) -> list[arb]:
    """Return the diagonal of L, a positive number for each ReLU: increments obey dw' L (M dw + di - dw) >= 0."""
    entries = numbers(values, cell.M.nrows(), f"{where}.multiplier")
    require(all(entry > 0 for entry in entries), f"{where}.multiplier: expected positive numbers")
    return [arb(entry) for entry in entries]


def proved_gain(cell: Cell, C: arb_mat, G: arb_mat, proof: list[Any], where: str) -> arb:
    """Return g with ||C dw|| <= g ||u|| for solutions of w = relu(M w + i), two i that differ by e with ee' <= ||u||^2 G.

    ``proof`` holds g and L. 2 L - L M - M'L > 0, which the inequality includes, makes the solution exist and be unique for every i.
    """
    g, L = number(proof[0], f"{where}.gain"), read_multiplier(cell, proof[1], where)
    require(g > 0, f"{where}.gain: expected a positive number")
    LM, LG = scaled(L, cell.M), scaled(L, G)
    room = 2 * diagonal(L) - LM - LM.transpose() - C.transpose() * C
    require_definite(arb(g) ** 2 * room - scaled(L, LG.transpose()), f"{where}: g^2 (2L - LM - M'L - C'C) - LGL")
    return arb(g)


def require_rate(cell: Cell, theta: arb, norm: Any, multiplier: Any, is_map: bool, where: str) -> None:
    """Prove ||df||^2 <= theta ||dz||^2 in the norm of P for the map f, or d/dt ||dz||^2 <= theta ||dz||^2 along f(z) - z."""
    n, B, L = cell.D.nrows(), cell.of_map(where), read_multiplier(cell, multiplier, where)
    rows = [numbers(row, i + 1, f"{where}.norm[{i}]") for i, row in enumerate(items(norm, f"{where}.norm", n))]
    P = arb_mat(n, n, [rows[max(i, j)][min(i, j)] for i in range(n) for j in range(n)])
    require_definite(P, f"{where}: P")
    LN, mixed = scaled(L, cell.N), -scaled(L, B).transpose()
    corner = 2 * diagonal(L) - LN - LN.transpose()
    if is_map:
        first, corner = theta * P, corner - cell.D.transpose() * P * cell.D
    else:
        first, mixed = (theta + 2) * P, mixed - P * cell.D
    require_definite(block([first, mixed], [mixed.transpose(), corner]), f"{where}: the matrix of P, L and the rate")
