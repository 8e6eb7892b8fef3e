"""Feature extractors, one network a file: normalised images (B, C, H, W) -> injected features h (B, n)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from stabdeq.backbones.fully_connected import FullyConnected
from stabdeq.backbones.resnet import ResNet
from stabdeq.backbones.small_convolutional import SmallConvolutional
from stabdeq.backbones.vgg import VGG16
from stabdeq.backbones.wide_resnet import WideResNet
from stabdeq.config import BackboneName
from stabdeq.errors import ConfigError

__all__ = ["VGG16", "FullyConnected", "ResNet", "SmallConvolutional", "WideResNet", "build_backbone", "native_width"]


@dataclass(frozen=True)
class _Network:
    build: Callable[[tuple[int, int, int], int], nn.Module]  # (image shape, features) -> extractor
    least: int = 1  # height and width that an image needs, in pixels
    width: int | None = None  # features before the last layer of the network as published


_NETWORKS: dict[BackboneName, _Network] = {
    "fcn": _Network(FullyConnected),
    "cnn": _Network(SmallConvolutional, least=10),
    "resnet20": _Network(partial(ResNet, 20), least=8, width=64),
    "resnet56": _Network(partial(ResNet, 56), least=8, width=64),
    "vgg16": _Network(VGG16, least=32, width=512),
    "wrn-28-10": _Network(partial(WideResNet, 28, 10), least=8, width=640),
}


def native_width(name: BackboneName) -> int | None:
    """Return how many features the network ``name`` has before its last layer; None where it has no number of its own."""
    return _NETWORKS[name].width


def build_backbone(name: BackboneName, image_shape: tuple[int, int, int], features: int) -> nn.Module:
    """Return the extractor ``name`` for images of ``image_shape`` (C, H, W).

    A network maps to ``features`` by a linear layer where that is not its own width. Raises ConfigError where the images are
    too small for it.
    """
    network = _NETWORKS[name]
    _, height, width = image_shape
    if min(height, width) < network.least:
        raise ConfigError(
            f"{name} needs images of at least {network.least} x {network.least} pixels, not {height} x {width}: "
            "use backbone fcn, or a kind that does not bring this network"
        )
    return network.build(image_shape, features)
