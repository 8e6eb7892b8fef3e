"""Hypothesis strategies for input-convex networks and the Lyapunov functions made of them."""

import torch
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from stabdeq.config import LyapunovConfig
from stabdeq.lyapunov import InputConvexLyapunov, InputConvexNetwork
from stabdeq.testing.tensors import made_from, require_positive, require_sizes, tensors


def input_convex_networks(
    dim: int, *, hidden: int = 4, smoothing: float = 1.0, largest_weight: float = 3.0
) -> SearchStrategy[InputConvexNetwork]:
    """Return a strategy for the two-layer input-convex networks g of this library, float64, without gradients."""
    require_sizes(dim, hidden)
    require_positive("smoothing", smoothing)
    require_positive("largest_weight", largest_weight)
    count = sum(p.numel() for p in InputConvexNetwork(dim, hidden, smoothing).parameters())

    def built(weights: Tensor) -> InputConvexNetwork:
        network = InputConvexNetwork(dim, hidden, smoothing).double().requires_grad_(False)
        torch.nn.utils.vector_to_parameters(weights, network.parameters())
        return network

    return made_from(tensors((count,), -largest_weight, largest_weight), built)


def lyapunov_functions(
    dim: int, *, hidden: int = 4, eta: float = 0.1, smoothing: float = 1.0
) -> SearchStrategy[InputConvexLyapunov]:
    """Return a strategy for this library's V, centred at 0, float64; called on offsets, it returns V and grad V."""
    networks = input_convex_networks(dim, hidden=hidden, smoothing=smoothing)
    require_positive("eta", eta)
    config = LyapunovConfig(hidden=hidden, eta=eta, smoothing=smoothing)

    def built(network: InputConvexNetwork) -> InputConvexLyapunov:
        function = InputConvexLyapunov(dim, config, "origin")
        function.network = network
        return function

    return made_from(networks, built)
