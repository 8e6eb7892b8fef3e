"""Certified l2 radii of predictions: within them no image is classified otherwise.

Logits are affine in the equilibrium and features in the pixels, so the difference of two logits moves by no more than a
gain times the distance in pixels of [0, 1] (theory: certificates). All is about the model in exact arithmetic.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.proofs.cells.affine_ball import activations
from analysis.proofs.cells.gain import Gain, find_gain, find_row_gains
from analysis.proofs.cells.network import Equation, ReluNetwork
from analysis.proofs.matrices.enclosure import EPS, Enclosure, identity
from stabdeq.backbones import FullyConnected
from stabdeq.bounds.ends import require_unaltered_extractor, require_unaltered_model
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

MOST_PAIRS = 120  # of classes, up to which each pair gets a multiplier of its own


@dataclass(frozen=True)
class Radii:
    """Of B images: the ``predicted`` class (B,), and the ``radius`` (B,) in pixels of [0, 1], 0 where nothing is certified.

    ``error`` (B,) bounds how far the computed equilibria are from the true ones.
    """

    predicted: Tensor
    radius: Tensor
    error: Tensor


@dataclass(frozen=True)
class AffineEnds:
    """h = E x + e of pixels x in [0, 1], and logits R z + r: ``extractor`` E (n, d), ``readout`` R (classes, n)."""

    extractor: Enclosure
    offset: Enclosure
    readout: Enclosure
    bias: Enclosure


def affine_ends(model: StabilisedDEQ) -> AffineEnds:
    """Return the extractor and the readout of a float64 ``model``; ConfigError, with the reason, where one is not affine or altered."""
    config = model.config
    backbone = model.backbone
    require_unaltered_model(model)
    if type(backbone) is not FullyConnected:
        raise ConfigError(
            f"the extractor {config.backbone} is not affine: its Lipschitz constant is not bounded here; use fcn"
        )
    if config.stability not in ("none", "anchored"):
        raise ConfigError(
            f"with stability {config.stability!r} the head reads a projection of the equilibrium, which is not affine in it: "
            "use none or anchored"
        )
    require_unaltered_extractor(model)
    _, height, width = config.image_shape
    spread = model.std.flatten().repeat_interleave(height * width)
    middle = model.mean.flatten().repeat_interleave(height * width)
    layer, classifier = backbone.linear, model.head.classifier
    extractor = Enclosure.exact(layer.weight) * Enclosure.exact(spread).reciprocal()
    if not bool(extractor.magnitude().isfinite().all()):
        raise ConfigError(
            "the extractor is not finite: its std holds a zero, so no pixel is normalised; look at the checkpoint"
        )
    offset = Enclosure.exact(layer.bias) - (extractor @ Enclosure.exact(middle)[:, None])[:, 0]
    readout = Enclosure.exact(classifier.weight)
    if model.head.rotation is not None:
        readout = readout @ Enclosure.exact(model.head.rotation.weight)
    return AffineEnds(extractor, offset, readout, Enclosure.exact(classifier.bias))


def certified_radii(
    ends: AffineEnds, network: ReluNetwork, equation: Equation, gain: Gain, images: Tensor, z: Tensor
) -> Radii:
    """Return the radii of ``images`` (B, C, H, W), whose equilibria are about ``z`` (B, n); ``gain`` gives a first multiplier."""
    pixels = Enclosure.exact(images.flatten(1))
    h = pixels @ ends.extractor.mT + ends.offset
    _, computed = activations(network, Enclosure.exact(z), Enclosure.exact(h.centre))
    w = Enclosure.exact(computed.centre)
    error = _distance_to_solution(equation, gain, w, h)
    logits = (w @ equation.output.mT + equation.shift) @ ends.readout.mT + ends.bias
    predicted = logits.centre.argmax(1)
    gains, sizes = _pair_bounds(ends, equation, gain)
    best = logits[torch.arange(len(predicted)), predicted]
    difference = best[:, None] - logits
    doubt = difference.radius + sizes[predicted] * error[:, None] + EPS * difference.centre.abs()
    margin = difference.centre - doubt * (1 + 8 * EPS)
    radius = (margin.clamp(min=0) / gains[predicted] * (1 - 8 * EPS)).scatter(1, predicted[:, None], torch.inf).amin(1)
    return Radii(predicted, torch.where(radius > 0, radius, 0.0), error)  # NaN certifies nothing


def _distance_to_solution(equation: Equation, gain: Gain, w: Enclosure, h: Enclosure) -> Tensor:
    """Return a bound (B,) of ||D (w - w*)|| for activations ``w`` (B, m) that nearly solve the equation at ``h`` (B, k).

    With the residual rho = relu(M w + U h + c) - w, the point w + rho solves the equation exactly once M rho is taken off its
    input. So the distance is at most ||D rho|| plus the gain from all inputs times ||M rho||.
    """
    everywhere = find_gain(equation, equation.output, identity(len(equation.bias.centre)), gain.multiplier)
    factor = torch.inf if everywhere is None else everywhere.value
    entering = w @ equation.weight.mT + h @ equation.injection.mT + equation.bias
    residual = entering.relu() - w
    moved = (residual @ equation.weight.mT).norm()
    return ((residual @ equation.output.mT).norm() + factor * moved) * (1 + 8 * EPS)


def _pair_bounds(ends: AffineEnds, equation: Equation, gain: Gain) -> tuple[Tensor, Tensor]:
    """Return, for each pair of classes, the gain from pixels to the difference of their logits, and ||R_i - R_j||, (K, K)."""
    classes = len(ends.bias.centre)
    first, second = torch.triu_indices(classes, classes, 1)
    rows = ends.readout[first] - ends.readout[second]
    injection = equation.injection @ ends.extractor
    if len(rows.centre) <= MOST_PAIRS:
        values = find_row_gains(equation, rows @ equation.output, injection, gain.multiplier)
    else:
        whole = find_gain(equation, equation.output, injection, gain.multiplier)
        values = rows.norm() * (torch.inf if whole is None else whole.value) * (1 + 4 * EPS)
    table = torch.zeros(2, classes, classes, dtype=torch.float64)
    table[:, first, second] = table[:, second, first] = torch.stack([values, rows.norm()])
    return table[0], table[1]
