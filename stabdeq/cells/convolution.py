"""The cell of the paper (Eq. 11) with convolutions in the place of its matrices, on states (C, H, W) that are held as vectors."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabdeq.cells.batchnorm import INNER_GAIN, BatchStatistics, EquilibriumBatchNorm, batch_statistics
from stabdeq.cells.equilibrium import EquilibriumCell
from stabdeq.places import Places, shape_of

GROUPS = (
    4  # of channels that GroupNorm normalises together, as in the multiscale models of Bai, Koltun and Kolter (2020)
)


class ConvolutionCell(EquilibriumCell):
    """f(z, h) = N(relu(h + W2 * N(relu(W1 * z + b1)) + b2)), with 3 x 3 convolutions and GroupNorms N, for states (B, C H W).

    GroupNorm, over ``GROUPS`` groups of the channels or the most below that divide them, takes its mean and variance from each
    sample alone, so samples are independent in training too. The inner norm starts at a gain of 0.1, as in the dense cell.
    Nothing proves that there is an equilibrium: an audit looks for it. Raises ConfigError where ``state_dim`` is no
    multiple of the H W ``places``.
    """

    reads_places = True

    def __init__(self, state_dim: int, places: Places) -> None:
        super().__init__()
        self.state_dim, self.places = state_dim, places
        self.shape = shape_of(state_dim, places)
        channels = self.shape[0]
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.inner_norm = self.norm(channels, INNER_GAIN)
        self.outer = nn.Conv2d(channels, channels, 3, padding=1)
        self.outer_norm = self.norm(channels, 1.0)

    @staticmethod
    def norm(channels: int, gain: float) -> nn.Module:
        """Return the norm of ``channels`` channels that starts at ``gain``."""
        groups = max(groups for groups in range(1, GROUPS + 1) if channels % groups == 0)
        norm = nn.GroupNorm(groups, channels)
        nn.init.constant_(norm.weight, gain)
        return norm

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return f(z, h), (B, n), (B, n) -> (B, n)."""
        hidden = self.inner_norm(functional.relu(self.inner(self.shaped(z))))
        return self.outer_norm(functional.relu(self.shaped(h) + self.outer(hidden))).flatten(1)

    def shaped(self, z: Tensor) -> Tensor:
        """Return states ``z`` (B, n) as (B, C, H, W)."""
        return z.reshape(-1, *self.shape)


class BatchConvolutionCell(ConvolutionCell):
    """The same with BatchNorms over samples and places, which in training mode couple the samples, as in the dense cell.

    In evaluation mode they are fixed scalings, so that f is piecewise affine.
    """

    couples_samples = True

    @staticmethod
    def norm(channels: int, gain: float) -> nn.Module:
        """Return the norm of ``channels`` channels that starts at ``gain``."""
        return EquilibriumBatchNorm(channels, gain)

    def forward(
        self, z: Tensor, h: Tensor, statistics: tuple[BatchStatistics, BatchStatistics] | None = None
    ) -> Tensor:
        """Return f(z, h), (B, n), (B, n) -> (B, n), with fixed batch ``statistics`` where they are given."""
        inner, outer = statistics or (None, None)
        hidden = self.inner_norm(functional.relu(self.inner(self.shaped(z))), inner)
        return self.outer_norm(functional.relu(self.shaped(h) + self.outer(hidden)), outer).flatten(1)

    @torch.no_grad()
    def statistics(self, z: Tensor, h: Tensor) -> tuple[BatchStatistics, BatchStatistics]:
        """Return the batch statistics before the two BatchNorms at states ``z`` (B, n)."""
        active = functional.relu(self.inner(self.shaped(z)))
        inner = batch_statistics(active)
        before = functional.relu(self.shaped(h) + self.outer(self.inner_norm(active, inner)))
        return inner, batch_statistics(before)

    def decoupled(self, z: Tensor, h: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the map with the batch's statistics fixed to those at ``z`` (B, n), so that each sample is alone."""
        if not self.training:
            return self
        statistics = self.statistics(z, h)
        return lambda z, h: self(z, h, statistics)

    def at_equilibrium(self, z: Tensor, h: Tensor) -> None:
        """Update both BatchNorms' running statistics by those of the batch at ``z`` (B, n)."""
        for norm, statistics in zip((self.inner_norm, self.outer_norm), self.statistics(z, h), strict=True):
            assert isinstance(norm, EquilibriumBatchNorm)
            norm.update(statistics)
