"""What the weights of this library's V prove by themselves."""

from stabdeq.lyapunov import InputConvexLyapunov, LyapunovFunction


def is_structured(lyapunov: LyapunovFunction | None) -> bool:
    """Return whether ``lyapunov`` is of the family whose properties hold for all weights."""
    return type(lyapunov) is InputConvexLyapunov


def growth(lyapunov: LyapunovFunction) -> str:
    """Return V's proved bounds in words, with their constants, for a structured V."""
    assert isinstance(lyapunov, InputConvexLyapunov)
    upper = lyapunov.growth_bound()
    return f"{lyapunov.eta:g} ||z - c||^2 <= V <= {upper:.3g} ||z - c||^2"
