"""What the weights of an extractor prove: its features of an image with every rounding accounted for, and how fast they move."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.proofs.matrices.enclosure import EPS, Enclosure, spectral_norm_bound
from stabdeq.backbones import FullyConnected, LipschitzConvolutional, LipschitzFullyConnected
from stabdeq.backbones.lipschitz import OrthonormalRows, Residual, ResidualConvolution, ResidualLinear
from stabdeq.bounds.ends import require_unaltered_extractor
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

IMAGES_AT_ONCE = 100  # keeps the patches of a convolution small


@dataclass(frozen=True)
class Extractor:
    """The real function whose weights are the float64 numbers of a model's extractor, normalisation included.

    ``lipschitz`` bounds ||dh|| / ||dx|| for pixels x in [0, 1]. Where the features are affine, h = E x + e, ``matrix`` is E (n, d).
    """

    layers: tuple[nn.Module, ...]
    constants: tuple[float, ...]  # Lipschitz constants of the layers
    middle: Tensor  # (C, 1, 1), the pixels' mean
    scale: Enclosure  # (C, 1, 1), 1 / std
    lipschitz: float
    matrix: Enclosure | None

    @torch.no_grad()
    def features(self, images: Tensor) -> Enclosure:
        """Return the features (B, n) of ``images`` (B, C, H, W), float64, each entry within the bound of the image's error."""
        parts = [self._features(part) for part in images.split(IMAGES_AT_ONCE)]
        return Enclosure(*(torch.cat([getattr(part, name) for part in parts]) for name in ("centre", "radius")))

    def _features(self, images: Tensor) -> Enclosure:
        x = (Enclosure.exact(images) - Enclosure.exact(self.middle)) * self.scale
        value, error = x.centre, _length(x.radius)
        for layer, constant in zip(self.layers, self.constants, strict=True):
            value, own = _through(layer, value)
            error = (constant * error + own) * (
                1 + 8 * EPS
            )  # what it becomes of the error so far, and what its rounding adds
        return Enclosure(value, error[:, None].expand_as(value))


@torch.no_grad()
def extractor_of(model: StabilisedDEQ) -> Extractor:
    """Return the extractor of a float64 ``model``; raises ConfigError, with the reason, where no constant of it is proved."""
    require_unaltered_extractor(model)
    assert isinstance(model.backbone, FullyConnected | LipschitzFullyConnected | LipschitzConvolutional)
    if not bool((model.std != 0).all()):
        raise ConfigError(
            "the extractor is not finite: its std holds a zero, so no pixel is normalised; look at the checkpoint"
        )
    layers, scale = tuple(model.backbone), Enclosure.exact(model.std[0]).reciprocal()
    constants = tuple(lipschitz_constant(layer) for layer in layers)
    matrix = None
    if isinstance(model.backbone, FullyConnected):
        spread = scale.centre.expand(model.config.image_shape).flatten()
        matrix = Enclosure.exact(model.backbone.linear.weight) * Enclosure(spread, EPS * spread.abs())
        lipschitz = spectral_norm_bound(matrix)
    else:
        lipschitz = float(scale.magnitude().max()) * (1 + 2 * EPS)
        for constant in constants:
            lipschitz *= constant * (1 + 2 * EPS)
    if not lipschitz < math.inf:
        raise ConfigError(
            "the extractor's weights are not finite, or too large for its norm to be bounded: train it again"
        )
    return Extractor(layers, constants, model.mean[0], scale, lipschitz, matrix)


def lipschitz_constant(layer: nn.Module) -> float:
    """Return a proved Lipschitz constant of a ``layer`` (float64) of a 1-Lipschitz extractor, 1 but for rounding."""
    if isinstance(layer, nn.Linear | OrthonormalRows):
        return spectral_norm_bound(Enclosure.exact(layer.weight.mT))
    if isinstance(layer, Residual):
        return _residual_constant(layer)
    return 1.0  # what moves entries about, or adds zeros


