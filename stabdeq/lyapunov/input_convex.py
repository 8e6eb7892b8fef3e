"""The two-layer input-convex network g (paper, Eqs. 10 and 12) and its gradient in closed form."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabdeq.linear_algebra import spectral_norm
from stabdeq.sizes import require_sizes


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


def smooth_relu_rise(t: Tensor, step: Tensor, width: float) -> Tensor:
    """Return smooth_relu(t + step) - smooth_relu(t), accurate however small ``step`` is beside ``t``.

    >>> smooth_relu_rise(torch.tensor(0.5), torch.tensor(1e-12), 1.0)
    tensor(5.0000e-13)
    """
    inside, beyond = t.clamp(0, width), (t - width).clamp(min=0)
    inside_rise = torch.maximum(torch.minimum(step + (t - inside), width - inside), -inside)
    beyond_rise = torch.maximum(step + (t - width - beyond), -beyond)
    return inside_rise * ((2 * inside + inside_rise) / (2 * width)) + beyond_rise


class InputConvexNetwork(nn.Module):
    """g(z) = s(u' s(W0 z + b0) + w1' z + b1) with u >= 0 and s the smooth ReLU: convex in z.

    u is the softplus of an unconstrained parameter, so that no step of an optimiser can make g non-convex. g is
    differentiable with a Lipschitz gradient.
    """

    def __init__(self, dim: int, hidden: int, smoothing: float) -> None:
        super().__init__()
        require_sizes("an input-convex network", dim=dim, hidden=hidden)
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
        """Return g(z) - g(0), (B,), and its gradient (B, n) in closed form, at ``z`` (B, n).

        The difference is taken layer by layer, not of two values of g, which would lose the digits that V lives on near its
        centre. g(0) follows from the weights of the moment, so the difference is 0 at 0 whatever they are.
        """
        mix, width = self.mix, self.smoothing
        inner, inner_step = self.inner.bias, functional.linear(z, self.inner.weight)
        outer = smooth_relu(inner, width) @ mix + self.skip.bias
        outer_step = smooth_relu_rise(inner, inner_step, width) @ mix + z @ self.skip.weight.squeeze(0)
        slope = (mix * smooth_relu_slope(inner + inner_step, width)) @ self.inner.weight + self.skip.weight
        gradient = smooth_relu_slope(outer + outer_step, width)[:, None] * slope
        return smooth_relu_rise(outer, outer_step, width), gradient

    def lipschitz_bound(self) -> float:
        """Return an upper bound of g's Lipschitz constant: the layer norms summed over paths, with room for rounding."""
        with torch.no_grad():
            path = self.mix.double().norm() * spectral_norm(self.inner.weight.double())
            bound = path + self.skip.weight.double().norm()
        return float(bound) * (1 + 1e-9)

    def slope_bounds(self) -> tuple[Tensor, Tensor]:
        """Return P and C, both (): ||grad g|| <= P, and grad g is C-Lipschitz. Differentiable, without room for rounding.

        P = ||W0|| ||u|| + ||w1|| bounds the gradient before the outer s, whose curvature adds P^2 / width to that of the inner one,
        ||W0' diag(u) W0|| / width.
        """
        mix, weight = self.mix, self.inner.weight
        steepest = spectral_norm(weight) * mix.norm() + self.skip.weight.norm()
        inner = spectral_norm(mix.sqrt()[:, None] * weight).square()
        return steepest, (steepest.square() + inner) / self.smoothing
