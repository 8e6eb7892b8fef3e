"""The two-layer input-convex network g (paper, Eqs. 10 and 12) and its gradient in closed form."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def smooth_relu(t: Tensor, width: float) -> Tensor:
    """Return 0 for t <= 0, t^2 / (2 width) for 0 < t < width, t - width / 2 beyond (paper, Eq. 12).

    >>> smooth_relu(torch.tensor([-1.0, 0.5, 2.0]), 1.0)
    tensor([0.0000, 0.1250, 1.5000])
    """
    inside = t.clamp(0, width)
    return inside * (inside / (2 * width)) + (t - width).clamp(min=0)


def smooth_relu_slope(t: Tensor, width: float) -> Tensor:
    """Return the derivative of ``smooth_relu``: 0, then t / width, then 1."""
    return (t / width).clamp(0, 1)


class InputConvexNetwork(nn.Module):
    """g(z) = s(u' s(W0 z + b0) + w1' z + b1) with u >= 0 and s the smooth ReLU: convex in z.

    u is the softplus of an unconstrained parameter, so that no step of an optimiser can make g non-convex. g is
    differentiable with a Lipschitz gradient, and ``forward`` returns that gradient in closed form, so no autograd is
    needed where only values are.
    """

    def __init__(self, dim: int, hidden: int, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.inner = nn.Linear(dim, hidden)
        self.skip = nn.Linear(dim, 1)
        # Positive weights add up: without the 1 / hidden they would drown the skip connection at the start.
        self.raw_mix = nn.Parameter(torch.full((hidden,), math.log(math.expm1(1 / hidden))))

    @property
    def mix(self) -> Tensor:
        """(hidden,): the non-negative hidden-to-output weights u."""
        return functional.softplus(self.raw_mix)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return g (B,) and its gradient (B, n) at ``z`` (B, n)."""
        mix, width = self.mix, self.smoothing
        inner = self.inner(z)
        outer = smooth_relu(inner, width) @ mix + self.skip(z).squeeze(-1)
        slope = (mix * smooth_relu_slope(inner, width)) @ self.inner.weight + self.skip.weight
        return smooth_relu(outer, width), smooth_relu_slope(outer, width)[:, None] * slope

    def lipschitz_bound(self) -> float:
        """Return an upper bound of g's Lipschitz constant: the layer norms summed over paths, with room for rounding."""
        with torch.no_grad():
            path = self.mix.double().norm() * torch.linalg.matrix_norm(self.inner.weight.double(), 2)
            bound = path + self.skip.weight.double().norm()
        return float(bound) * (1 + 1e-9)
