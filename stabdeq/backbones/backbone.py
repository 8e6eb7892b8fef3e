"""What a registered backbone says of itself."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Backbone:
    """A network that maps normalised images (B, C, H, W) to features (B, n).

    ``build(image_shape, n)`` makes it for images (C, H, W), with a linear layer at its end where n is not its own width;
    ``least`` is the height and width in pixels that an image needs; ``width`` is the number of features before the last layer
    of the network as published, or None where it has none of its own. Of features that keep their places, n = C H W numbers in the
    order of (C, H, W), ``stride`` is how many pixels lie between two; None where they have none. All its buffers must be in its
    state dict.
    """

    build: Callable[[tuple[int, int, int], int], nn.Module]
    least: int = 1
    width: int | None = None
    stride: int | None = None
