"""The initialisation of convolutions before ReLUs."""

from torch import nn


def he_initialise(network: nn.Module) -> None:
    """Draw every convolution's weights with variance 2 / fan-out, in place (He et al. 2015, Eq. 14, as torchvision does)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
