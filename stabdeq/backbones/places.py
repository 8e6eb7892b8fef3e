"""Extractors whose features keep their places: (C, H, W) as a vector, for cells that are convolutions."""

from functools import partial

from torch import Tensor, nn

from stabdeq.backbones.backbone import Backbone
from stabdeq.backbones.he_initialisation import he_initialise
from stabdeq.backbones.resnet import ResNet
from stabdeq.places import places_after, shape_of


class Convolutional(nn.Sequential):
    """One 3 x 3 convolution of the image, to ``features`` numbers on the pixels that ``stride`` leaves of each row and column."""

    def __init__(self, stride: int, image_shape: tuple[int, int, int], features: int) -> None:
        channels, _, _ = shape_of(features, places_after(stride, image_shape))
        super().__init__(nn.Conv2d(image_shape[0], channels, 3, stride, padding=1), nn.Flatten())


class ResNet20Spatial(nn.Module):
    """The ResNet20 up to its last mean, at a quarter of the height and width, with a 1 x 1 convolution to ``features`` numbers."""

    def __init__(self, image_shape: tuple[int, int, int], features: int) -> None:
        super().__init__()
        whole = ResNet(20, image_shape, 64)
        self.stem, self.stages = whole.stem, whole.stages
        channels, _, _ = shape_of(features, places_after(4, image_shape))
        self.last = nn.Conv2d(64, channels, 1)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, features) of images ``x`` (B, C, H, W)."""
        return self.last(self.stages(self.stem(x))).flatten(1)


CONV = Backbone(partial(Convolutional, 1), stride=1)
CONV_HALF = Backbone(partial(Convolutional, 2), stride=2)
RESNET20_SPATIAL = Backbone(ResNet20Spatial, least=8, stride=4)
