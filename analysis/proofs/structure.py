"""What the weights of this library's V prove by themselves."""

import torch

from stabdeq.cells import is_altered
from stabdeq.lyapunov import InputConvexLyapunov, InputConvexNetwork, LyapunovFunction


def is_structured(lyapunov: LyapunovFunction | None) -> bool:
    """Return whether ``lyapunov`` is of the family whose properties hold for all finite weights, altered in nothing."""
    return (
        isinstance(lyapunov, InputConvexLyapunov)
        and type(lyapunov) is InputConvexLyapunov
        and type(lyapunov.network) is InputConvexNetwork
        and not any(is_altered(part, "growth_bound", "lipschitz_bound") for part in lyapunov.modules())
        and min(lyapunov.eta, lyapunov.alpha, lyapunov.smoothing, lyapunov.network.smoothing) > 0
        and all(bool(torch.isfinite(weight).all()) for weight in lyapunov.parameters())
    )


def growth(lyapunov: LyapunovFunction) -> str:
    """Return V's proved bounds in words, with their constants, for a structured V."""
    assert isinstance(lyapunov, InputConvexLyapunov)
    upper = lyapunov.growth_bound()
    return f"{lyapunov.eta:g} ||z - c||^2 <= V <= {upper:.3g} ||z - c||^2"
