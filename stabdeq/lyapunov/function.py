"""Lyapunov functions: V(z) = s(g(z - c) - g(0)) + eta ||z - c||^2 (paper, Eq. 9), with its centre c explicit."""

from typing import Literal, Protocol

from torch import Tensor, nn

from stabdeq.config import LyapunovConfig
from stabdeq.lyapunov.convolutional import ConvolutionalNetwork
from stabdeq.lyapunov.input_convex import InputConvexNetwork, smooth_relu, smooth_relu_slope

Centre = Literal["equilibrium", "origin"]


class LyapunovFunction(Protocol):
    """What an audit needs to know of a V: where it is centred, the decay rate it promises, its value and gradient."""

    centre: Centre
    alpha: float

    def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Return V (B,) and grad V (B, n) at states whose offset from the centre is ``offset`` (B, n)."""
        ...


class InputConvexLyapunov(nn.Module):
    """The paper's V with g(0) recomputed at every call, so that V(c) = 0 whatever the weights are.

    For all weights: V >= eta ||z - c||^2, V is 2 eta-strongly convex, grad V vanishes at c alone, and
    ||grad V|| >= 2 eta ||z - c||. Its network is the paper's, for states of ``dim`` numbers, or the one that is given.
    """

    def __init__(
        self, dim: int, config: LyapunovConfig, centre: Centre, network: ConvolutionalNetwork | None = None
    ) -> None:
        super().__init__()
        self.network = network or InputConvexNetwork(dim, config.hidden, config.smoothing)
        self.alpha = 1.0 if config.alpha is None else config.alpha
        self.eta, self.smoothing = config.eta, config.smoothing
        self.centre: Centre = centre

    def forward(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Return V (B,) and grad V (B, n) at z - c = ``offset`` (B, n)."""
        rise, g_gradient = self.network(offset)
        value = smooth_relu(rise, self.smoothing) + self.eta * offset.square().sum(1)
        gradient = smooth_relu_slope(rise, self.smoothing)[:, None] * g_gradient + 2 * self.eta * offset
        return value, gradient

    def curvature_bound(self) -> Tensor:
        """Return K (): the part s(g(z) - g(0)) of V has a K-Lipschitz gradient. Differentiable, without room for rounding."""
        steepest, curvature = self.network.slope_bounds()
        return steepest.square() / self.smoothing + curvature

    def growth_bound(self) -> float:
        """Return k with V <= k ||z - c||^2 and ||grad V|| <= 2 k ||z - c||: eta + L_g^2 / (2 d)."""
        return self.eta + self.network.lipschitz_bound() ** 2 / (2 * self.smoothing)
