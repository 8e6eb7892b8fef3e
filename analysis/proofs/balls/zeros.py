"""A true zero of some functions next to a state that is one to rounding, enclosed by Krawczyk's operator in ball arithmetic.

On the plane through the state z along the normals N (k, n), K(Y) = y - Y0 h(y) + (I - Y0 J(Y)) (Y - y) maps a box Y of coordinates into its
interior only if h(z + y N) = 0 for one y in it, which then lies in K(Y). J bounds the derivatives over Y, and Y0 is about their inverse.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from flint import arb, ctx
from torch import Tensor

from analysis.proofs.balls.ball import Balls, exact
from stabdeq.linear_algebra import solved

# Gives the values of k functions at a state (n,), and their derivatives along a direction (n,) where there is one.
Equations = Callable[[np.ndarray, np.ndarray | None], Sequence[Balls]]
GAINED = 30  # bits at least that a Newton step with an inverse in float64 adds
GROWTH, TIMES = 8, 8


def near(equations: Equations, state: Tensor, normals: Tensor) -> np.ndarray:
    """Return balls (n,) that hold a zero of the ``equations``, at the precision set; of NaN where none is shown.

    It is ``state`` (n,) itself where they are 0 there, and else ``state`` + y ``normals`` (k, n) with some small y.
    """
    origin, along = exact(state), exact(normals)
    value = _values(equations, origin)
    if all(one.is_zero() for one in value):
        return origin
    nowhere = np.array([arb("nan")] * len(state), dtype=object)
    middles = torch.tensor([[float(one.mid()) for one in row] for row in _jacobian(equations, origin, along)])
    inverse = solved(middles.double()[None], torch.eye(len(normals), dtype=torch.float64)[None])[0]
    if len(value) != len(normals) or not bool(inverse.isfinite().all()):
        return nowhere
    guess = exact(inverse)
    y = exact(torch.zeros(len(normals), dtype=torch.float64))
    for _ in range(ctx.prec // GAINED + 1):
        y = _middles(y - guess @ _values(equations, origin + y @ along))
    residual = guess @ _values(equations, origin + y @ along)
    tiny = arb(2) ** (16 - ctx.prec) * (1 + sum((abs(one) for one in origin), start=arb(0)))
    radius = [2 * one.abs_upper() + tiny.abs_upper() for one in residual]
    for _ in range(TIMES):
        spread = np.array([arb(0, one.upper()) for one in radius], dtype=object)
        identity = np.array([[arb(i == j) for j in range(len(y))] for i in range(len(y))], dtype=object)
        jacobian = _jacobian(equations, origin + (y + spread) @ along, along)
        image = (identity - guess @ jacobian) @ spread - residual  # of K(Y) - y
        if all(box.contains_interior(one) for box, one in zip(spread, image, strict=True)):
            return origin + (y + image) @ along
        radius = [GROWTH * one for one in radius]
    return nowhere


def _values(equations: Equations, state: np.ndarray) -> np.ndarray:
    return np.array([one for balls in equations(state, None) for one in balls.value.reshape(-1)], dtype=object)


def _jacobian(equations: Equations, state: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Return the derivatives (k, k) of the equations, in rows, along the directions."""
    columns = []
    for direction in along:
        found = equations(state, direction)
        slopes = [np.full(one.value.shape, arb(0), dtype=object) if one.slope is None else one.slope for one in found]
        columns.append([one for slope in slopes for one in slope.reshape(-1)])
    return np.array(columns, dtype=object).T


def _middles(numbers: np.ndarray) -> np.ndarray:
    return np.array([one.mid() for one in numbers], dtype=object)
