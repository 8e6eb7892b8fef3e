"""Lyapunov functions V, the projection that makes V decrease along a vector field, and the claims about V."""

from stabdeq.lyapunov.function import Centre, InputConvexLyapunov, LyapunovFunction
from stabdeq.lyapunov.input_convex import InputConvexNetwork
from stabdeq.lyapunov.projection import project
from stabdeq.lyapunov.proved_rate import proved_rate
from stabdeq.lyapunov.stability import centre_of, stabilise, stabilised_field

__all__ = [
    "Centre",
    "InputConvexLyapunov",
    "InputConvexNetwork",
    "LyapunovFunction",
    "centre_of",
    "project",
    "proved_rate",
    "stabilise",
    "stabilised_field",
]
