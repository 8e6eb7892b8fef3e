"""Feature extractors, one network a file: normalised images (B, C, H, W) -> injected features h (B, n)."""

from torch import nn

from stabdeq.backbones.backbone import Backbone
from stabdeq.backbones.fully_connected import FullyConnected
from stabdeq.backbones.lipschitz import DeepLipschitzFullyConnected, LipschitzConvolutional, LipschitzFullyConnected
from stabdeq.backbones.resnet import ResNet
from stabdeq.backbones.small_convolutional import SmallConvolutional
from stabdeq.backbones.vgg import VGG16
from stabdeq.backbones.wide_resnet import WideResNet
from stabdeq.errors import ConfigError
from stabdeq.places import Places, Shape, places_after
from stabdeq.registry import BACKBONES
from stabdeq.sizes import require_sizes

__all__ = [
    "VGG16",
    "Backbone",
    "DeepLipschitzFullyConnected",
    "FullyConnected",
    "LipschitzConvolutional",
    "LipschitzFullyConnected",
    "ResNet",
    "SmallConvolutional",
    "WideResNet",
    "build_backbone",
    "native_width",
    "places_of",
]


def native_width(name: str) -> int | None:
    """Return how many features the network ``name`` has before its last layer; None where it has no number of its own.

    Raises ConfigError where the name is unknown.
    """
    return _backbone(name).width


def places_of(name: str, image_shape: Shape) -> Places | None:
    """Return the places (H, W) that the features of ``name`` have for images of ``image_shape`` (C, H, W); None where they have none.

    Raises ConfigError where the name is unknown.
    """
    stride = _backbone(name).stride
    return None if stride is None else places_after(stride, image_shape)


def build_backbone(name: str, image_shape: tuple[int, int, int], features: int) -> nn.Module:
    """Return the extractor ``name`` for images of ``image_shape`` (C, H, W).

    A network maps to ``features`` by a linear layer where that is not its own width. Raises ConfigError where the name is
    unknown, or the images are too small for it.
    """
    backbone = _backbone(name)
    require_sizes(f"backbone {name}", channels=image_shape[0], features=features)
    _, height, width = image_shape
    if min(height, width) < backbone.least:
        raise ConfigError(
            f"{name} needs images of at least {backbone.least} x {backbone.least} pixels, not {height} x {width}: "
            "use backbone fcn, or a kind that does not bring this network"
        )
    return backbone.build(image_shape, features)


def _backbone(name: str) -> Backbone:
    backbone = BACKBONES[name]
    if not isinstance(backbone, Backbone):  # of a package's entry point, say
        raise ConfigError(
            f"the backbone {name!r} is registered as a {type(backbone).__name__}: expected a stabdeq.backbones.Backbone, "
            "which holds the function that builds the network"
        )
    return backbone
