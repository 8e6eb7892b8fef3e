"""The gain from features to equilibria that a Lyapunov function would give, where it falls along the unprojected field."""

from stabdeq.lyapunov import InputConvexLyapunov


def iss_gain(lyapunov: InputConvexLyapunov, sensitivity: float) -> float:
    """Return gamma with ||dz*|| <= gamma ||dh|| where V falls at rate alpha along F(., h) for every h.

    alpha eta ||e||^2 <= alpha V(e) <= -grad V(e) . F(z', h) <= 2 k ||e|| ``sensitivity`` ||dh||, with V <= k ||e||^2 and
    ``sensitivity`` a Lipschitz constant of f in h (theory: from a changed image to a changed state).
    """
    return 2 * lyapunov.growth_bound() * sensitivity / (lyapunov.alpha * lyapunov.eta)
