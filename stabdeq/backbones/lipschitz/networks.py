"""Chains of layers with the Lipschitz constant 1."""

from torch import nn

from stabdeq.backbones.backbone import Backbone
from stabdeq.backbones.lipschitz.orthonormal import OrthonormalRows
from stabdeq.backbones.lipschitz.residual import ResidualConvolution, ResidualLinear
from stabdeq.backbones.lipschitz.widening import Widening
from stabdeq.errors import ConfigError

HIDDEN = 256
CHANNELS = 16


class LipschitzFullyConnected(nn.Sequential):
    """Two residual layers on the flattened image, and orthonormal rows to ``features``."""

    depth = 2

    def __init__(self, image_shape: tuple[int, int, int], features: int) -> None:
        channels, height, width = image_shape
        pixels = channels * height * width
        super().__init__(
            nn.Flatten(),
            *[ResidualLinear(pixels, HIDDEN) for _ in range(self.depth)],
            OrthonormalRows(pixels, features),
        )


class DeepLipschitzFullyConnected(LipschitzFullyConnected):
    """Eight of them in place of two."""

    depth = 8


class LipschitzConvolutional(nn.Sequential):
    """Three residual convolutions at half the image's size, three at a quarter, and orthonormal rows to ``features``.

    Halving moves the pixels of each 2 x 2 square into channels, so nothing is lost. Raises ConfigError where height or width is
    no multiple of 4.
    """

    def __init__(self, image_shape: tuple[int, int, int], features: int) -> None:
        channels, height, width = image_shape
        if height % 4 or width % 4:
            raise ConfigError(
                f"lipschitz-cnn halves its images twice: expected height and width that are multiples of 4, not {height} x {width}; "
                "use backbone lipschitz-fcn"
            )
        wide = max(CHANNELS, 4 * channels)
        super().__init__(
            nn.PixelUnshuffle(2),
            Widening(wide),
            *[ResidualConvolution(wide, wide) for _ in range(3)],
            nn.PixelUnshuffle(2),
            *[ResidualConvolution(4 * wide, 4 * wide) for _ in range(3)],
            nn.Flatten(),
            OrthonormalRows(wide * height * width // 4, features),
        )


FCN = Backbone(LipschitzFullyConnected)
FCN_8 = Backbone(DeepLipschitzFullyConnected)
CNN = Backbone(LipschitzConvolutional, least=4)
