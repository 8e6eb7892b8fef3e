"""The features that a model computes as it runs, beside those of real arithmetic: layer by layer, with each layer's rounding."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.proofs.cells.deployed import PAD, SLACK, Arithmetic, Near, lengths, linear, padded, size
from analysis.proofs.cells.extractor import correlations, lipschitz_constant
from stabdeq.backbones.lipschitz import OrthonormalRows, Residual, ResidualConvolution
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
        return linear(x, layer.weight, layer.bias, arithmetic, name)
    if isinstance(layer, Residual):
        return _residual(layer, x, arithmetic, name)
    return Near(layer(x.centre), x.apart, x.error)  # numbers change their places, or zeros are added


def _residual(layer: Residual, x: Near, arithmetic: Arithmetic, name: str) -> Near:
    """Return x - W'(s relu(W x + b)), which in real arithmetic moves no further than x does, but for the rounding of s."""
    weight, bias, scale = layer.weight, layer.bias, layer.scale()
    product, back, stretch, spread = _operators(layer)
    most, sway = size(scale) + PAD, arithmetic.sway(name, scale)
    terms = weight[0].numel()
    absolute = lengths(product(padded(x.centre), padded(weight)) + padded(_beside(bias, x.centre)))
    inner_rounding = arithmetic.rounding(terms + 1, absolute + spread * x.apart)
    inner = x.rounded(stretch, functional.relu(product(x.centre, weight) + _beside(bias, x.centre)), inner_rounding)
    swaying = sway * inner.size() + arithmetic.rounding(1, (most + sway) * inner.size())
    scaled = inner.rounded(most, inner.centre * _beside(scale, x.centre), swaying)
    terms = weight.numel() // weight.shape[1]
    padding = PAD * scaled.centre[0].numel() ** 0.5
    absolute = lengths(back(padded(scaled.centre), padded(weight))) + spread * (scaled.apart + padding)
    moved = stretch * (most * inner_rounding + swaying) + arithmetic.rounding(terms, absolute)
    result = x.rounded(lipschitz_constant(layer), x.centre - back(scaled.centre, weight), moved)
    return result.rounded(1.0, result.centre, arithmetic.rounding(1, result.size()))


def _operators(layer: Residual) -> tuple[Product, Product, float, float]:
    """Return the products with W and with its transpose, and bounds of ||W|| and || |W| ||, padded."""
    weight = layer.weight
    if not isinstance(layer, ResidualConvolution):
        return functional.linear, torch.matmul, size(weight), size(padded(weight))
    # ||A||^2 is at most the largest sum of a row of |A| times that of a column; ||W||^2 = ||W W'||, too.
    sums = padded(weight).sum((2, 3))
    spread = float(sums.sum(0).max() * sums.sum(1).max()) * SLACK
    stretch = min(spread, float(correlations(layer).sum(1).max()) * SLACK)
    return (
        partial(functional.conv2d, padding=1),
        partial(functional.conv_transpose2d, padding=1),
        stretch**0.5,
        spread**0.5,
    )


def _beside(vector: Tensor, values: Tensor) -> Tensor:
    """Return ``vector`` (c,) so that it meets the second dimension of ``values`` (B, c, *)."""
    return vector.view(-1, *[1] * (values.dim() - 2))
