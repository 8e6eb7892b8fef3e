"""Proved margins of predictions while each pixel moves by at most eps, from the weights: a gain weighted by pixel.

The images within eps of one, pixels clipped to [0, 1], are a box of centre x~ and reaches r: half of eps for a black pixel. Let
w~ solve w = relu(M w + F x~ + b + e) with a small known e, as a computed solution does. By the multiplier inequality (gain.py)
of L > 0, with weights v > 0 of the inputs and beta > 0 of e,

    s (2L - LM - M'L - L (F diag(v)^-1 F' + I / beta) L) > c c'   implies   (c'(w - w~))^2 <= s (sum_k v_k dx_k^2 + beta |e|^2).

So each row c, a difference of two logits, needs one number s. Of an extractor that is no matrix the inputs are the features, all with one
weight: they move by its Lipschitz constant times the length of r. The least s sum_k v_k r_k^2 is a convex problem in L and v, since L and
v can be scaled so that the sum is 1 (theory: certificates).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.proofs.cells.affine_ball import activations
from analysis.proofs.cells.gain import Gain, supply
from analysis.proofs.cells.l2_radii import Ends
from analysis.proofs.cells.network import Equation, ReluNetwork
from analysis.proofs.matrices.enclosure import EPS, TINY, Enclosure, diagonal
from stabdeq.linear_algebra import cholesky

ROOM = 1e-4  # relative room that a proof is given beyond the value computed in floating point, and for the error e
DESCENT_STEPS = 100
ROWS_AT_ONCE = 64  # keeps their matrices small
MOST_WORK = 1e9  # rows x unknowns^2 x inputs, up to which each row gets a multiplier of its own


@dataclass(frozen=True)
class WeightedGain:
    """Proved of R rows c: |c'(w - w~)|^2 <= ``scale`` s (sum_k ``weight`` v_k dx_k^2 + ``slack`` beta |e|^2).

    ``scale`` (R,), infinite where nothing is proved; ``weight`` (G, d) and ``slack`` (G,), G being R, or 1 for all rows. With
    d = 1 all inputs have one weight, and |dx| is their length.
    """

    scale: Tensor
    weight: Tensor
    slack: Tensor

    def bound(self, reach: Tensor, error: Tensor) -> Tensor:
        """Return bounds (B, R) of |c'(w - w~)| for |dx_k| <= ``reach`` (B, d) and |e| <= ``error`` (B,)."""
        moved = reach.square() @ self.weight.mT + self.slack * error.square()[:, None] + TINY
        rounding = (reach.shape[1] + 8) * EPS
        return (moved * self.scale).sqrt() * (1 + rounding) + TINY**0.5


@dataclass(frozen=True)
class Boxes:
    """Images within an eps of B given ones: pixels in [0, 1], within ``reach`` (B, C, H, W) of ``centre`` (B, C, H, W)."""

    centre: Tensor
    reach: Tensor


def boxes_around(images: Tensor, eps: float) -> Boxes:
    """Return the boxes of ``images`` (B, C, H, W), float64, pixels in [0, 1]; eps may have been rounded down, as 8 / 255 is."""
    reach = math.nextafter(eps, math.inf)
    low, high = (images - reach).clamp(min=0), (images + reach).clamp(max=1)
    centre = (low + high) / 2
    reach = torch.maximum(high - centre, centre - low)
    return Boxes(centre, reach + 2 * EPS)  # every number here is at most 2 in size


def linf_gains(ends: Ends, equation: Equation, gain: Gain, boxes: Boxes) -> WeightedGain:
    """Return bounds of how far the difference of each pair of logits, i < j, moves in boxes such as ``boxes``."""
    classes = len(ends.bias.centre)
    first, second = torch.triu_indices(classes, classes, 1)
    rows = (ends.readout[first] - ends.readout[second]) @ equation.output
    matrix = ends.extractor.matrix
    injection = equation.injection if matrix is None else equation.injection @ matrix
    typical = _reach(ends, boxes).square().mean(0).sqrt()
    return find_weighted_gain(equation, rows, injection, gain.multiplier, typical)


