"""Functions of a state on a box: their values, and their slopes from one point of it.

A slope of u is s with u(z) - u(z0) = sum s_i (z_i - z0_i) for all z of the box (Krawczyk and Neumaier, Interval slopes for rational
functions, 1985). Of f(u) it is s f'(v) for some v between u(z0) and u(z); and f'(v) = f'(u(z0)) + f''(w) (u(z) - u(z0)) / 2.
"""

from collections.abc import Callable
from operator import mul
from typing import Any

from flint import arb

NAN, HALF, ZERO, ONE, TWO = arb("nan"), arb(0.5), arb(0), arb(1), arb(2)


class Jet:
    """A function u on a box around z0: balls c of u(z0), r of all u(z), s of a slope's entries, and h of the entries of z - z0."""

    __slots__ = ("c", "h", "r", "s")

    def __init__(self, c: arb, r: arb, s: list[arb], h: list[arb]) -> None:
        self.c, self.r, self.s, self.h = c, r, s, h

    def tight(self) -> "Jet":
        """Return it with r cut to c + s h, where u is defined on the whole box."""
        if self.r.is_finite() and (mean := sum(map(mul, self.s, self.h), self.c)).is_finite():
            self.r = self.r.intersection(mean)
        return self

    def __add__(self, other: "Jet") -> "Jet":
        s = [a + b for a, b in zip(self.s, other.s, strict=True)]
        return Jet(self.c + other.c, self.r + other.r, s, self.h).tight()

    def __mul__(self, other: "Jet") -> "Jet":
        # u v - u0 v0 = v0 (u - u0) + u (v - v0)
        s = [other.c * a + self.r * b for a, b in zip(self.s, other.s, strict=True)]
        return Jet(self.c * other.c, self.r * other.r, s, self.h).tight()


def constant(number: Any, like: Jet) -> Jet:
    return Jet(arb(number), arb(number), [ZERO] * len(like.h), like.h)


def scaled(u: Any, factor: arb, offset: arb = ZERO) -> Any:
    """Return factor u + offset of a ball or a jet."""
    if isinstance(u, Jet):
        return Jet(u.c * factor + offset, u.r * factor + offset, [a * factor for a in u.s], u.h)
    return u * factor + offset


def total(parts: list[Any]) -> Any:
    return sum(parts[1:], start=parts[0])


def square(u: Any) -> Any:
    if isinstance(u, Jet):
        return Jet(square(u.c), square(u.r), [(u.c + u.r) * a for a in u.s], u.h)
    return (u.abs_lower() ** 2).union(u.abs_upper() ** 2)


def step(u: Any) -> Any:
    """Return the derivative of max(u, 0): any number of [0, 1] where u may be 0."""
    r = u.r if isinstance(u, Jet) else u
    found = ONE if r > 0 else ZERO if r < 0 else arb(0.5, 0.5)
    if not isinstance(u, Jet):
        return found
    return Jet(found, found, [ZERO if found.is_exact() else NAN] * len(u.h), u.h)


# Of each function: its value on a ball; its derivative from u and t = function(u), balls or jets; its second derivative on balls.
FUNCTIONS: dict[str, tuple[Callable[[arb], arb], Callable[[Any, Any], Any], Callable[[arb, arb], arb]]] = {
    "square": (square, lambda u, t: scaled(u, TWO), lambda u, t: TWO),
    "inverse": (lambda u: 1 / u, lambda u, t: scaled(square(t), -ONE), lambda u, t: 2 * t * square(t)),
    "exp": (arb.exp, lambda u, t: t, lambda u, t: t),
    "log": (arb.log, lambda u, t: of("inverse", u), lambda u, t: -1 / square(u)),
    "sqrt": (arb.sqrt, lambda u, t: scaled(of("inverse", t), HALF), lambda u, t: -1 / (4 * t * u)),
    "sin": (arb.sin, lambda u, t: of("cos", u), lambda u, t: -t),
    "cos": (arb.cos, lambda u, t: scaled(of("sin", u), -ONE), lambda u, t: -t),
    "tanh": (arb.tanh, lambda u, t: scaled(square(t), -ONE, ONE), lambda u, t: -2 * t * (1 - square(t))),
    "sigmoid": (
        lambda u: 1 / (1 + (-u).exp()),
        lambda u, t: t * scaled(t, -ONE, ONE),
        lambda u, t: t * (1 - t) * (1 - 2 * t),
    ),
    "atan": (
        arb.atan,
        lambda u, t: of("inverse", scaled(square(u), ONE, ONE)),
        lambda u, t: -2 * u / square(1 + square(u)),
    ),
    "relu": (lambda u: u if u > 0 else ZERO if u <= 0 else NAN, lambda u, t: step(u), lambda u, t: NAN),
    "abs": (lambda u: u.abs_lower().union(u.abs_upper()), lambda u, t: scaled(step(u), TWO, -ONE), lambda u, t: NAN),
}
MONOTONE = ("exp", "log", "sqrt", "tanh", "sigmoid", "atan", "relu")


def of(name: str, u: Any) -> Any:
    """Return a function of a ball or of a jet; of a monotone one the values lie between those at the ends."""
    function, first, second = FUNCTIONS[name]
    if not isinstance(u, Jet):
        if name in MONOTONE or (name == "inverse" and (u > 0 or u < 0)):
            return function(u.lower()).union(function(u.upper()))
        return function(u)
    c, r = function(u.c) if name != "relu" else of(name, u.c), of(name, u.r)
    if not (u.r.is_finite() and r.is_finite()):
        return Jet(NAN, NAN, [NAN] * len(u.h), u.h)
    slope, nearer = first(u.r, r), first(u.c, c) + second(u.r, r) * (u.r - u.c) * HALF
    slope = slope.intersection(nearer) if slope.is_finite() and nearer.is_finite() else slope
    return Jet(c, r, [slope * a for a in u.s], u.h)
