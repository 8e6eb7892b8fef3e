"""A linear layer whose weight has orthonormal rows."""

import torch
from torch import Tensor, nn

from stabdeq.backbones.lipschitz.blocks import linear_in_blocks
from stabdeq.errors import ConfigError
from stabdeq.linear_algebra import solved


class OrthonormalRows(nn.Module):
    """The affine map x -> Q x + b, (B, inputs) -> (B, outputs), with Q Q' = I by a Cayley transform.

    With a free square U and a free V, and Z = U - U' + V V', Q = [(I + Z)^-1 (I - Z), 2 (I + Z)^-1 V] (Trockman and Kolter 2021,
    arXiv 2104.07167, for square matrices). The sums over all inputs are taken in blocks. Raises ConfigError where there are more outputs
    than inputs.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        if outputs > inputs:
            raise ConfigError(
                f"{outputs} orthonormal rows do not fit into {inputs} numbers: lower model.state_dim to {inputs}, or choose another "
                "backbone"
            )
        self.square = nn.Parameter(torch.randn(outputs, outputs) / inputs**0.5)
        self.rest = nn.Parameter(torch.randn(outputs, inputs - outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    @property
    def weight(self) -> Tensor:
        """(outputs, inputs): Q."""
        identity = torch.eye(len(self.bias), dtype=self.bias.dtype, device=self.bias.device)
        z = self.square - self.square.T + self.rest @ self.rest.T
        return solved(identity + z, torch.cat([identity - z, 2 * self.rest], 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return Q x + b."""
        return linear_in_blocks(x, self.weight, self.bias)