def _reach(ends: Ends, boxes: Boxes) -> Tensor:
    """Return bounds (B, d) of how far each input moves: pixels, or, (B, 1), the length by which features of no matrix do."""
    pixels = boxes.reach.flatten(1)
    if ends.extractor.matrix is not None:
        return pixels
    return (Enclosure.exact(pixels).norm() * ends.extractor.lipschitz * (1 + 2 * EPS))[:, None]


def gain_margins(
    ends: Ends,
    network: ReluNetwork,
    equation: Equation,
    gains: WeightedGain,
    boxes: Boxes,
    z: Tensor,
    labels: Tensor,
) -> Tensor:
    """Return lower bounds (B,) of the least logit y - logit j, j != y, over ``boxes``, y being ``labels`` (B,); NaN proves nothing.

    ``z`` (B, n) are about the equilibria of the centres; what they lack is in the bounds.
    """
    h = ends.extractor.features(boxes.centre)
    _, computed = activations(network, Enclosure.exact(z), Enclosure.exact(h.centre))
    w = Enclosure.exact(computed.centre)
    w_exact = (w @ equation.weight.mT + h @ equation.injection.mT + equation.bias).relu()
    error = ((w_exact - w) @ equation.weight.mT).norm()  # of the input with which this w solves the equation
    logits = (w_exact @ equation.output.mT + equation.shift) @ ends.readout.mT + ends.bias
    difference = logits[torch.arange(len(labels)), labels][:, None] - logits
    classes = len(ends.bias.centre)
    first, second = torch.triu_indices(classes, classes, 1)
    pairs = torch.zeros(classes, classes, dtype=torch.long)
    pairs[first, second] = pairs[second, first] = torch.arange(len(first))
    doubt = difference.radius + gains.bound(_reach(ends, boxes), error).gather(1, pairs[labels])
    least = difference.centre - doubt * (1 + 8 * EPS) - 4 * EPS * difference.centre.abs()
    return least.scatter(1, labels[:, None], torch.inf).amin(1)


def find_weighted_gain(
    equation: Equation, rows: Enclosure, injection: Enclosure, start: Tensor, reach: Tensor
) -> WeightedGain:
    """Return a proved bound of ``rows`` c (R, m) for inputs through ``injection`` F (m, d).

    ``start`` (m,) is a multiplier that proves uniqueness; ``reach`` (d,), the root mean square of reaches, says which inputs
    move how far, and only decides how good the bound is. With a ``reach`` (1,) all inputs get one weight.
    """
    values = _start(equation, injection.centre, start, reach)
    values = _descend(equation, rows.centre[None], injection.centre, reach, values)
    if len(rows.centre) * len(start) ** 2 * injection.centre.shape[1] <= MOST_WORK:
        own = values.expand(len(rows.centre), -1)
        values = _descend(equation, rows.centre[:, None], injection.centre, reach, own)
    multiplier, weight = values.exp().split([len(start), len(reach)], 1)
    return _proved(equation, rows, injection, multiplier, weight)


