"""How far the logits of a model as it runs are from those of its weights in real arithmetic, for all images within a radius.

It runs in float32, or float64, each sum in any order, with fused multiply-adds or without, subnormal numbers kept or flushed;
its solver stops at a tolerance, and its derived weights are near those that the certificates read (theory: certificates).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.proofs.matrices.enclosure import Enclosure, spectral_norm_bound
from stabdeq.cells.relu import FoldedReluCell

# Added to the size of every number in a product: gamma of that covers what underflows, inputs and results flushed to 0 as well.
PAD = 2.0**-50
# All bounds here are sums and products of numbers that are not negative: their own rounding is some thousand roundoffs.
SLACK = 1 + 1e-9


@dataclass(frozen=True)
class Near:
    """What vectors a model computes for all images within reach of each of B images, beside those of real arithmetic.

    ``centre`` (B, k) is about the exact vector of the image itself. The computed ones lie within ``apart`` (B,) of it, and within
    ``error`` (B,) of the exact ones of their own images.
    """

    centre: Tensor
    apart: Tensor
    error: Tensor

    def size(self) -> Tensor:
        """Return a bound (B,) of the norms of the computed vectors."""
        return _norm(self.centre) + self.apart

    def weighed(self, weight: Tensor) -> Tensor:
        """Return a bound (B,) of || |W| |v| || for the computed vectors v, W = ``weight`` (m, k)."""
        return _norm(self.centre.abs() @ _padded(weight).mT) + spectral_norm_bound(
            Enclosure.exact(_padded(weight))
        ) * (self.apart + PAD * self.centre.shape[1] ** 0.5)


@dataclass(frozen=True)
class Arithmetic:
    """What a model runs in: its ``dtype``, its solver's ``tolerance``, and ``delta``.

    Each derived matrix is within ``delta`` times its Frobenius norm of the one that certificates read.
    """

    dtype: torch.dtype
    tolerance: float
    delta: float

    def gamma(self, terms: int) -> float:
        """Return gamma_k = k u / (1 - k u) for sums of ``terms`` products in any order, with that of float64, in which bounds are taken."""
        return _gamma(terms, self.dtype) + _gamma(terms, torch.float64)


def normalised(images: Tensor, mean: Tensor, std: Tensor, reach: Tensor, arithmetic: Arithmetic) -> Near:
    """Return (x - mean) / std for pixels within ``reach`` (B,) of ``images`` (B, d); ``mean`` and ``std`` (d,)."""
    centre = (images - mean) / std
    spread = reach / float(std.abs().min())
    error = arithmetic.gamma(4) * (_norm(centre) + spread)  # a quotient may be a product with the reciprocal
    return Near(centre, spread + error, error)


def linear(v: Near, weight: Tensor, bias: Tensor, arithmetic: Arithmetic) -> Near:
    """Return W v + b, ``weight`` W (m, k), ``bias`` b (m,)."""
    stretch = spectral_norm_bound(Enclosure.exact(weight))
    rounding = arithmetic.gamma(weight.shape[1] + 1) * (v.weighed(weight) + _norm(bias))
    return Near(v.centre @ weight.mT + bias, stretch * v.apart + rounding, stretch * v.error + rounding)


def equilibria(
    cell: FoldedReluCell, h: Near, z: Tensor, doubt: Tensor, gain: float, arithmetic: Arithmetic
) -> Near:
    """Return the states at which the solver stops, beside the equilibria of features ``h``.

    ``z`` (B, n) is within ``doubt`` (B,) of the exact equilibrium of the image, ``gain`` bounds ||dz*|| / ||dh||.

    A state z~ that is d short of what is computed for f(z~) is a step from w = z~ + d = relu(T z~ + s (h + b) + e), which is the
    equilibrium of the features h + (e - T d) / s. So ||z~ - z*|| <= ||d|| + gain ||(e - T d) / s||, e and d being
    bounded by ||z~|| itself: the inequality x <= a + b x is solved for x.
    """
    n, delta = len(cell.scale), arithmetic.delta
    gamma = arithmetic.gamma(n + 4)
    # The test's own rounding: of a difference, two norms with their sums of n squares, a quotient, and the tolerance in the dtype.
    stop = arithmetic.tolerance * (1 + arithmetic.gamma(2 * n + 16))
    transition = Enclosure.exact(cell.transition.mT)
    inverse = Enclosure.exact(cell.scale).reciprocal()
    divided = inverse[:, None] * transition
    least = float(cell.scale.min())
    sway = delta * float(_frobenius(cell.transition)) / least
    moved = Near(z, gain * h.apart + doubt, doubt)  # the exact equilibria of all images within reach
    entering = _norm(h.centre + cell.bias) + h.apart
    strong = delta * float(_frobenius(cell.scale)) / least
    arriving = h.error + (gamma * (1 + strong) + strong) * entering + gamma * moved.weighed(divided.magnitude())
    arriving = arriving + (1 + gamma) * sway * moved.size()
    length = stop * moved.size().clamp(min=1)
    stretch = spectral_norm_bound(divided)
    fixed = length + gain * (arriving + stretch * length)
    weighing = spectral_norm_bound(Enclosure.exact(_padded(divided.magnitude())))
    growing = (stop + gain * (gamma * weighing + (1 + gamma) * sway + stretch * stop)) * SLACK
    error = fixed / (1 - growing) * SLACK if growing < 1 else torch.full_like(fixed, torch.inf)
    return Near(z, moved.apart + error, error)


def lost_margins(
    z: Near,
    classes: Tensor,
    rotation: Tensor | None,
    classifier: Tensor,
    bias: Tensor,
    readout: Enclosure,
    arithmetic: Arithmetic,
) -> Tensor:
    """Return bounds (B, K) of how far computed differences, logit ``classes`` (B,) less another, are from those in real arithmetic.

    ``rotation`` (n, n) comes before the ``classifier`` (K, n) with its ``bias`` (K,); ``readout`` (K, n) is the product of both.
    """
    delta, n = arithmetic.delta, z.centre.shape[1]
    turned, turning = z, torch.zeros_like(z.apart)
    if rotation is not None:
        swaying = delta * _frobenius(rotation) * z.size()
        turning = swaying + arithmetic.gamma(n) * (z.weighed(rotation) + swaying)
        stretch = spectral_norm_bound(Enclosure.exact(rotation))
        turned = Near(z.centre @ rotation.mT, stretch * z.apart + turning, stretch * z.error + turning)
    rows = Enclosure.exact(classifier)
    swaying = delta * _frobenius(classifier) * turned.size()
    weighed = turned.centre.abs() @ _padded(classifier).mT + (rows.norm() + n * PAD) * (turned.apart[:, None] + n * PAD)
    rounding = arithmetic.gamma(n + 1) * (weighed + swaying[:, None] + _padded(bias)) + swaying[:, None]
    lost = z.error[:, None] * (readout[classes][:, None] - readout).norm()
    lost = lost + turning[:, None] * (rows[classes][:, None] - rows).norm()
    return (lost + rounding + rounding.gather(1, classes[:, None])) * SLACK


def distance(computed: Tensor, exact: Tensor) -> float:
    """Return a bound of ||computed - exact|| / ||exact|| in the Frobenius norm; 0 where both are 0."""
    apart = float((Enclosure.exact(computed) - Enclosure.exact(exact)).magnitude().norm())
    size = float(exact.norm())
    if not apart:
        return 0.0
    return apart / size * SLACK if size else math.inf


def _gamma(terms: int, dtype: torch.dtype) -> float:
    product = terms * torch.finfo(dtype).eps / 2
    return product / (1 - product) * SLACK if product < 1 else math.inf


def _padded(values: Tensor) -> Tensor:
    return values.abs() + PAD


def _norm(vectors: Tensor) -> Tensor:
    """Return bounds (...,) of the norms of ``vectors`` (..., k), padded."""
    return torch.linalg.vector_norm(_padded(vectors), dim=-1) * SLACK


def _frobenius(matrix: Tensor) -> float:
    return float(_norm(matrix.flatten()))
