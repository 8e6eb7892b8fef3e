"""VGG16 for images of CIFAR's size."""

from collections.abc import Iterator

from torch import Tensor, nn

from stabdeq.backbones.backbone import Backbone
from stabdeq.backbones.he_initialisation import he_initialise

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """The 13 convolutions of VGG16 (Simonyan and Zisserman 2015, column D), each before a BatchNorm, in 5 stages that halve.

    As is usual on CIFAR, a single linear classifier reads the 512 features: the head. Where ``features`` is not 512, a linear
    layer maps to it; on images above 32 x 32 pixels the features are means over what is left of the pixels.
    """

    def __init__(self, image_shape: tuple[int, int, int], features: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(*_layers(image_shape[0]))
        self.features = nn.Identity() if features == 512 else nn.Linear(512, features)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, features) of images ``x`` (B, C, H, W)."""
        return self.features(self.stages(x).mean((2, 3)))


def _layers(channels_in: int) -> Iterator[nn.Module]:
    for stage in STAGES:
        for channels in stage:
            yield nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
            yield nn.BatchNorm2d(channels)
            yield nn.ReLU()
            channels_in = channels
        yield nn.MaxPool2d(2)


VGG = Backbone(VGG16, least=32, width=512)
