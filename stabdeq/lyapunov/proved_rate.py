"""The rate at which V falls along the unprojected field of a cell that contracts, for every input, from the weights alone.

Let V(z) = eta ||e||^2 + p(e), e = z - z*, p convex with p(0) = 0, grad p(0) = 0 and a K-Lipschitz gradient; let increments of
the field F = f - z obey de'dF <= -a ||de||^2, and those of f ||df|| <= c ||de||. As grad p . e >= (1 - s) ||grad p||^2 / K + s (p +
||grad p||^2 / 2 K) for s between 0 and 1 (convexity and co-coercivity), s = alpha gives

    V-dot + alpha V <= (eta (alpha - 2 a) + c^2 K / (2 (2 - alpha))) ||e||^2,

which is at most 0 up to alpha = 1 + a - sqrt((1 - a)^2 + c^2 K / (2 eta)), and up to 1 (theory: stability).
"""

from torch import Tensor

from stabdeq.cells.relu import Rates
from stabdeq.lyapunov.function import InputConvexLyapunov


def proved_rate(lyapunov: InputConvexLyapunov, rates: Rates) -> Tensor:
    """Return the largest alpha () <= 1 that this proves for V = ``lyapunov`` centred at the equilibrium; below 0 it proves none.

    ``rates`` are those of the cell. Differentiable.
    """
    load = rates.lipschitz.square() * lyapunov.curvature_bound() / (2 * lyapunov.eta)
    return (1 + rates.decay - ((1 - rates.decay).square() + load).sqrt()).clamp(max=1)
