"""What training asks of a certified cell and of its V, so that the weights prove that V falls at the rate alpha that it claims.

The cell is asked, by a term of the loss, to decay at 1.1 alpha; then V may have a learned part of the curvature
2 eta alpha (2 - alpha) (``stabdeq.lyapunov.proved_rate``), and its weights are scaled down to that after each step.
"""

import torch
from torch import Tensor

from stabdeq.cells import CertifiedCell
from stabdeq.lyapunov import InputConvexLyapunov
from stabdeq.model import StabilisedDEQ
from train.recipe import ROOM


def shortfall(lyapunov: InputConvexLyapunov, cell: CertifiedCell) -> tuple[Tensor, Tensor]:
    """Return by what part the cell's rate of decay falls short of what is asked for, and 1 where it is below alpha, else 0."""
    rate = cell.rates().decay / lyapunov.alpha
    return (1 - rate / ROOM).clamp(min=0), (rate.detach() < 1).float()


@torch.no_grad()
def limit_curvature(model: StabilisedDEQ) -> None:
    """Scale the learned part of V down, where ``model`` has a certified cell and V is centred at the equilibrium, to what is allowed."""
    lyapunov = model.lyapunov
    if lyapunov is None or lyapunov.centre != "equilibrium" or not isinstance(model.cell, CertifiedCell):
        return
    allowed = 2 * lyapunov.eta * lyapunov.alpha * (2 - lyapunov.alpha)
    network = lyapunov.network
    # The curvature is quadratic in these two together.
    factor = (allowed / lyapunov.curvature_bound()).sqrt().clamp(max=1)
    network.inner.weight *= factor
    network.skip.weight *= factor
