"""What the weights of this library's V prove by themselves."""

from math import inf

import torch
from torch import nn

from analysis.findings.four_digits import at_most
from stabdeq.alteration import alteration, prototype
from stabdeq.config import LyapunovConfig
from stabdeq.lyapunov import ConvolutionalNetwork, InputConvexLyapunov, LyapunovFunction, SeparableLyapunov

SETTINGS = ("eta", "alpha", "smoothing", "centre", "shape")  # of V, which proofs read as they are


def is_structured(lyapunov: LyapunovFunction | None) -> bool:
    """Return whether ``lyapunov`` is of the family whose properties hold for all finite weights, altered in nothing."""
    if not isinstance(lyapunov, InputConvexLyapunov):
        return False
    return (
        alteration(lyapunov, "V", _as_made(lyapunov), SETTINGS) is None
        and all(0 < number < inf for number in _numbers(lyapunov))  # nor NaN
        and all(bool(torch.isfinite(weight).all()) for weight in lyapunov.parameters())
    )


def _numbers(lyapunov: InputConvexLyapunov) -> tuple[float, ...]:
    return lyapunov.eta, lyapunov.alpha, lyapunov.smoothing, lyapunov.network.smoothing


def _as_made(lyapunov: InputConvexLyapunov) -> nn.Module:
    """Return the V that has the parts and sizes which the weights of ``lyapunov`` call for."""
    weight = dict(lyapunov.named_parameters()).get("network.inner.weight")
    hidden, dim = weight.shape[:2] if weight is not None and weight.dim() >= 2 and 0 not in weight.shape else (1, 1)
    config = LyapunovConfig(hidden=hidden)
    if isinstance(lyapunov, SeparableLyapunov):
        return prototype(SeparableLyapunov, (dim, 1, 1), config, "origin")
    if isinstance(lyapunov._modules.get("network"), ConvolutionalNetwork):
        return prototype(_convolutional, dim, config)
    return prototype(InputConvexLyapunov, dim, config, "origin")


def _convolutional(channels: int, config: LyapunovConfig) -> InputConvexLyapunov:
    network = ConvolutionalNetwork((channels, 1, 1), config.hidden, config.smoothing)
    return InputConvexLyapunov(channels, config, "origin", network)


def growth(lyapunov: LyapunovFunction) -> str:
    """Return V's proved bounds in words, with their constants, for a structured V."""
    assert isinstance(lyapunov, InputConvexLyapunov)
    return f"{lyapunov.eta:g} ||z - c||^2 <= V <= {at_most(lyapunov.growth_bound())} ||z - c||^2"
