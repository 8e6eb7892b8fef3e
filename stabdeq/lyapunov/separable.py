"""V of states on places (C, H, W) that is summed over the places."""

from torch import Tensor

from stabdeq.config import LyapunovConfig
from stabdeq.lyapunov.function import Centre, InputConvexLyapunov
from stabdeq.places import Shape
from stabdeq.sizes import require_sizes


class SeparableLyapunov(InputConvexLyapunov):
    """V(z) = sum over places of the dense V of the C numbers at a place: one small function, shared by all places.

    What holds of the dense V holds of it with the same constants: its gradient and its Hessian are made of blocks, one a place.
    """

    def __init__(self, shape: Shape, config: LyapunovConfig, centre: Centre) -> None:
        channels, height, width = shape
        require_sizes("a separable V", channels=channels, height=height, width=width)
        super().__init__(channels, config, centre)
        self.shape = shape

    def forward(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Return V (B,) and grad V (B, n) at z - c = ``offset`` (B, n)."""
        channels, height, width = self.shape
        at_places = offset.reshape(-1, channels, height * width).mT
        value, gradient = super().forward(at_places.reshape(-1, channels))
        return value.view(at_places.shape[:2]).sum(1), gradient.view(at_places.shape).mT.reshape(offset.shape)
