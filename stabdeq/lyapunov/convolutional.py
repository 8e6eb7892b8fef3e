"""The convolutional input-convex network g, for states on places (C, H, W), and its gradient in closed form."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabdeq.linear_algebra import spectral_norm
from stabdeq.lyapunov.input_convex import smooth_relu, smooth_relu_rise, smooth_relu_slope
from stabdeq.places import Shape
from stabdeq.sizes import require_sizes


class ConvolutionalNetwork(nn.Module):
    """g(z) = sum over places and channels of u s(U * s(W0 * z + b0) + W1 * z + b1), with U, u >= 0: convex in z.

    ``*`` are 3 x 3 convolutions with zeros around the image, s the smooth ReLU; W0 and W1 read the state and have any sign, U
    and u are the softplus of unconstrained parameters. The sum grows with the places, as ||z||^2 does.
    """

    def __init__(self, shape: Shape, hidden: int, smoothing: float) -> None:
        super().__init__()
        channels, height, width = shape
        require_sizes("a convolutional network", channels=channels, height=height, width=width, hidden=hidden)
        self.shape, self.smoothing = shape, smoothing
        self.inner = nn.Conv2d(channels, hidden, 3, padding=1)
        self.skip = nn.Conv2d(channels, hidden, 3, padding=1)
        # Positive weights add up: their sum starts at 1, as in the dense network.
        self.raw_middle = nn.Parameter(torch.full((hidden, hidden, 3, 3), _softplus_inverse(1 / (9 * hidden))))
        self.raw_mix = nn.Parameter(torch.full((hidden,), _softplus_inverse(1 / hidden)))

    @property
    def middle(self) -> Tensor:
        """(hidden, hidden, 3, 3): the non-negative kernel U."""
        return functional.softplus(self.raw_middle)

    @property
    def outer(self) -> Tensor:
        """(hidden,): the non-negative weights u."""
        return functional.softplus(self.raw_mix)

    @property
    def mix(self) -> Tensor:
        """(9 hidden^2 + hidden,): all the non-negative weights."""
        return torch.cat([self.middle.flatten(), self.outer])

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return g(z) - g(0), (B,), and its gradient (B, n) in closed form, at ``z`` (B, n).

        The difference is taken layer by layer, as in the dense network, and so is 0 at 0 whatever the weights are.
        """
        state, middle, outer, width = z.reshape(-1, *self.shape), self.middle, self.outer, self.smoothing
        _, height, breadth = self.shape
        assert self.inner.bias is not None
        first = self.inner.bias[:, None, None]
        first_step = functional.conv2d(state, self.inner.weight, padding=1)
        risen = smooth_relu_rise(first, first_step, width)
        at_zero = smooth_relu(first, width)[None].expand(1, -1, height, breadth)
        second = functional.conv2d(at_zero, middle, self.skip.bias, padding=1)
        second_step = functional.conv2d(risen, middle, padding=1)
        second_step = second_step + functional.conv2d(state, self.skip.weight, padding=1)
        rise = smooth_relu_rise(second, second_step, width).sum((2, 3)) @ outer
        slope = outer[:, None, None] * smooth_relu_slope(second + second_step, width)
        through = smooth_relu_slope(first + first_step, width) * functional.conv_transpose2d(slope, middle, padding=1)
        gradient = functional.conv_transpose2d(slope, self.skip.weight, padding=1)
        gradient = gradient + functional.conv_transpose2d(through, self.inner.weight, padding=1)
        return rise, gradient.flatten(1)

    def lipschitz_bound(self) -> float:
        """Return an upper bound of g's Lipschitz constant, with room for rounding."""
        with torch.no_grad():
            inner, skip, middle, outer = (
                part.double() for part in (self.inner.weight, self.skip.weight, self.middle, self.outer)
            )
            return float(self._steepest(outer, _path(inner, skip, middle))) * (1 + 1e-9)

    def slope_bounds(self) -> tuple[Tensor, Tensor]:
        """Return P and C, both (): ||grad g|| <= P, and grad g is C-Lipschitz. Differentiable, without room for rounding.

        With L = ||U|| ||W0|| + ||W1|| the norm of what enters the outer s, P = ||u|| L sqrt(H W); the curvatures of both layers of s add
        up to (max u L^2 + max (U'u) ||W0||^2) / width.
        """
        middle, outer = self.middle, self.outer
        path = _path(self.inner.weight, self.skip.weight, middle)
        reached = torch.einsum("k,kcij->c", outer, middle).amax()
        bends = outer.amax() * path.square() + reached * kernel_norm(self.inner.weight).square()
        return self._steepest(outer, path), bends / self.smoothing

    def _steepest(self, outer: Tensor, path: Tensor) -> Tensor:
        return outer.norm() * path * (self.shape[1] * self.shape[2]) ** 0.5


def kernel_norm(kernel: Tensor) -> Tensor:
    """Return a bound () of the norm of the convolution by ``kernel`` (K, C, h, w) with zeros around the image, whatever its size.

    The kernel is a sum of shifts, each of norm 1 at most, times the matrices (K, C): their norms add up.
    """
    return spectral_norm(kernel.flatten(2).permute(2, 0, 1)).sum()


def _path(inner: Tensor, skip: Tensor, middle: Tensor) -> Tensor:
    return kernel_norm(middle) * kernel_norm(inner) + kernel_norm(skip)


def _softplus_inverse(value: float) -> float:
    return math.log(math.expm1(value))