def _proved(
    equation: Equation, rows: Enclosure, injection: Enclosure, multiplier: Tensor, weight: Tensor
) -> WeightedGain:
    """Return the bound of ``rows`` (R, m) that ``multiplier`` L (G, m) and ``weight`` v (G, d) prove, each of R / G rows."""
    factor, failed = cholesky(_room(equation, injection.centre, multiplier, weight))
    size = torch.linalg.solve_triangular(factor, torch.diag_embed(multiplier), upper=False).square().sum((1, 2))
    usable = ~failed & (multiplier > 0).all(1) & (weight > 0).all(1) & size.isfinite()
    slack = torch.where(usable, size / ROOM, 1.0)
    scaled = diagonal(multiplier)
    weighted = scaled @ injection
    spent = (weighted * Enclosure.exact(weight).reciprocal()[:, None, :]) @ weighted.mT
    spent = spent + scaled * scaled * Enclosure.exact(slack).reciprocal()[:, None, None]
    room = (supply(equation, multiplier) - spent)[:, None]
    scales = []
    grouped = Enclosure(*(part.unflatten(0, (len(multiplier), -1)) for part in (rows.centre, rows.radius)))
    for first in range(0, grouped.centre.shape[1], ROWS_AT_ONCE):
        part = grouped[:, first : first + ROWS_AT_ONCE]  # (G, k, m)
        felt = torch.linalg.solve_triangular(factor, part.centre.mT, upper=False).square().sum(1)
        scale = felt * (1 + 2 * ROOM) + TINY**0.5
        known = usable[:, None] & scale.isfinite()
        scale = torch.where(known, scale, 1.0)
        matrix = room * Enclosure.exact(scale[..., None, None]) - part[..., None] @ part[..., None, :]
        scales.append(torch.where(known & matrix.is_positive_definite(), scale, torch.inf))
    return WeightedGain(torch.cat(scales, 1).flatten(), weight, slack)


def _room(equation: Equation, injection: Tensor, multiplier: Tensor, weight: Tensor) -> Tensor:
    """Return 2L - LM - M'L - L F diag(v)^-1 F' L, (G, m, m), in floating point, of L (G, m) and v (G, d)."""
    scaled = multiplier[..., None] * equation.weight.centre
    weighted = multiplier[..., None] * injection
    return torch.diag_embed(2 * multiplier) - scaled - scaled.mT - (weighted / weight[:, None, :]) @ weighted.mT


def _start(equation: Equation, injection: Tensor, multiplier: Tensor, reach: Tensor) -> Tensor:
    """Return logarithms (1, m + d) of ``multiplier`` and of weights that take half of the room that it leaves."""
    scaled = multiplier[:, None] * equation.weight.centre
    factor, _ = cholesky(torch.diag(2 * multiplier) - scaled - scaled.mT)
    part = torch.linalg.solve_triangular(factor, multiplier[:, None] * injection, upper=False).norm(dim=0)
    part = part if len(reach) > 1 else part.norm()[None]
    part = part.clamp(min=1e-9 * part.max())  # a pixel that is not read still needs a weight above 0
    felt = (part * reach).sum()
    return torch.cat([multiplier, 2 * felt * part / reach])[None].log()


def _descend(equation: Equation, rows: Tensor, injection: Tensor, reach: Tensor, values: Tensor) -> Tensor:
    """Return logarithms (G, m + d) of multipliers and weights with bounds of ``rows`` (G, k, m) as small as found, by Adam.

    Each of the G problems makes the geometric mean of its k bounds small; the best values seen are kept.
    """
    m, squared = rows.shape[2], reach.square()

    def loss(values: Tensor) -> Tensor:
        multiplier, weight = values[:, :m].exp(), values[:, m:].exp()
        factor, failed = cholesky(_room(equation, injection, multiplier, weight))
        scale = torch.linalg.solve_triangular(factor, rows.mT, upper=False).square().sum(1)
        bound = scale.log().mean(1) + (weight @ squared).log()
        return torch.where(failed | bound.isnan(), torch.inf, bound)

    best, least = values, torch.full((len(values),), torch.inf, dtype=torch.float64)
    with torch.enable_grad():
        values = values.clone().requires_grad_()
        optimiser = torch.optim.Adam([values], lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, DESCENT_STEPS)
        for _ in range(DESCENT_STEPS):
            bound = loss(values)
            with torch.no_grad():
                best = torch.where((bound < least)[:, None], values, best)
                least = torch.minimum(bound, least)
                # A step that left the feasible set has no gradient to return by.
                values.copy_(torch.where((bound < torch.inf)[:, None], values, best))
            optimiser.zero_grad()
            torch.where(bound < torch.inf, bound, 0.0).sum().backward()
            optimiser.step()
            schedule.step()
    return best
