"""A cell whose equilibrium has interval bounds that exist and are unique, for all weights."""

import math

import torch
from torch import Tensor, nn

from stabdeq.cells.relu import FoldedReluCell, ReluCell
from stabdeq.sizes import require_sizes

CONTRACTION = 0.5  # 1 - m; m = 0.5 is the default of Wei and Kolter's code


class IntervalCell(ReluCell):
    """The map f(z, h) = relu(W z + h + b), the absolute values of each row of W summing to 1 - m = 0.5 at most.

    It contracts by 1 - m in the maximum norm, and so does its interval extension ``bounds``, whatever the parameters are:
    both have one equilibrium, which Picard's iteration finds.

    The monotone network with interval bounds of Wei and Kolter (ICLR 2022, "Certified robustness for deep equilibrium models
    via interval bound propagation") has (|W| + |W|') / 2 <= (1 - m) I in a learned diagonal scaling of z, by a free matrix that
    is divided by its row and column sums. Up to such a scaling both ask for a spectral radius of |W| of at most 1 - m. Ours
    needs no learned one: the linear layers before and after the cell can carry it.
    """

    def __init__(self, state_dim: int) -> None:
        super().__init__()
        require_sizes("cell interval", state_dim=state_dim)
        bound = 1 / math.sqrt(state_dim)
        self.matrix = nn.Parameter(torch.empty(state_dim, state_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(state_dim))

    @property
    def weight(self) -> Tensor:
        """(n, n): W, the free matrix with the rows that are too large scaled down."""
        sums = self.matrix.abs().sum(1, keepdim=True)
        return self.matrix * (CONTRACTION / sums.clamp(min=CONTRACTION))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return W' (n, n) and ones (n,): the map contracts as it is."""
        return self.weight.T, torch.ones_like(self.bias)

    def bounds(self) -> FoldedReluCell:
        """Return the map of lower and upper bounds, (B, 2 n): what f does to each box of states, for a box of features.

        The tensors are differentiable functions of the parameters. An equilibrium (low, high) for features in [h-, h+] holds
        z* of each of them, since f maps that box into itself.
        """
        weight = self.weight
        positive, negative = weight.clamp(min=0), weight.clamp(max=0)
        block = torch.cat([torch.cat([positive, negative], 1), torch.cat([negative, positive], 1)])
        return FoldedReluCell(block.T, torch.ones_like(self.bias).repeat(2), self.bias.repeat(2))
