"""The cell of the paper (Eq. 11) with convolutions in the place of its matrices, on states (C, H, W) that are held as vectors."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabdeq.cells.batchnorm import INNER_GAIN, BatchStatistics, EquilibriumBatchNorm, batch_statistics
from stabdeq.cells.equilibrium import EquilibriumCell, FoldedMap, UnfoldedCell
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

    def fold(self) -> FoldedMap:
        """Return the map with the products of its Jacobian in closed form, which take no evaluation of it."""
        return FoldedConvolution(self)

    def shaped(self, z: Tensor) -> Tensor:
        """Return states ``z`` (B, n) as (B, C, H, W)."""
        return z.reshape(-1, *self.shape)


class FoldedConvolution(UnfoldedCell):
    """The map of a ``cell`` with GroupNorms as a ``FoldedMap``, with the products of its Jacobian in closed form."""

    @torch.no_grad()
    def linearise(self, z: Tensor, injected: Tensor) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
        """Return the vector-Jacobian product at ``z`` (B, n), and of both norms the slopes and what they normalised, (B, C, H, W)."""
        cell = self.cell
        assert isinstance(cell, ConvolutionCell)
        entering = cell.inner(cell.shaped(z))
        inner = _Normalised.of(functional.relu(entering), cell.inner_norm)
        leaving = cell.shaped(injected) + cell.outer(cell.inner_norm(functional.relu(entering)))
        outer = _Normalised.of(functional.relu(leaving), cell.outer_norm)
        return self._products, (inner.scale * (entering > 0), inner.values, outer.scale * (leaving > 0), outer.values)

    def _products(self, u: Tensor, inner_slope: Tensor, inner: Tensor, outer_slope: Tensor, outer: Tensor) -> Tensor:
        cell = self.cell
        assert isinstance(cell, ConvolutionCell)
        hidden = _through_norm(cell.shaped(u), outer, cell.outer_norm) * outer_slope
        hidden = functional.conv_transpose2d(hidden, cell.outer.weight, padding=1)
        entering = _through_norm(hidden, inner, cell.inner_norm) * inner_slope
        return functional.conv_transpose2d(entering, cell.inner.weight, padding=1).flatten(1)


class _Normalised(NamedTuple):
    """What a GroupNorm makes of x (B, C, H, W) before its gain and shift, ``values``, and by what it multiplies it, ``scale``."""

    values: Tensor
    scale: Tensor

    @classmethod
    def of(cls, x: Tensor, norm: nn.Module) -> "_Normalised":
        assert isinstance(norm, nn.GroupNorm)
        groups = x.unflatten(1, (norm.num_groups, -1)).flatten(2)
        scale = (groups.var(2, correction=0, keepdim=True) + norm.eps).rsqrt()
        values = (groups - groups.mean(2, keepdim=True)) * scale
        return cls(values.view_as(x), scale.expand_as(groups).reshape(x.shape))


def _through_norm(u: Tensor, normalised: Tensor, norm: nn.Module) -> Tensor:
    """Return what J' of a GroupNorm makes of ``u`` (B, C, H, W), before the multiplication by its scale."""
    assert isinstance(norm, nn.GroupNorm)
    sizes = (norm.num_groups, -1)
    weighted, values = ((part.unflatten(1, sizes).flatten(2)) for part in (u * norm.weight[:, None, None], normalised))
    along = (weighted * values).mean(2, keepdim=True)
    return (weighted - weighted.mean(2, keepdim=True) - along * values).reshape(u.shape)


class BatchConvolutionCell(ConvolutionCell):
    """The same with BatchNorms over samples and places, which in training mode couple the samples, as in the dense cell.

    In evaluation mode they are fixed scalings, so that f is piecewise affine.
    """

    couples_samples = True
    shares_batches = True

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

    def fold(self) -> FoldedMap:
        """Return the map itself, with autograd's products."""
        return UnfoldedCell(self)

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
