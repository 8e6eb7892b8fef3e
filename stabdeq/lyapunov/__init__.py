"""Lyapunov functions V, the projection that makes V decrease along a vector field, and the claims about V."""

from stabdeq.config import LyapunovConfig
from stabdeq.errors import ConfigError
from stabdeq.lyapunov.convolutional import ConvolutionalNetwork
from stabdeq.lyapunov.function import Centre, InputConvexLyapunov, LyapunovFunction
from stabdeq.lyapunov.input_convex import InputConvexNetwork
from stabdeq.lyapunov.projection import project
from stabdeq.lyapunov.proved_rate import proved_rate
from stabdeq.lyapunov.separable import SeparableLyapunov
from stabdeq.lyapunov.stability import centre_of, stabilise, stabilised_field
from stabdeq.places import Shape

__all__ = [
    "Centre",
    "ConvolutionalNetwork",
    "InputConvexLyapunov",
    "InputConvexNetwork",
    "LyapunovFunction",
    "SeparableLyapunov",
    "build_lyapunov",
    "centre_of",
    "project",
    "proved_rate",
    "stabilise",
    "stabilised_field",
]


def build_lyapunov(config: LyapunovConfig, centre: Centre, state_dim: int, shape: Shape | None) -> InputConvexLyapunov:
    """Return the V that ``config`` describes for states of ``state_dim`` numbers, of ``shape`` (C, H, W) where they have places.

    Raises ConfigError where its network needs places and the states have none.
    """
    if config.network == "dense":
        return InputConvexLyapunov(state_dim, config, centre)
    if shape is None:
        raise ConfigError(
            f"model.lyapunov.network = {config.network} reads states on places, and the cell's have none: set "
            "model.cell=convolution, or model.lyapunov.network=dense"
        )
    if config.network == "separable":
        return SeparableLyapunov(shape, config, centre)
    network = ConvolutionalNetwork(shape, config.hidden, config.smoothing)
    return InputConvexLyapunov(state_dim, config, centre, network)
