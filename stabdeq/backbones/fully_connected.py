"""One fully connected layer."""

from torch import nn

from stabdeq.backbones.backbone import Backbone


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


FCN = Backbone(FullyConnected)
