"""The cell of the paper (Eq. 11): y = W2 BN(relu(W1 z + b1)) + b2, f(z, h) = BN(relu(h + y))."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabdeq.cells.equilibrium import EquilibriumCell
from stabdeq.shared_batch import is_shared, mean_and_variance, normalised, size
from stabdeq.sizes import require_sizes

MOMENTUM = 0.1  # PyTorch's BatchNorm defaults
EPSILON = 1e-5

# The gain at which the inner BatchNorm starts. The outer one scales whatever reaches it to unit variance, so at gain 1, with
# the state's share of its input as large as the image's, the batch's map expands and has no equilibrium to find: on digits
# not one batch converged in 50 evaluations. At 0.1 all do (docs/results.md).
INNER_GAIN = 0.1


class BatchStatistics(NamedTuple):
    """Mean and biased variance of a batch before a BatchNorm, both (n,), and of how many numbers each is."""

    mean: Tensor
    variance: Tensor
    size: int


class EquilibriumBatchNorm(nn.Module):
    """BatchNorm that never touches its running statistics unless told to.

    A solver evaluates the cell many times for one forward pass, and each evaluation is at a state on the way. So the
    running statistics are updated by ``update`` alone, once per forward pass, at the equilibrium.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, features: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((features,), gain))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_variance", torch.ones(features))

    def forward(self, x: Tensor, statistics: BatchStatistics | None = None) -> Tensor:
        """Normalise ``x`` (B, n) or (B, n, *): by ``statistics`` if given, else by its batch in training, else by the running ones."""
        if statistics is not None:
            mean, variance = statistics.mean, statistics.variance
        elif self.training:
            if is_shared():
                return normalised(x, self.weight, self.bias, EPSILON)[0]
            return functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=EPSILON)
        else:
            mean, variance = self.running_mean, self.running_variance
        return functional.batch_norm(x, mean, variance, self.weight, self.bias, eps=EPSILON)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return the two (n,) with which evaluation mode computes scale * x + shift."""
        scale = self.weight * (self.running_variance + EPSILON).rsqrt()
        return scale, torch.addcmul(self.bias, scale, self.running_mean, value=-1)

    @torch.no_grad()
    def update(self, statistics: BatchStatistics) -> None:
        """Move the running statistics towards ``statistics`` by the usual momentum."""
        unbiased = statistics.variance * (statistics.size / (statistics.size - 1))
        self.running_mean.lerp_(statistics.mean, MOMENTUM)
        self.running_variance.lerp_(unbiased, MOMENTUM)


class Cell(EquilibriumCell):
    """f(z, h) of Eq. 11, states and injected features (B, n)."""

    couples_samples = True  # in training mode, through BatchNorm
    shares_batches = True

    def __init__(self, state_dim: int) -> None:
        super().__init__()
        require_sizes("cell batchnorm", state_dim=state_dim)
        self.inner = nn.Linear(state_dim, state_dim)
        self.inner_norm = EquilibriumBatchNorm(state_dim, gain=INNER_GAIN)
        self.outer = nn.Linear(state_dim, state_dim)
        self.outer_norm = EquilibriumBatchNorm(state_dim)

    def forward(
        self, z: Tensor, h: Tensor, statistics: tuple[BatchStatistics, BatchStatistics] | None = None
    ) -> Tensor:
        """Return f(z, h), (B, n), (B, n) -> (B, n), with fixed batch ``statistics`` where they are given."""
        inner, outer = statistics or (None, None)
        hidden = self.inner_norm(functional.relu(self.inner(z)), inner)
        return self.outer_norm(functional.relu(h + self.outer(hidden)), outer)

    @torch.no_grad()
    def statistics(self, z: Tensor, h: Tensor) -> tuple[BatchStatistics, BatchStatistics]:
        """Return the batch statistics before the two BatchNorms at states ``z``: with them fixed, f has the same equilibrium."""
        active = functional.relu(self.inner(z))
        inner = batch_statistics(active)
        return inner, batch_statistics(functional.relu(h + self.outer(self.inner_norm(active, inner))))

    def decoupled(self, z: Tensor, h: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the map with the batch's statistics fixed to those at ``z`` (B, n), so that each sample is alone."""
        if not self.training:
            return self
        statistics = self.statistics(z, h)
        return lambda z, h: self(z, h, statistics)

    @torch.no_grad()
    def fold(self) -> "FoldedCell":
        """Return the cell in evaluation mode, with both BatchNorms folded into its weights."""
        inner_scale, inner_shift = self.inner_norm.scale_and_shift()
        outer_scale, outer_shift = self.outer_norm.scale_and_shift()
        return FoldedCell(
            inner=self.inner.weight.T.contiguous(),
            inner_bias=self.inner.bias.clone(),
            outer=(self.outer.weight * inner_scale).T.contiguous(),
            outer_bias=torch.addmv(self.outer.bias, self.outer.weight, inner_shift),
            scale=outer_scale,
            shift=outer_shift,
        )

    def at_equilibrium(self, z: Tensor, h: Tensor) -> None:
        """Update both BatchNorms' running statistics by those of the batch at ``z`` (B, n)."""
        self.update_running_statistics(self.statistics(z, h))

    def update_running_statistics(self, statistics: tuple[BatchStatistics, BatchStatistics]) -> None:
        """Update both BatchNorms' running statistics."""
        inner, outer = statistics
        self.inner_norm.update(inner)
        self.outer_norm.update(outer)


