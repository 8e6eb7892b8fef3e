"""Certified l2 radii of predictions: within them no image is classified otherwise.

Logits are affine in the equilibrium, and features move by no more than a constant times the distance in pixels of [0, 1], so the
difference of two logits moves by no more than a gain times that (theory: certificates). All is about the model in exact arithmetic.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.proofs.cells.affine_ball import activations
from analysis.proofs.cells.extractor import Extractor, extractor_of
from analysis.proofs.cells.gain import Gain, find_gain, find_row_gains
from analysis.proofs.cells.network import Equation, ReluNetwork
from analysis.proofs.matrices.enclosure import EPS, Enclosure, identity
from stabdeq.bounds.ends import require_unaltered_model
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

MOST_PAIRS = 120  # of classes, up to which each pair gets a multiplier of its own


@dataclass(frozen=True)
class RadiiGains:
    """The gains that radii rest on: from pixels to differences of the logits of ``pairs`` of classes, (P, 2).

    ``values`` (P,) with ``multipliers`` (P, m), or one gain from pixels to equilibria, the ``whole``, for all pairs. ``everywhere``
    is the gain from an input at every ReLU to equilibria.
    """

    pairs: Tensor
    values: Tensor
    multipliers: Tensor
    whole: Gain | None
    everywhere: Gain | None


@dataclass(frozen=True)
class Radii:
    """Of B images: the ``predicted`` class (B,), and the ``radius`` (B,) in pixels of [0, 1], 0 where nothing is certified.

    ``error`` (B,) bounds how far the equilibria of the ``activations`` (B, m) are from the true ones. The logit of the class exceeds
    each of K by at least ``margin`` (B, K), which ``gain`` (B, K) times the distance in pixels may take away.
    """

    predicted: Tensor
    radius: Tensor
    error: Tensor
    activations: Tensor
    margin: Tensor
    gain: Tensor
    gains: RadiiGains

    def left(self, lost: Tensor) -> Tensor:
        """Return the radii (B,) where ``lost`` (B, K) is taken off the margins."""
        return _least_radius(self.margin - lost, self.gain, self.predicted)


@dataclass(frozen=True)
class Ends:
    """What lies before the cell, and the logits R z + r after it: ``readout`` R (classes, n), ``bias`` r (classes,)."""

    extractor: Extractor
    readout: Enclosure
    bias: Enclosure


def ends_of(model: StabilisedDEQ) -> Ends:
    """Return the ends of a float64 ``model``; ConfigError, with the reason, where one has no bound, or is altered."""
    config = model.config
    require_unaltered_model(model)
    if config.stability not in ("none", "anchored"):
        raise ConfigError(
            f"with stability {config.stability!r} the head reads a projection of the equilibrium, which is not affine in it: "
            "use none or anchored"
        )
    classifier = model.head.classifier
    readout = Enclosure.exact(classifier.weight)
    if model.head.rotation is not None:
        readout = readout @ Enclosure.exact(model.head.rotation.weight)
    return Ends(extractor_of(model), readout, Enclosure.exact(classifier.bias))


def certified_radii(
    ends: Ends, network: ReluNetwork, equation: Equation, gain: Gain, images: Tensor, z: Tensor
) -> Radii:
    """Return the radii of ``images`` (B, C, H, W), whose equilibria are about ``z`` (B, n); ``gain`` gives a first multiplier."""
    h = ends.extractor.features(images)
    _, computed = activations(network, Enclosure.exact(z), Enclosure.exact(h.centre))
    w = Enclosure.exact(computed.centre)
    everywhere = _gain_everywhere(equation, gain)
    error = _distance_to_solution(equation, everywhere, w, h)
    logits = (w @ equation.output.mT + equation.shift) @ ends.readout.mT + ends.bias
    predicted = logits.centre.argmax(1)
    proof = _pair_gains(ends, equation, gain, everywhere)
    gains, sizes = _pair_bounds(ends, proof)
    best = logits[torch.arange(len(predicted)), predicted]
    difference = best[:, None] - logits
    doubt = difference.radius + sizes[predicted] * error[:, None] + EPS * difference.centre.abs()
    margin = difference.centre - doubt * (1 + 8 * EPS)
    radius = _least_radius(margin, gains[predicted], predicted)
    return Radii(predicted, radius, error, w.centre, margin, gains[predicted], proof)


def _least_radius(margin: Tensor, gain: Tensor, predicted: Tensor) -> Tensor:
    """Return the least margin (B, K) over its gain (B, K), rounded down, over all classes but the ``predicted`` (B,)."""
    radius = (margin.clamp(min=0) / gain * (1 - 8 * EPS)).scatter(1, predicted[:, None], torch.inf).amin(1)
    return torch.where(radius > 0, radius, 0.0)  # NaN certifies nothing


def _gain_everywhere(equation: Equation, gain: Gain) -> Gain | None:
    """Return the gain from an input at every ReLU to equilibria: that from features, ``gain``, where these are such an input."""
    one, U = identity(len(equation.bias.centre)), equation.injection
    if torch.equal(U.centre, one.centre) and not bool(U.radius.any()):
        return gain
    return find_gain(equation, equation.output, one, gain.multiplier)


def _distance_to_solution(equation: Equation, everywhere: Gain | None, w: Enclosure, h: Enclosure) -> Tensor:
    """Return a bound (B,) of ||D (w - w*)|| for activations ``w`` (B, m) that nearly solve the equation at ``h`` (B, k).

    With the residual rho = relu(M w + U h + c) - w, the point w + rho solves the equation exactly once M rho is taken off its
    input. So the distance is at most ||D rho|| plus the gain from inputs ``everywhere`` times ||M rho||.
    """
    factor = torch.inf if everywhere is None else everywhere.value
    entering = w @ equation.weight.mT + h @ equation.injection.mT + equation.bias
    residual = entering.relu() - w
    moved = (residual @ equation.weight.mT).norm()
    return ((residual @ equation.output.mT).norm() + factor * moved) * (1 + 8 * EPS)


def _pair_gains(ends: Ends, equation: Equation, gain: Gain, everywhere: Gain | None) -> RadiiGains:
    classes = len(ends.bias.centre)
    pairs = torch.triu_indices(classes, classes, 1).T
    matrix = ends.extractor.matrix
    injection = equation.injection if matrix is None else equation.injection @ matrix
    factor = 1.0 if matrix is not None else ends.extractor.lipschitz * (1 + 2 * EPS)
    if len(pairs) > MOST_PAIRS:
        whole = find_gain(equation, equation.output, injection, gain.multiplier)
        whole = None if whole is None else Gain(whole.value * factor, whole.multiplier)
        none = torch.empty(0, len(gain.multiplier), dtype=torch.float64)
        return RadiiGains(pairs[:0], none[:, 0], none, whole, everywhere)
    rows = (ends.readout[pairs[:, 0]] - ends.readout[pairs[:, 1]]) @ equation.output
    values, multipliers = find_row_gains(equation, rows, injection, gain.multiplier)
    return RadiiGains(pairs, values * factor, multipliers, None, everywhere)


def _pair_bounds(ends: Ends, proof: RadiiGains) -> tuple[Tensor, Tensor]:
    """Return, for each pair of classes, the gain from pixels to the difference of their logits, and ||R_i - R_j||, (K, K)."""
    classes = len(ends.bias.centre)
    first, second = torch.triu_indices(classes, classes, 1)
    sizes = (ends.readout[first] - ends.readout[second]).norm()
    whole = torch.inf if proof.whole is None else proof.whole.value
    values = proof.values if len(proof.pairs) else sizes * whole * (1 + 4 * EPS)
    table = torch.zeros(2, classes, classes, dtype=torch.float64)
    table[:, first, second] = table[:, second, first] = torch.stack([values, sizes])
    return table[0], table[1]
