"""The features that a model computes as it runs, beside those of real arithmetic: layer by layer, with each layer's rounding."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.proofs.cells.deployed import PAD, SLACK, Arithmetic, Near, lengths, linear, padded, size, summed
from analysis.proofs.cells.extractor import domination, lipschitz_constant
from stabdeq.backbones.lipschitz import OrthonormalRows, Residual, ResidualConvolution
from stabdeq.backbones.lipschitz.blocks import block_products
from stabdeq.model import StabilisedDEQ

Product = Callable[[Tensor, Tensor], Tensor]


def features(model: StabilisedDEQ, images: Tensor, reach: Tensor, arithmetic: Arithmetic) -> Near:
    """Return the features of all images within ``reach`` (B,) of ``images`` (B, C, H, W), pixels in [0, 1].

    ``model`` is in float64, its extractor fully connected or a chain of layers of the Lipschitz constant 1, unaltered.
    """
    centre = (images - model.mean) / model.std
    least, tiny = float(model.std.abs().min()), torch.finfo(arithmetic.dtype).tiny
    spread = reach / least
    error = arithmetic.rounding(4, lengths(centre) + spread)  # a quotient may be a product with the reciprocal
    # Flushed pixels and differences count for more after a small std, and a flushed std divides by 0.
    error = error + (4 * tiny / least * centre[0].numel() ** 0.5 if least >= tiny else torch.inf)
    found = Near(centre, spread + error, error)
    for name, layer in model.backbone.named_children():
        found = _through(layer, found, arithmetic, name)
    return found


def derived(model: StabilisedDEQ) -> dict[str, Tensor]:
    """Return the weights that the extractor derives from its parameters at each pass, by the names of their layers."""
    found = {}
    for name, layer in model.backbone.named_children():
        if isinstance(layer, Residual):
            found[name] = layer.scale()
        elif isinstance(layer, OrthonormalRows):
            found[name] = layer.weight
    return found


def _through(layer: nn.Module, x: Near, arithmetic: Arithmetic, name: str) -> Near:
    if isinstance(layer, nn.Linear | OrthonormalRows):
        return linear(x, layer.weight, layer.bias, arithmetic, name, in_blocks=isinstance(layer, OrthonormalRows))
    if isinstance(layer, Residual):
        return _residual(layer, x, arithmetic, name)
    return Near(layer(x.centre), x.apart, x.error)  # numbers change their places, or zeros are added


def _residual(layer: Residual, x: Near, arithmetic: Arithmetic, name: str) -> Near:
    """Return x - W'(s relu(W x + b)), which in real arithmetic moves no further than x does, but for the rounding of s.

    With S = diag(s), ||S^(1/2) W|| is at most ``steep``, about the root of 2, since W W' <= 2 / S. So all is measured by S^(1/2)
    before the ReLU, and by S^(-1/2) after the scale: an error e there is one of at most ``steep`` ||e|| of the result.
    """
    weight, scale, in_space = layer.weight, layer.scale(), isinstance(layer, ResidualConvolution)
    product, back, absolute = _operators(layer)
    root, least = scale.sqrt(), float(scale.min())
    steep, spread = (2 * domination(layer)) ** 0.5 * SLACK, size(root[:, None] * absolute) * SLACK
    norms, root = (steep, spread), _beside(root, x.centre)

    bias, terms = _beside(layer.bias, x.centre), weight[0].numel() + 1
    before = product(x.centre, weight) + bias
    sizes = product(padded(x.centre), padded(weight)) + padded(bias)
    blocks = None if in_space else root * block_products(x.centre, weight).abs_().sum(0)
    entering = summed(arithmetic, terms, root * sizes, root * before, norms, x.apart, blocks)
    # Overflow shows in what is computed, not in what is measured by S^(1/2).
    entering = entering + arithmetic.rounding(0, lengths(sizes) + size(absolute) * x.apart)

    inner, drift = functional.relu(before), arithmetic.sway(name, scale) / least
    length = lengths(root * inner) + steep * x.apart + entering
    underflow = PAD * (inner[0].numel() / least) ** 0.5
    scaling = drift * length + arithmetic.rounding(1, (1 + drift) * length + underflow)
    scaling = scaling + arithmetic.rounding(0, (1 + drift) * float(root.max()) * length)

    scaled, terms = inner * _beside(scale, x.centre), weight.numel() // weight.shape[1]
    moved, sizes = back(scaled, weight), back(padded(scaled), padded(weight))
    blocks = None if in_space else block_products(scaled, weight.mT).abs_().sum(0)
    reach = steep * x.apart + entering + scaling + underflow
    leaving = summed(arithmetic, terms, sizes, moved, norms, reach, blocks)
    result = x.rounded(lipschitz_constant(layer), x.centre - moved, steep * (entering + scaling) + leaving)
    return result.rounded(1.0, result.centre, arithmetic.rounding(1, result.size()))


def _operators(layer: Residual) -> tuple[Product, Product, Tensor]:
    """Return the products with W and with its transpose, and a matrix with a norm of at least || |W| ||, also with rows scaled."""
    absolute = padded(layer.weight)
    if not isinstance(layer, ResidualConvolution):
        return functional.linear, torch.matmul, absolute
    # Between two channels a convolution has at most the norm that the absolute values of its kernel add up to.
    return partial(functional.conv2d, padding=1), partial(functional.conv_transpose2d, padding=1), absolute.sum((2, 3))


def _beside(vector: Tensor, values: Tensor) -> Tensor:
    """Return ``vector`` (c,) so that it meets the second dimension of ``values`` (B, c, *)."""
    return vector.view(-1, *[1] * (values.dim() - 2))
