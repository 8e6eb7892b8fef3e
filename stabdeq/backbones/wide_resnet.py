"""Wide residual networks."""

from functools import partial

from torch import Tensor, nn

from stabdeq.backbones.backbone import Backbone
from stabdeq.backbones.he_initialisation import he_initialise


class WideResNet(nn.Module):
    """WRN-depth-widening of Zagoruyko and Komodakis (2016, arXiv 1605.07146), depth 6 n + 4, without dropout.

    It has 64 * ``widening`` features before the last layer; where ``features`` is another number, a linear layer maps to it.
    """

    def __init__(self, depth: int, widening: int, image_shape: tuple[int, int, int], features: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        narrow, middle, wide = (channels * widening for channels in (16, 32, 64))
        self.stem = nn.Conv2d(image_shape[0], 16, 3, padding=1, bias=False)
        self.stages = nn.Sequential(
            _stage(16, narrow, 1, blocks), _stage(narrow, middle, 2, blocks), _stage(middle, wide, 2, blocks)
        )
        self.last = nn.Sequential(nn.BatchNorm2d(wide), nn.ReLU())
        self.features = nn.Identity() if features == wide else nn.Linear(wide, features)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, features) of images ``x`` (B, C, H, W)."""
        return self.features(self.last(self.stages(self.stem(x))).mean((2, 3)))


def _stage(channels_in: int, channels: int, stride: int, blocks: int) -> nn.Sequential:
    first = PreActivationBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(PreActivationBlock(channels, channels, 1) for _ in range(blocks - 1)))


class PreActivationBlock(nn.Module):
    """x + conv(relu(BN(conv(relu(BN(x)))))); where the shape changes, a 1 x 1 convolution of the first relu stands for x."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(channels_in), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )
        self.shortcut = None
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, H / stride, W / stride) of ``x`` (B, channels_in, H, W)."""
        activated = self.before(x)
        return self.residual(activated) + (x if self.shortcut is None else self.shortcut(activated))


WRN_28_10 = Backbone(partial(WideResNet, 28, 10), least=8, width=640)
