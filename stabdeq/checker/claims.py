"""The claims that a proof about a model may make: their words and symbols, what each holds, and how it is proved."""

from collections.abc import Callable
from typing import Any, NamedTuple

from .cell_claims import contraction, gain, lyapunov, stability
from .predictions import linf, radius

ABOUT = (
    "All is about the real function that the parameters in the checkpoint define: their float32 or float64 numbers are taken as the "
    "real numbers that they are, and nothing is rounded, neither in the weights made of them (exponentials, products, steps, rotations) "
    "nor in the computation. What a computer returns differs by its rounding and by its solver's tolerance. x are pixels in [0, 1], h "
    "the features of an image, z the state, z* the equilibrium f(z*, h) = z*."
)


class Claim(NamedTuple):
    """Its words, whose gaps ``prove`` fills; its symbols; the names of the values that ``prove`` takes."""

    words: str
    symbols: str
    keys: tuple[str, ...]
    prove: Callable[..., dict[str, Any]]


CLAIMS = {
    "gain": Claim(
        "For every h there is exactly one equilibrium, and between any two h it moves by no more than {gain!r} times what h does.",
        "||z*(h) - z*(h')|| <= g ||h - h'||, by g^2 (2L - LM - M'L - D'D) - LUU'L > 0",
        ("gain", "multiplier"),
        gain,
    ),
    "contraction": Claim(
        "For every h, the cell's map contracts by {rate!r} in the norm of the matrix P.",
        "||f(z, h) - f(z', h)||_P <= r ||z - z'||_P, by [[r^2 P, -B'L], [*, 2L - LN - N'L - D'PD]] > 0",
        ("rate", "norm", "multiplier"),
        contraction,
    ),
    "stability": Claim(
        "For every h, any two trajectories of z' = f(z, h) - z approach each other at the rate {rate!r} or faster in the norm of the "
        "matrix P, and so one equilibrium.",
        "||z(t) - z~(t)||_P <= exp(-a t) ||z(0) - z~(0)||_P, by [[2(1 - a)P, -(PD + B'L)], [*, 2L - LN - N'L]] > 0",
        ("rate", "norm", "multiplier"),
        stability,
    ),
    "lyapunov": Claim(
        "For every h and z, the learned V, centred at z*, falls along z' = f(z, h) - z at the rate {alpha!r} or faster.",
        "dV/dt <= -alpha V, by 2 eta (2a - alpha)(2 - alpha) >= c^2 K",
        ("alpha", "decay", "lipschitz", "size", "bend"),
        lyapunov,
    ),
    "radius": Claim(
        "Of {images} images, {radii} have an l2 radius, listed with their class, within which no image is classified otherwise. With "
        "the class of their label, so many are certified: {counts}.",
        "||x' - x|| <= radius implies logit_y(x') > logit_j(x') for all j other than y",
        ("pairs", "whole", "everywhere", "radii", "counts"),
        radius,
    ),
    "linf": Claim(
        "Of {images} images, so many are classified as labelled wherever each pixel moves by at most eps within [0, 1]: {counts}.",
        "max |x' - x| <= eps implies logit_label(x') > logit_j(x') for all other j",
        ("at",),
        linf,
    ),
}
