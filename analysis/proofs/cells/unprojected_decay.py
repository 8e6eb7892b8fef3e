"""V of an anchored model falls at its claimed rate along the unprojected field, for every input: proved from the weights.

The inequality and its proof are those of ``stabdeq.lyapunov.proved_rate``; every norm in it is bounded from above here, every
rounding accounted for.
"""

import math

import torch

from analysis.proofs.cells.network import forms_of
from analysis.proofs.matrices.enclosure import Enclosure, identity, spectral_norm_bound
from analysis.proofs.structure import is_structured
from stabdeq.cells import ReluCell, is_as_made
from stabdeq.lyapunov import InputConvexLyapunov, InputConvexNetwork, LyapunovFunction

UP, DOWN = 1 + 1e-12, 1 - 1e-12  # room for the few roundings of scalars
ROOM = 1e-9  # taken off the rate, so that its inequality holds as computed
# Above the float64 numbers of softplus, whose last digits no standard fixes: V with either has the bounds.
SOFTPLUS = 1 + 1e-9


@torch.no_grad()
def unprojected_rate(lyapunov: LyapunovFunction | None, cell: object) -> float | None:
    """Return a proved rate, at most 1, at which V falls along f(z, h) - z for every h; None where nothing is proved.

    ``cell`` and ``lyapunov`` are in float64. V must be this library's, centred at the equilibrium, and the cell one of a single
    ReLU, both unaltered.
    """
    if not (isinstance(cell, ReluCell) and is_as_made(cell) and is_structured(lyapunov)):
        return None
    assert isinstance(lyapunov, InputConvexLyapunov)
    if lyapunov.centre != "equilibrium" or not isinstance(lyapunov.network, InputConvexNetwork):
        return None
    network, _, _ = forms_of(cell)
    transition = network.state
    c = spectral_norm_bound(transition)
    a = 1 - spectral_norm_bound(identity(len(transition.centre)) + transition) ** 2 / 4 * UP
    load = c**2 * curvature_bound(lyapunov) / (2 * lyapunov.eta) * UP
    if not (a > 0 and load < math.inf):  # or NaN
        return None
    rate = min(1.0, 1 + a - math.sqrt((1 - a) ** 2 + load)) - ROOM
    return rate if rate > 0 and (2 * a - rate) * (2 - rate) * DOWN >= load else None


def curvature_bound(lyapunov: InputConvexLyapunov) -> float:
    """Return a proved Lipschitz constant K of the gradient of V's part s(g(e) - g(0))."""
    network, outer = lyapunov.network, lyapunov.smoothing
    mix = network.mix * SOFTPLUS
    weight = Enclosure.exact(network.inner.weight)
    scaled = Enclosure.exact(mix.sqrt() * UP)[:, None] * weight
    inner = spectral_norm_bound(scaled) ** 2
    path = spectral_norm_bound(weight) * float(Enclosure.exact(mix).norm())
    steepest = (path + float(Enclosure.exact(network.skip.weight[0]).norm())) * UP
    return (steepest**2 / outer + (steepest**2 + inner) / network.smoothing) * UP
