"""What lies before and after the cell: features of images, with how far they move, and logits."""

from functools import reduce
from operator import mul
from typing import Any

from flint import arb, arb_mat

from .matrices import affine, block, diagonal, relu
from .parameters import Model
from .reading import require


def read_head(model: Model) -> tuple[arb_mat, arb_mat]:
    """Return R and r of the logits R z + r."""
    kind, stability, n, k = model.settings["head"], model.settings["stability"], model.n, model.classes
    require(stability in ("none", "anchored"), "checkpoint: the head reads a projection of the equilibrium")
    require(kind in ("linear", "orthogonal", "orthogonal-direct"), f"checkpoint: a head {kind!r} cannot be checked")
    bias, original = model.matrix("head.classifier.bias", k), "parametrizations.weight.original"
    if kind == "orthogonal-direct":
        return rotation(model.matrix(f"head.classifier.{original}", k, n)), bias
    weight = model.matrix("head.classifier.weight", k, n)
    return weight if kind == "linear" else weight * rotation(model.square(f"head.rotation.{original}")), bias


def rotation(free: arb_mat) -> arb_mat:
    """Return the orthonormal rows (k, n) that torch's parametrizations.orthogonal makes of ``free`` (k, n) by matrix_exp."""
    k, n = free.nrows(), free.ncols()
    tall = free if k == n else free.transpose()
    lower = arb_mat(n, n, [tall[i, j] if j <= i and j < k else 0 for i in range(n) for j in range(n)])
    whole = (lower - lower.transpose()).exp()
    return whole if k == n else arb_mat(whole.transpose().tolist()[:k])


# An extractor is a list of layers. Each takes rows X, and how far they move, dX = diag(spread) u with ||u|| <= ||dx||, and returns
# its own rows and spread; the last returns E in the spread's place: dh = E u.
def linear(model: Model, name: str, X: arb_mat, spread: list[arb]) -> tuple[arb_mat, Any]:
    W = model.matrix(f"{name}.weight", model.n, len(spread))
    return affine(X, W, model.vector(f"{name}.bias")), W * diagonal(spread)


def orthonormal(model: Model, name: str, X: arb_mat, spread: list[arb]) -> tuple[arb_mat, Any]:
    """The map x -> W x + b with W = [(I + Z)^-1 (I - Z), 2 (I + Z)^-1 V], Z = S - S' + V V'."""
    S, V = model.square(f"{name}.square"), model.matrix(f"{name}.rest", model.n, len(spread) - model.n)
    Z, one = S - S.transpose() + V * V.transpose(), diagonal([1] * model.n)
    W = (one + Z).solve(block([one - Z, 2 * V]))
    return affine(X, W, model.vector(f"{name}.bias")), W * diagonal(spread)


def residual(model: Model, name: str, X: arb_mat, spread: list[arb]) -> tuple[arb_mat, Any]:
    """The map x -> x - W' (2 / t) relu(W x + b), 1-Lipschitz since t_i >= sum_j |W W'|_ij q_j / q_i makes diag(t) >= W W'."""
    W = model.matrix(f"{name}.weight", None, len(spread))
    q = [x.exp() for x in model.matrix(f"{name}.log_weighting", W.nrows()).entries()]
    rows = zip((W * W.transpose()).tolist(), q, strict=True)
    t = [sum(map(mul, map(abs, row), q)) / own + arb(1) / 10**8 for row, own in rows]
    inner = relu(affine(X, W, model.matrix(f"{name}.bias", W.nrows())))
    return X - inner * diagonal([2 / x for x in t]) * W, [reduce(arb.max, spread)] * len(spread)


EXTRACTORS = {"fcn": {1: linear}, "lipschitz-fcn": {1: residual, 2: residual, 3: orthonormal}}


def read_features(model: Model, levels: bytes, eps: arb) -> tuple[arb_mat, arb_mat]:
    """Return the features of all images in [0, 1] within ``eps`` of levels / 255 in each pixel, and E: dh = E u, ||u|| <= ||dx||."""
    name, (channels, height, width) = model.settings["backbone"], model.settings["image_shape"]
    require(name in EXTRACTORS, f"checkpoint: no claim about predictions through an extractor {name!r} can be checked")
    area, size = height * width, channels * height * width
    mean, std = (model.matrix(part, 1, channels, 1, 1).entries() for part in ("mean", "std"))
    pixels = [(arb(k) / 255 - eps).max(0).union((arb(k) / 255 + eps).min(1)) for k in range(256)]
    table = [[(x - m) / s for x in pixels] for m, s in zip(mean, std, strict=True)]
    X: arb_mat = arb_mat(len(levels) // size, size, [table[i % size // area][k] for i, k in enumerate(levels)])
    spread: Any = [abs(1 / s) for s in std for _ in range(area)]
    for i, layer in EXTRACTORS[name].items():
        X, spread = layer(model, f"backbone.{i}", X, spread)
    return X, spread
