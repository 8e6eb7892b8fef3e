"""Residual layers with the Lipschitz constant 1 (Araujo et al. 2023, arXiv 2303.03169, "SDP-based Lipschitz layers").

x -> x - W' diag(2 / t) relu(W x + b) moves no further than x does where diag(t) >= W W': with slopes D of the ReLU between 0 and 1
its increments are J dx, J = I - 2 W' T^-1 D W, and J'J = I - 4 W' T^-1 D W + 4 W' D T^-1 W W' T^-1 D W <= I. Here
t_i = sum_j |W W'|_ij q_j / q_i with any q > 0, by diagonal dominance.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabdeq.backbones.lipschitz.blocks import block_products, linear_in_blocks

KERNEL = 3
# Added to t, which only widens diag(t) >= W W'; without it a row of zeros would be divided by 0.
LEAST = 1e-8


class Residual(nn.Module):
    """The layer x -> x - W' (scale relu(W x + b)), with a linear map W that a subclass chooses."""

    weight: nn.Parameter
    bias: nn.Parameter  # (hidden,)
    log_weighting: nn.Parameter  # (hidden,), log q

    def sizes(self) -> Tensor:
        """Return (hidden, hidden): bounds of |W W'| between the rows of W, summed over places where W is a convolution."""
        raise NotImplementedError

    def scale(self) -> Tensor:
        """Return 2 / t, (hidden,)."""
        weighting = self.log_weighting.exp()
        return 2 / (self.sizes() @ weighting / weighting + LEAST)


class ResidualLinear(Residual):
    """The layer with a matrix W (hidden, features), on vectors (B, features).

    In evaluation mode its sums are taken in blocks, which bounds their rounding; in training mode as is fastest.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden, features))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.log_weighting = nn.Parameter(torch.zeros(hidden))
        nn.init.xavier_normal_(self.weight)

    def sizes(self) -> Tensor:
        """Return |W W'| (hidden, hidden)."""
        return (self.weight @ self.weight.T).abs()

    def forward(self, x: Tensor) -> Tensor:
        """Return the image (B, features) of ``x`` (B, features)."""
        if self.training:
            inner = functional.relu(functional.linear(x, self.weight, self.bias))
            return x - (inner * self.scale()) @ self.weight
        inner = functional.relu(linear_in_blocks(x, self.weight, self.bias))
        return x - block_products(inner * self.scale(), self.weight.T).sum(0)


class ResidualConvolution(Residual):
    """The layer with a 3 x 3 convolution W, zeros around the image, on (B, channels, H, W).

    With zeros around it, W W' is at most (as a quadratic form) a part of what it would be on an unbounded image, whose bound is used.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden, channels, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.log_weighting = nn.Parameter(torch.zeros(hidden))
        nn.init.xavier_normal_(self.weight)

    def sizes(self) -> Tensor:
        """Return the sums (hidden, hidden) over all shifts of the absolute correlations of two kernels."""
        return functional.conv2d(self.weight, self.weight, padding=KERNEL - 1).abs().sum((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return the image (B, channels, H, W) of ``x`` (B, channels, H, W)."""
        inner = functional.relu(functional.conv2d(x, self.weight, self.bias, padding=KERNEL // 2))
        scaled = inner * self.scale()[:, None, None]
        return x - functional.conv_transpose2d(scaled, self.weight, padding=KERNEL // 2)
