"""What the weights of this library's V prove by themselves."""

import torch

from stabdeq.alteration import alteration, prototype
from stabdeq.config import LyapunovConfig
from stabdeq.lyapunov import InputConvexLyapunov, LyapunovFunction


def is_structured(lyapunov: LyapunovFunction | None) -> bool:
    """Return whether ``lyapunov`` is of the family whose properties hold for all finite weights, altered in nothing."""
    if not isinstance(lyapunov, InputConvexLyapunov):
        return False
    weight = dict(lyapunov.named_parameters()).get("network.inner.weight")
    hidden, dim = weight.shape if weight is not None and weight.dim() == 2 and len(weight) > 0 else (1, 1)
    like = prototype(InputConvexLyapunov, dim, LyapunovConfig(hidden=hidden), "origin")
    return (
        alteration(lyapunov, "V", like) is None
        and min(lyapunov.eta, lyapunov.alpha, lyapunov.smoothing, lyapunov.network.smoothing) > 0
        and all(bool(torch.isfinite(weight).all()) for weight in lyapunov.parameters())
    )


def growth(lyapunov: LyapunovFunction) -> str:
    """Return V's proved bounds in words, with their constants, for a structured V."""
    assert isinstance(lyapunov, InputConvexLyapunov)
    upper = lyapunov.growth_bound()
    return f"{lyapunov.eta:g} ||z - c||^2 <= V <= {upper:.3g} ||z - c||^2"
