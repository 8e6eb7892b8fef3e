"""Proved margins of predictions while each pixel moves by at most eps: interval bounds, rounded outwards.

The bounds of an equilibrium are verified, however they were found: a box that the cell maps into itself, for every feature in
reach, holds an equilibrium (Brouwer), and the cell has no other, since it contracts. All is about the model in real arithmetic.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.proofs.intervals.interval import ROUNDOFF, Interval
from stabdeq.bounds.interval import backbone_layers, require_interval_bounds
from stabdeq.cells import IntervalCell
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ
from stabdeq.radius import check_eps

IMAGES_AT_ONCE = 100  # keeps the patches of a convolution small
MOST_STEPS = 200
SLACK = 1e-9  # by which the box that is verified is wider than the one that was found


def linf_margins(model: StabilisedDEQ, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    """Return lower bounds (N,) of the least logit y - logit j, j != y, over all images within ``eps`` of ``images``.

    ``images`` (N, C, H, W) and eps are in pixels of [0, 1], ``labels`` y (N,); -inf where nothing is proved. ``model`` is in
    float64. Raises ConfigError where it is not, where a part of it has no interval bounds, or eps is no such radius.
    """
    require_interval_bounds(model)
    check_eps(eps)
    if any(tensor.dtype != torch.float64 for tensor in model.state_dict().values()):
        raise ConfigError("proofs are in float64, and the model is not: convert it with model.double()")
    images = images.double()  # in float32, eps could be lost
    parts = zip(images.split(IMAGES_AT_ONCE), labels.split(IMAGES_AT_ONCE), strict=True)
    return torch.cat([_margins(model, *part, eps) for part in parts])


def contraction_bound(cell: IntervalCell) -> float:
    """Return a proved Lipschitz constant of ``cell`` (float64) in the maximum norm: the largest sum of |W| over a row."""
    transition = cell.fold().transition
    return float(transition.abs().sum(0).max()) * (1 + (len(transition) + 2) * ROUNDOFF)


def equilibrium_boxes(model: StabilisedDEQ, images: Tensor, eps: float) -> tuple[Interval, Tensor]:
    """Return boxes (B, n) of states, and (B,) bool: whether each is proved to hold the equilibria of all images within ``eps``.

    Arguments and errors are those of ``linf_margins``, which has checked them.
    """
    # A fraction such as 8 / 255 may have been rounded down.
    reach = Interval.point(images.new_tensor(math.nextafter(eps, math.inf) if eps else 0.0))
    point = Interval.point(images)
    x = Interval((point - reach).low, (point + reach).high).within(0, 1)
    x = (x - Interval.point(model.mean)) * Interval.point(model.std).reciprocal()
    for layer in backbone_layers(model):
        x = _through(layer, x)
    return _equilibria(model, x)


def _margins(model: StabilisedDEQ, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    z, is_proved = equilibrium_boxes(model, images, eps)
    weight, bias = Interval.point(model.head.classifier.weight), Interval.point(model.head.classifier.bias)
    rows = weight.moved(lambda w: w[labels][:, None]) - weight.moved(lambda w: w[None])
    shift = bias.moved(lambda b: b[labels][:, None]) - bias.moved(lambda b: b[None])
    difference = (rows * z.moved(lambda bound: bound[:, None])).sum([-1]) + shift
    least = difference.low.scatter(1, labels[:, None], math.inf).amin(1)
    return torch.where(is_proved & ~least.isnan(), least, -math.inf)


def _through(layer: nn.Module, x: Interval) -> Interval:
    if isinstance(layer, nn.Linear):
        return _affine(x, layer.weight, layer.bias)
    if isinstance(layer, nn.Conv2d):
        return _convolved(layer, x)
    return x.moved(layer)  # Flatten and ReLU move each bound alone


def _affine(x: Interval, weight: Tensor, bias: Tensor | None) -> Interval:
    product = x.matmul(Interval.point(weight.mT))
    return product if bias is None else product + Interval.point(bias)


def _convolved(layer: nn.Conv2d, x: Interval) -> Interval:
    """Return the convolution as one matrix product of patches, whose rounding errors are known; a kernel's need not be."""
    assert not isinstance(layer.padding, str)
    shape = layer(x.low).shape[2:]
    settings = {"dilation": layer.dilation, "padding": layer.padding, "stride": layer.stride}
    patches = x.moved(lambda bound: functional.unfold(bound, layer.weight.shape[2:], **settings).mT)
    return _affine(patches, layer.weight.flatten(1), layer.bias).moved(lambda bound: bound.mT.unflatten(2, shape))


def _equilibria(model: StabilisedDEQ, h: Interval) -> tuple[Interval, Tensor]:
    """Return boxes (B, n) of states, and (B,) bool: whether they are proved to hold the equilibria for all features ``h``."""
    assert isinstance(model.cell, IntervalCell)
    folded = model.cell.fold()
    transition = Interval.point(folded.transition)
    h = (h + Interval.point(folded.bias)) * Interval.point(folded.scale)

    def step(z: Interval) -> Interval:
        return (z.matmul(transition) + h).moved(torch.relu)

    z = step(Interval(torch.zeros_like(h.low), torch.zeros_like(h.high)))
    for _ in range(MOST_STEPS):
        before, z = z, step(z)
        moved = torch.maximum((z.low - before.low).abs(), (z.high - before.high).abs())
        if bool((moved <= SLACK / 10 * z.magnitude.clamp(min=1)).all()):
            break
    slack = SLACK * z.magnitude.amax(1, keepdim=True).clamp(min=1)
    box = Interval(z.low - slack, z.high + slack)
    image = step(box)
    inside = ((image.low >= box.low) & (image.high <= box.high)).all(1)
    return image, inside & (contraction_bound(model.cell) < 1)
