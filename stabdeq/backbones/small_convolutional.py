"""A network of layers that have interval bounds."""

from torch import nn

from stabdeq.backbones.backbone import Backbone


class SmallConvolutional(nn.Sequential):
    """The "small" network of Gowal et al. (2018, arXiv 1810.12715, table 1), its last two layers replaced by one to ``features``.

    Convolutions without padding, ReLUs and a linear layer alone, so that interval bounds propagate through it in order.
    """

    def __init__(self, image_shape: tuple[int, int, int], features: int) -> None:
        channels, height, width = image_shape
        super().__init__(
            nn.Conv2d(channels, 16, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * _size_after(height) * _size_after(width), features),
        )


def _size_after(size: int) -> int:
    return (size - 4) // 2 + 1 - 3


CNN = Backbone(SmallConvolutional, least=10)
