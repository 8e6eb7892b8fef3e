"""Residual networks for images of CIFAR's size."""

from functools import partial

from torch import Tensor, nn

from stabdeq.backbones.backbone import Backbone
from stabdeq.backbones.he_initialisation import he_initialise


class ResNet(nn.Module):
    """The CIFAR ResNet of He et al. (2016, section 4.2) of ``depth`` 6 n + 2, with 64 features before the last layer.

    Its shortcuts between stages are 1 x 1 convolutions. Where ``features`` is not 64, a linear layer maps to it (the paper's
    CIFAR100: 128).
    """

    def __init__(self, depth: int, image_shape: tuple[int, int, int], features: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.stem = nn.Sequential(
            nn.Conv2d(image_shape[0], 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.stages = nn.Sequential(_stage(16, 16, 1, blocks), _stage(16, 32, 2, blocks), _stage(32, 64, 2, blocks))
        self.features = nn.Identity() if features == 64 else nn.Linear(64, features)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, features) of images ``x`` (B, C, H, W)."""
        return self.features(self.stages(self.stem(x)).mean((2, 3)))


def _stage(channels_in: int, channels: int, stride: int, blocks: int) -> nn.Sequential:
    from torchvision.models.resnet import BasicBlock, conv1x1

    shortcut = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Sequential(conv1x1(channels_in, channels, stride), nn.BatchNorm2d(channels))
    first = BasicBlock(channels_in, channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))


RESNET20 = Backbone(partial(ResNet, 20), least=8, width=64)
RESNET56 = Backbone(partial(ResNet, 56), least=8, width=64)
