"""Cells of known kind, with fixed random weights: a convolution, a linear map of known spectrum, attention, a graph."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvolutionalCell(nn.Module):
    """f(z, h) = tanh(C2 relu(C1 z) + h), random weights that contract, states (B, channels, side, side)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for convolution in (self.first, self.second):
            shape = convolution.weight.shape
            convolution.weight.data = torch.randn(shape, generator=generator) / (9 * channels) ** 0.5
            nn.init.zeros_(convolution.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return f(z, h)."""
        return torch.tanh(self.second(torch.relu(self.first(z))) + h)

    def linearise(self, z: Tensor, h: Tensor) -> tuple["ConvolutionalPullBack", tuple[Tensor, Tensor]]:
        """Return u -> J' u at ``z``, and the slopes of ReLU and tanh (B, *) that it reads."""
        first, second = (
            convolution.weight.detach().transpose(0, 1).flip(2, 3) for convolution in (self.first, self.second)
        )
        slopes = (self.first(z) > 0).to(z.dtype), 1 - self(z, h).square()
        return ConvolutionalPullBack(first, second), slopes


@dataclass(frozen=True)
class ConvolutionalPullBack:
    """u -> J' u of the convolutional cell, by the convolutions' adjoints."""

    first: Tensor
    second: Tensor

    def __call__(self, u: Tensor, inner_slope: Tensor, outer_slope: Tensor) -> Tensor:
        """Return J' u, (B, *) -> (B, *)."""
        hidden = functional.conv2d(u * outer_slope, self.second, padding=1) * inner_slope
        return functional.conv2d(hidden, self.first, padding=1)


class LinearCell(nn.Module):
    """f(z, h) = A z + h with A symmetric, of spectrum [-radius, radius], states (B, n)."""

    def __init__(self, size: int, radius: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
        spectrum = torch.linspace(-radius, radius, size, dtype=torch.float64)
        self.weight = nn.Parameter(((basis * spectrum) @ basis.T).float())

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return f(z, h)."""
        return torch.addmm(h, z, self.weight)

    def linearise(self, z: Tensor, h: Tensor) -> tuple["LinearPullBack", tuple[()]]:
        """Return u -> J' u, which is the same everywhere."""
        return LinearPullBack(self.weight.detach().T), ()


@dataclass(frozen=True)
class LinearPullBack:
    """u -> J' u of the linear map."""

    weight: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        """Return J' u, (B, n) -> (B, n)."""
        return u @ self.weight


class AttentionCell(nn.Module):
    """A weight-tied transformer block, f(z, h) = norm(g + (relu(g W1) W2) / 2) / 2, g = h + attention(z) / 2, (B, tokens, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = {"mix": (width, 3 * width), "widen": (width, 2 * width), "narrow": (2 * width, width)}
        for name, shape in shapes.items():
            weight = torch.randn(shape, generator=generator) / shape[0] ** 0.5
            self.register_parameter(name, nn.Parameter(weight))

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return f(z, h)."""
        queries, keys, values = (z @ self.mix).chunk(3, dim=2)
        mixed = h + functional.scaled_dot_product_attention(queries, keys, values) / 2
        grown = mixed + functional.relu(mixed @ self.widen) @ self.narrow / 2
        return functional.layer_norm(grown, grown.shape[2:]) / 2


class GraphCell(nn.Module):
    """An implicit graph network, f(z, h) = relu(A z W + h), A the normalised adjacency of a fixed random graph, (B, nodes, width)."""

    adjacency: Tensor

    def __init__(self, nodes: int, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        linked = torch.rand(nodes, nodes, generator=generator) < 4 / nodes
        linked = (linked | linked.T | torch.eye(nodes, dtype=torch.bool)).float()
        degree = linked.sum(1).rsqrt()
        self.register_buffer("adjacency", degree[:, None] * linked * degree)  # of norm 1
        weight = torch.randn(width, width, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter((0.9 * weight / torch.linalg.matrix_norm(weight, 2)).float())

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return f(z, h)."""
        return functional.relu(self.adjacency @ z @ self.weight + h)