@dataclass(frozen=True)
class FoldedCell:
    """The cell in evaluation mode as two matrix products: f(z, h) = scale relu(h + b2 + relu(z W1 + b1) W2) + shift."""

    inner: Tensor  # (n, n), W1
    inner_bias: Tensor  # (n,)
    outer: Tensor  # (n, n), W2
    outer_bias: Tensor  # (n,)
    scale: Tensor  # (n,)
    shift: Tensor  # (n,)

    def inject(self, h: Tensor) -> Tensor:
        """Return h + b2, (B, n), which ``__call__`` reads: it is the same at every state."""
        return h + self.outer_bias

    def __call__(self, z: Tensor, injected: Tensor) -> Tensor:
        """Return f(z, h), (B, n), (B, n) -> (B, n), from ``injected`` = inject(h)."""
        hidden = torch.addmm(self.inner_bias, z, self.inner).relu_()
        return torch.addcmul(self.shift, torch.addmm(injected, hidden, self.outer).relu_(), self.scale)

    def linearise(self, z: Tensor, injected: Tensor) -> tuple["FoldedPullBack", tuple[Tensor, Tensor]]:
        """Return the vector-Jacobian product at ``z`` (B, n) and the slopes of the two ReLUs (B, n) that it reads."""
        inner = torch.addmm(self.inner_bias, z, self.inner)
        outer = torch.addmm(injected, inner.relu(), self.outer)
        slopes = (inner > 0).to(z.dtype), self.scale * (outer > 0)
        return FoldedPullBack(self.inner.T.contiguous(), self.outer.T.contiguous()), slopes


@dataclass(frozen=True)
class FoldedPullBack:
    """u -> J' u for J = df/dz of a folded cell: with the ReLUs' slopes fixed, two matrix products."""

    inner: Tensor  # (n, n)
    outer: Tensor  # (n, n)

    def __call__(self, u: Tensor, inner_slope: Tensor, outer_slope: Tensor) -> Tensor:
        """Return J' u, (B, n) -> (B, n)."""
        return (((u * outer_slope) @ self.outer) * inner_slope) @ self.inner


def batch_statistics(x: Tensor) -> BatchStatistics:
    """Return the statistics of ``x`` (B, n), or of its channels (B, n, *), which all places of a sample add to."""
    mean, variance = mean_and_variance(x)
    return BatchStatistics(mean, variance, size(x.numel() // x.shape[1]))
