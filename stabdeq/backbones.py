"""Feature extractors: normalised images (B, C, H, W) -> injected features h (B, n)."""

from torch import Tensor, nn

from stabdeq.config import BackboneName
from stabdeq.errors import ConfigError


class FullyConnected(nn.Sequential):
    """One fully connected layer on the flattened image: the paper's MNIST extractor."""

    def __init__(self, image_shape: tuple[int, int, int], features: int) -> None:
        channels, height, width = image_shape
        super().__init__(nn.Flatten(), nn.Linear(channels * height * width, features))

    @property
    def linear(self) -> nn.Linear:
        """The layer."""
        layer = self[1]
        assert isinstance(layer, nn.Linear)
        return layer


class ResNet20(nn.Module):
    """The CIFAR ResNet of He et al. (2016, section 4.2) with n = 3: 0.27 M parameters, 64 features before the last layer.

    Where ``features`` is not 64, a linear layer maps to it (the paper's CIFAR100: 128).
    """

    def __init__(self, image_shape: tuple[int, int, int], features: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        if min(height, width) < 8:
            raise ConfigError(
                f"resnet20 needs images of at least 8 x 8 pixels, not {height} x {width}: use backbone fcn"
            )
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.stages = nn.Sequential(_stage(16, 16, 1), _stage(16, 32, 2), _stage(32, 64, 2))
        self.features = nn.Identity() if features == 64 else nn.Linear(64, features)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, features) of images ``x`` (B, C, H, W)."""
        return self.features(self.stages(self.stem(x)).mean((2, 3)))


def _stage(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    from torchvision.models.resnet import BasicBlock, conv1x1

    shortcut = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Sequential(conv1x1(channels_in, channels, stride), nn.BatchNorm2d(channels))
    first = BasicBlock(channels_in, channels, stride, shortcut)
    return nn.Sequential(first, BasicBlock(channels, channels), BasicBlock(channels, channels))


def build_backbone(name: BackboneName, image_shape: tuple[int, int, int], features: int) -> nn.Module:
    """Return the extractor ``name`` for images of ``image_shape`` (C, H, W)."""
    return {"fcn": FullyConnected, "resnet20": ResNet20}[name](image_shape, features)
