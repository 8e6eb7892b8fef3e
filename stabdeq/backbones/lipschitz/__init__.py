"""Feature extractors that move no further than the normalised image does: ||dh|| <= ||dx||, whatever their weights are."""

from stabdeq.backbones.lipschitz.networks import (
    DeepLipschitzFullyConnected,
    LipschitzConvolutional,
    LipschitzFullyConnected,
)
from stabdeq.backbones.lipschitz.orthonormal import OrthonormalRows
from stabdeq.backbones.lipschitz.residual import Residual, ResidualConvolution, ResidualLinear
from stabdeq.backbones.lipschitz.widening import Widening

__all__ = [
    "DeepLipschitzFullyConnected",
    "LipschitzConvolutional",
    "LipschitzFullyConnected",
    "OrthonormalRows",
    "Residual",
    "ResidualConvolution",
    "ResidualLinear",
    "Widening",
]
