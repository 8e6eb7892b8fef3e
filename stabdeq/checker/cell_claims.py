"""Claims about the cell, for every input: its equilibrium, its rates, the decay of the learned V."""

from typing import Any

from flint import arb

from .case import Case
from .inequalities import proved_gain, require_rate
from .matrices import diagonal, norm_of, require_definite, scaled
from .reading import number, require

Named = dict[str, Any]


def gain(case: Case, value: Any, multiplier: Any) -> Named:
    """One equilibrium for every h, and ||dz*|| <= g ||dh||."""
    U = case.cell.U
    return {"gain": float(proved_gain(case.cell, case.cell.D, U * U.transpose(), [value, multiplier], "gain"))}


def contraction(case: Case, rate: Any, norm: Any, multiplier: Any) -> Named:
    """||df|| <= r ||dz|| in the norm of P, for the map f."""
    r = number(rate, "contraction.rate")
    require(0 < r < 1, "contraction.rate: expected a number between 0 and 1")
    require_rate(case.cell, arb(r) ** 2, norm, multiplier, True, "contraction")
    return {"rate": r}


def stability(case: Case, rate: Any, norm: Any, multiplier: Any) -> Named:
    """d/dt ||dz||^2 <= -2a ||dz||^2 in the norm of P, along f(z, h) - z."""
    a = number(rate, "stability.rate")
    require(a > 0, "stability.rate: expected a positive number")
    require_rate(case.cell, -2 * arb(a), norm, multiplier, False, "stability")
    return {"rate": a}


def lyapunov(case: Case, *values: Any) -> Named:
    """dV/dt <= -alpha V for V = eta ||e||^2 + p(e), p(e) = s(g(e) - g(0)), e = z - z*, along F = f(z, h) - z.

    e'F <= -a ||e||^2, as e_i (B e)_i s <= ((e_i + (B e)_i) / 2)^2 for slopes s of a ReLU; ||df|| <= c ||e||; p is convex with a
    K-Lipschitz gradient, so grad p . e >= (1 - alpha) ||grad p||^2 / K + alpha (p + ||grad p||^2 / 2K). Together
    dV/dt + alpha V <= (eta (alpha - 2a) + c^2 K / (2 (2 - alpha))) ||e||^2.
    """
    names = ("alpha", "decay", "lipschitz", "size", "bend")
    alpha, a, c, size, bend = (arb(number(x, f"lyapunov.{name}")) for x, name in zip(values, names, strict=True))
    model, B, one = case.model, case.cell.of_map("lyapunov"), diagonal([1] * case.model.n)
    require(B.nrows() == model.n, "lyapunov: expected a cell of one ReLU")
    require(model.settings["stability"] == "anchored", "checkpoint: it has no V centred at the equilibrium")
    require(
        all(x > 0 for x in (alpha, a, c, size, bend)) and alpha <= 1, "lyapunov: expected positive numbers, alpha <= 1"
    )
    require_definite(
        4 * (1 - a) * one - (one + B).transpose() * (one + B), "lyapunov.decay: 4(1 - a)I - (I + B)'(I + B)"
    )
    require_definite(c**2 * one - B.transpose() * B, "lyapunov.lipschitz: c^2 I - B'B")
    settings, network = model.settings["lyapunov"], "lyapunov.network"
    W = model.matrix(f"{network}.inner.weight", None, model.n)
    u = [x.exp().log1p() for x in model.matrix(f"{network}.raw_mix", W.nrows()).entries()]  # softplus
    require_definite(size**2 * one - W.transpose() * W, "lyapunov.size: size^2 I - W'W")
    require_definite(bend * one - W.transpose() * scaled(u, W), "lyapunov.bend: bend I - W' diag(u) W")
    slope = size * norm_of(u) + norm_of(model.matrix(f"{network}.skip.weight", 1, model.n).entries())  # of g
    # s has slopes up to 1 and curvature up to 1 / smoothing, inside g as outside.
    K, eta = (2 * slope**2 + bend) / arb(settings["smoothing"]), arb(settings["eta"])
    require(eta * (2 * a - alpha) * 2 * (2 - alpha) >= c**2 * K, "lyapunov.alpha: not proved by a, c, size and bend")
    return {"alpha": float(alpha)}