def _residual_constant(layer: Residual) -> float:
    """Return the constant for the float64 numbers of the scale s, with which diag(2 / s) >= W W' holds to rounding alone.

    With W W' <= r diag(2 / s), J'J <= 1 + 4 (r - 1) r of the layer's Jacobians J where r > 1, and 1 otherwise.
    """
    r = domination(layer)
    return 1.0 if r <= 1 else math.sqrt(1 + 4 * (r - 1) * r) * (1 + 8 * EPS)


def domination(layer: Residual) -> float:
    """Return r with W W' <= r diag(2 / s), s being the float64 numbers of the scale: 1 but for rounding."""
    sizes = correlations(layer)
    weighting = layer.log_weighting.exp()
    terms = len(weighting) + 16
    sums = sizes @ weighting / weighting * (1 + terms * EPS)
    return float((sums * layer.scale() / 2).max()) * (1 + 8 * EPS)


def correlations(layer: Residual) -> Tensor:
    """Return upper bounds (hidden, hidden) of the exact ``layer.sizes()``."""
    rows = layer.weight.flatten(1)
    shifts = rows.mT[None]  # (1, inputs, hidden)
    if isinstance(layer, ResidualConvolution):
        size = layer.weight.shape[-1]
        shifts = functional.unfold(layer.weight, size, padding=size - 1).permute(2, 1, 0)  # (shifts, inputs, hidden)
    products = Enclosure.exact(rows) @ Enclosure.exact(shifts)
    return products.magnitude().sum(0) * (1 + (len(shifts) + 2) * EPS)


def _length(x: Tensor) -> Tensor:
    """Return an upper bound (B,) of the lengths of ``x`` (B, *)."""
    return Enclosure.exact(x.flatten(1)).norm()


def _through(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image of ``x`` (B, *) as computed, and a bound (B,) of its distance from the exact image of ``x``."""
    if isinstance(layer, nn.Linear | OrthonormalRows):
        return _affine(layer.weight.mT, layer.bias, x)
    if isinstance(layer, ResidualLinear):
        return _residual(x, layer, lambda part: part @ layer.weight.mT, lambda part: part @ layer.weight)
    if isinstance(layer, ResidualConvolution):
        back = layer.weight.flip(2, 3).transpose(0, 1)
        return _residual(x, layer, lambda part: _convolved(part, layer.weight), lambda part: _convolved(part, back))
    return layer(x), x.new_zeros(len(x))  # moves entries about, or adds zeros


def _residual(
    x: Tensor, layer: Residual, forth: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return what ``_through`` does of x - W'(s relu(W x + b)), ``forth`` being W and ``back`` W'."""
    rows, shape = layer.weight.flatten(1).abs(), (-1, *[1] * (x.dim() - 2))
    # ||W|| and || |W| || are at most the root of the largest sum of |W| over a row times that over a column.
    columns = layer.weight.abs().sum((0, *range(2, layer.weight.dim())))
    stretch = float((rows.sum(1).max() * columns.max()).sqrt()) * (1 + rows.numel() * EPS)
    entering = forth(x) + layer.bias.view(shape)
    error = (rows.shape[1] + 2) * EPS * (stretch * _length(x) + _length(layer.bias.view(shape).expand_as(entering)))
    scale = layer.scale().view(shape)
    inner = entering.relu() * scale
    error = float(scale.max()) * error + EPS * _length(inner)
    image = x - back(inner)
    return image, stretch * (error + (rows.numel() + 2) * EPS * _length(inner)) + EPS * _length(image)


def _affine(matrix: Tensor, bias: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    image = Enclosure.exact(x) @ Enclosure.exact(matrix) + Enclosure.exact(bias)
    return image.centre, _length(image.radius)


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution as one matrix product of patches, whose rounding errors are known; a kernel's need not be."""
    size = weight.shape[-1]
    product = functional.unfold(x, size, padding=size // 2).mT @ weight.flatten(1).mT
    return product.mT.unflatten(2, x.shape[2:])
