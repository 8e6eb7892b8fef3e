"""How far the logits of a model as it runs are from those of its weights in real arithmetic, for all images within a radius.

It runs in float32, or float64, each sum in any order, with fused multiply-adds or without, subnormal numbers kept or flushed;
its solver stops at a tolerance, and its derived weights are near those that the certificates read (theory: certificates).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.proofs.matrices.enclosure import Enclosure, spectral_norm_bound
from stabdeq.backbones.lipschitz.blocks import BLOCK, block_products
from stabdeq.cells.relu import FoldedReluCell
from stabdeq.heads import Head
from stabdeq.linear_algebra import spectral_norm

# Added to the size of every number in a product: gamma of that covers what underflows, inputs and results flushed to 0 as well.
PAD = 2.0**-50
# All bounds here are sums and products of numbers that are not negative: their own rounding is some thousand roundoffs.
SLACK = 1 + 1e-9


@dataclass(frozen=True)
class Arithmetic:
    """What a model runs in: its ``dtype``, its solver's ``tolerance``, and ``deltas`` of its derived weights, by their names.

    In the spectral norm, a derived matrix is within its delta of the one that certificates read, or within delta times the norm of
    that where it is above 1; a vector stands for a diagonal matrix.
    """

    dtype: torch.dtype
    tolerance: float
    deltas: Mapping[str, float]

    def gamma(self, terms: int) -> float:
        """Return gamma_k = k u / (1 - k u) for sums of ``terms`` products in any order, with that of float64, in which bounds are taken."""
        return gamma(terms, self.dtype) + gamma(terms, torch.float64)

    def rounding(self, terms: int, sizes: Tensor) -> Tensor:
        """Return bounds of the rounding of sums of ``terms`` products whose sizes add up to at most ``sizes``, in any order.

        They are infinite where a sum may overflow, as those of which nothing is known.
        """
        return torch.where(sizes < torch.finfo(self.dtype).max / 2, self.gamma(terms) * sizes, torch.inf)

    def sway(self, name: str, exact: Tensor) -> float:
        """Return a bound of the spectral norm of what the derived weights ``name`` are apart from ``exact``; 0 where none are derived."""
        return self.deltas.get(name, 0.0) * max(1.0, size(exact)) * SLACK


@dataclass(frozen=True)
class Near:
    """What a model computes for all images within reach of each of B images, beside the same in real arithmetic.

    ``centre`` (B, *) is about the exact value of the image itself. The computed ones lie within ``apart`` (B,) of it, and within
    ``error`` (B,) of the exact ones of their own images, in the Euclidean norm.
    """

    centre: Tensor
    apart: Tensor
    error: Tensor

    def size(self) -> Tensor:
        """Return a bound (B,) of the norms of the computed values."""
        return lengths(self.centre) + self.apart

    def rounded(self, stretch: float, centre: Tensor, rounding: Tensor) -> "Near":
        """Return what a map of the Lipschitz constant ``stretch`` makes of it: ``centre``, up to ``rounding`` (B,) of its own."""
        return Near(centre, stretch * self.apart + rounding, stretch * self.error + rounding)


def linear(
    v: Near, weight: Tensor, bias: Tensor, arithmetic: Arithmetic, name: str = "", *, in_blocks: bool = False
) -> Near:
    """Return W v + b, ``weight`` W (m, k), derived where it has a ``name``, ``bias`` b (m,); ``in_blocks`` as the extractors add up."""
    terms, sway = weight.shape[1] + 1, arithmetic.sway(name, weight)
    centre, absolute = v.centre @ weight.mT + bias, padded(weight)
    entries = padded(v.centre) @ absolute.mT + padded(bias)
    stretch, spread = size(weight), size(absolute)
    swaying = (1 + arithmetic.gamma(terms) * min(weight.shape) ** 0.5) * sway * v.size()
    blocks = block_products(v.centre, weight).abs_().sum(0) if in_blocks else None
    rounding = summed(arithmetic, terms, entries, centre, (stretch, spread), v.apart, blocks)
    return v.rounded(stretch, centre, rounding + swaying)


def summed(
    arithmetic: Arithmetic,
    terms: int,
    sizes: Tensor,
    values: Tensor,
    norms: tuple[float, float],
    reach: Tensor,
    blocks: Tensor | None = None,
) -> Tensor:
    """Return bounds (B,) of the norm of the rounding of the sums W v of ``terms`` products each, for v within ``reach`` (B,) of some c.

    ``values`` (B, *) are W c, ``sizes`` (B, *) what the absolute values of their terms add up to; ``norms`` bound ||W|| and || |W| ||.

    No part of a sum is larger than M, half of its size and its value's size: the greater of what its positive terms make and its
    negative ones. Each of k - 1 additions errs by at most u times what it returns, so by u (M + gamma_k size), and each product by
    u times its size. Both M and the size are moved by no more than |W| |v - c| and |W (v - c)| say.

    Where the products are added up in blocks, and then the blocks' sums and a bias, ``blocks`` (B, *) are what the absolute values of
    the blocks' sums of W c add up to. An addition within a block returns no more than the block's own M, which |W| |v - c| moves.
    """
    stretch, spread = norms
    u = torch.finfo(arithmetic.dtype).eps / 2
    whole = lengths(sizes) + spread * reach
    parts = lengths((sizes + values.abs()) / 2) + (spread + stretch) / 2 * reach
    additions = terms - 1
    if blocks is not None:
        additions, within = math.ceil(terms / BLOCK), min(BLOCK, terms) - 1
        inner = lengths((sizes + blocks) / 2) + spread * reach + gamma(terms, arithmetic.dtype) * whole
        parts = parts + within / additions * inner
    further = u + additions * u * gamma(terms, arithmetic.dtype) + gamma(terms, torch.float64)
    rounding = (additions * u * parts + further * whole) * SLACK
    return torch.where(whole < torch.finfo(arithmetic.dtype).max / 2, rounding, torch.inf)


def equilibria(cell: FoldedReluCell, h: Near, z: Tensor, doubt: Tensor, gain: float, arithmetic: Arithmetic) -> Near:
    """Return the states at which the solver stops, beside the equilibria of features ``h``.

    ``z`` (B, n) is within ``doubt`` (B,) of the exact equilibrium of the image, ``gain`` bounds ||dz*|| / ||dh||.

    Where f(z~) is computed to be z~ + d, w = z~ + d = relu(T z~ + s (h + b) + e) is the equilibrium of the features
    h + (e - T d) / s. So ||z~ - z*|| <= ||d|| + gain ||(e - T d) / s||. Both e and d are bounded by ||z~|| <= ||z*|| + ||z~ - z*||:
    an inequality x <= a + b x, which is solved for x.
    """
    n = len(cell.scale)
    unit = arithmetic.gamma(n + 4)
    # With the rounding of the test itself: of a difference, of two norms with their sums of n squares, of a quotient.
    stop = arithmetic.tolerance * (1 + arithmetic.gamma(2 * n + 16))
    divided = Enclosure.exact(cell.scale).reciprocal()[:, None] * Enclosure.exact(cell.transition.mT)
    stretch, least = spectral_norm_bound(divided), float(cell.scale.min())
    tiny = PAD / min(1.0, least)
    weights = divided.magnitude() + tiny
    transition_sway = (1 + unit * n**0.5) * arithmetic.sway("transition", cell.transition) / least
    scale_sway = arithmetic.sway("scale", cell.scale) / least
    exact = Near(z, gain * h.apart + doubt, doubt)  # the equilibria of all images within reach
    entering = lengths(h.centre + cell.bias) + h.apart + tiny * n
    injected, spread = h.centre + cell.bias, size(padded(weights))
    sizes, values = padded(z) @ weights.mT + injected.abs() + tiny, z @ divided.centre.mT + injected
    # The sum reads the features, too, which move it by no more than themselves.
    norms = (max(1.0, stretch), max(1.0, spread))
    disturbed = h.error + (arithmetic.gamma(2) * (1 + scale_sway) + scale_sway) * (1 + unit) * entering
    disturbed = disturbed + summed(arithmetic, n + 1, sizes, values, norms, exact.apart + h.apart)
    disturbed = disturbed + transition_sway * exact.size()
    # Squares that underflow are missing from the norm of the residual.
    stopped = stop * exact.size().clamp(min=1) + (n * torch.finfo(arithmetic.dtype).tiny) ** 0.5
    fixed = stopped + gain * (disturbed + stretch * stopped)
    growing = (stop + gain * (unit * spread + transition_sway + stretch * stop)) * SLACK
    error = fixed / (1 - growing) * SLACK if growing < 1 else torch.full_like(fixed, torch.inf)
    # A sum that overflows to -inf is 0 after the ReLU, so that nothing of it shows.
    sizes = max(1.0, size(cell.scale)) * (lengths(sizes) + spread * (exact.apart + error) + h.apart)
    error = error + arithmetic.rounding(n + 4, sizes)
    return Near(z, exact.apart + error, error)


def lost_margins(z: Near, classes: Tensor, head: Head, readout: Enclosure, arithmetic: Arithmetic) -> Tensor:
    """Return bounds (B, K) of how far computed differences, logit ``classes`` (B,) less another, are from those in real arithmetic.

    ``head`` is a rotation or none, then a classifier; ``readout`` (K, n) is the product of both.
    """
    turned = Near(z.centre, z.apart, torch.zeros_like(z.error))
    if head.rotation is not None:
        rotation = head.rotation.weight
        turned = linear(turned, rotation, rotation.new_zeros(len(rotation)), arithmetic, "rotation")
    classifier, bias = head.classifier.weight, head.classifier.bias
    rows, terms = Enclosure.exact(classifier), classifier.shape[1]
    swaying = (1 + arithmetic.gamma(terms + 1)) * arithmetic.sway("classifier", classifier) * turned.size()[:, None]
    weighed = turned.centre.abs() @ padded(classifier).mT + (rows.norm() + terms * PAD) * (
        turned.apart[:, None] + terms * PAD
    )
    rounding = arithmetic.rounding(terms + 1, weighed + padded(bias) + swaying) + swaying
    lost = z.error[:, None] * (readout[classes][:, None] - readout).norm()
    lost = lost + turned.error[:, None] * (rows[classes][:, None] - rows).norm()
    return (lost + rounding + rounding.gather(1, classes[:, None])) * SLACK


def distance(computed: Tensor, exact: Tensor) -> float:
    """Return a bound of the delta by which ``computed`` is apart from ``exact``."""
    if torch.equal(computed.double(), exact):
        return 0.0
    apart = Enclosure.exact(computed) - Enclosure.exact(exact)
    if exact.dim() == 1:
        return float(apart.magnitude().max()) / max(1.0, float(exact.abs().max())) * SLACK
    narrow = apart if exact.shape[0] >= exact.shape[1] else apart.mT
    return spectral_norm_bound(narrow) / max(1.0, float(spectral_norm(exact)) * (1 - 1e-6)) * SLACK


def size(weight: Tensor) -> float:
    """Return a bound of the spectral norm of ``weight`` (m, k), or of the diagonal matrix (m,)."""
    if weight.dim() == 1:
        return float(weight.abs().max())
    # Of W'W and W W' the smaller is proved definite.
    return spectral_norm_bound(Enclosure.exact(weight if weight.shape[0] >= weight.shape[1] else weight.mT))


def padded(values: Tensor) -> Tensor:
    """Return the sizes of ``values``, with what underflow may add."""
    return values.abs() + PAD


def lengths(values: Tensor) -> Tensor:
    """Return bounds (B,) of the norms of ``values`` (B, *), with what underflow may add."""
    return torch.linalg.vector_norm(padded(values).flatten(1), dim=1) * SLACK


def gamma(terms: int, dtype: torch.dtype) -> float:
    """Return gamma_k = k u / (1 - k u) for k = ``terms`` and the unit roundoff u of ``dtype``, infinite where k u is not below 1."""
    product = terms * torch.finfo(dtype).eps / 2
    return product / (1 - product) * SLACK if product < 1 else math.inf
