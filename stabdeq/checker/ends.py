"""What lies before and after the cell: features of images, with how far they move, and logits."""

from functools import partial, reduce
from operator import mul
from typing import Any

from flint import arb, arb_mat, ctx

from .matrices import affine, block, diagonal, relu, scaled
from .parameters import Model
from .reading import require

BITS = 64  # of the middles of balls, in extractors


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
    return affine(X, W, model.vector(f"{name}.bias")), scaled(spread, W.transpose()).transpose()


def orthonormal(model: Model, name: str, X: arb_mat, spread: list[arb]) -> tuple[arb_mat, Any]:
    """The map x -> W x + b with W = (I + Z)^-1 [I - Z, 2 V], Z = S - S' + V V'.

    W W' = I, since (I - Z)(I - Z)' + 4 V V' = (I + Z)(I + Z)' by Z + Z' = 2 V V'; so it moves nothing further than X moves.
    """
    S, V = model.square(f"{name}.square"), model.matrix(f"{name}.rest", model.n, len(spread) - model.n)
    Z, one = S - S.transpose() + V * V.transpose(), diagonal([1] * model.n)
    image = (one + Z).solve(block([one - Z, 2 * V]) * X.transpose()).transpose()
    return affine(image, one, model.vector(f"{name}.bias")), diagonal([reduce(arb.max, spread)] * model.n)


def residual(model: Model, name: str, X: arb_mat, spread: list[arb]) -> tuple[arb_mat, Any]:
    """The map x -> x - W' (2 / t) relu(W x + b), 1-Lipschitz since t_i >= sum_j |W W'|_ij q_j / q_i makes diag(t) >= W W'."""
    W = model.matrix(f"{name}.weight", None, len(spread))
    inner = relu(affine(X, W, model.matrix(f"{name}.bias", W.nrows())))
    sizes = [list(map(abs, row)) for row in (W * W.transpose()).tolist()]
    return X - inner * scaled(_scale(model, name, sizes), W), [reduce(arb.max, spread)] * len(spread)


def _scale(model: Model, name: str, sizes: list[list[arb]]) -> list[arb]:
    """Return the numbers 2 / t for the ``sizes`` |W W'|."""
    q = [x.exp() for x in model.matrix(f"{name}.log_weighting", len(sizes)).entries()]
    return [2 / (sum(map(mul, row, q)) / own + arb(1) / 10**8) for row, own in zip(sizes, q, strict=True)]


def convolution(shrunk: int, model: Model, name: str, X: arb_mat, spread: list[arb]) -> tuple[arb_mat, Any]:
    """That map for a 3 x 3 convolution W, zeros around the image: |W W'| is summed over all shifts of a kernel along another.

    On an image without end W W' would be these correlations, and with zeros around it is a part of that.
    """
    height, width = (side // shrunk for side in model.settings["image_shape"][1:])
    area = height * width
    kernels = model.matrix(f"{name}.weight", None, len(spread) // area, 3, 3).tolist()
    taps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    W = {tap: arb_mat([row[i::9] for row in kernels]) for i, tap in enumerate(taps)}
    zero, bias = arb_mat(len(kernels), len(kernels)), model.matrix(f"{name}.bias", len(kernels))
    sizes = zero.tolist()
    for shift in [(y, x) for y in range(-2, 3) for x in range(-2, 3)]:
        pairs = [(W[y, x], W.get((y + shift[0], x + shift[1]))) for y, x in taps]
        product = sum((one * other.transpose() for one, other in pairs if other is not None), zero)
        sizes = [[a + abs(b) for a, b in zip(*rows, strict=True)] for rows in zip(sizes, product.tolist(), strict=True)]
    scale = _scale(model, name, sizes)
    forth = block([W[tap] for tap in taps])
    back = block([scaled(scale, W[y, x]).transpose() for y, x in ((-y, -x) for y, x in taps)])
    # The place that each tap reads at each place, one beyond the image where it holds a zero.
    places = [(y, x) for y in range(height) for x in range(width)]
    read = {
        (a, b): [(y + a) * width + x + b if 0 <= y + a < height and 0 <= x + b < width else area for y, x in places]
        for a, b in taps
    }

    def patches(channels: list[list[arb]]) -> arb_mat:
        return arb_mat([[row[i] for i in read[tap]] for tap in taps for row in ([*one, 0] for one in channels)])

    rows = []
    for image in X.tolist():
        channels = [image[i : i + area] for i in range(0, len(image), area)]
        inner = relu(forth * patches(channels) + bias * arb_mat(1, area, [1] * area))
        rows.append((arb_mat(channels) - back * patches(inner.tolist())).entries())
    return arb_mat(rows), [reduce(arb.max, spread)] * len(spread)


def squares(shrunk: int, model: Model, name: str, X: arb_mat, spread: list[arb]) -> tuple[arb_mat, Any]:
    """The pixels of each square of 2 x 2 become four channels, in the order of rows."""
    height, width = (side // shrunk for side in model.settings["image_shape"][1:])
    require(height % 2 == width % 2 == 0, "checkpoint: expected an image that can be halved")
    places = [
        (channel * height + y) * width + x
        for channel in range(len(spread) // (height * width))
        for top, left in ((0, 0), (0, 1), (1, 0), (1, 1))
        for y in range(top, height, 2)
        for x in range(left, width, 2)
    ]
    return arb_mat([[row[i] for i in places] for row in X.tolist()]), [spread[i] for i in places]


def widened(model: Model, name: str, X: arb_mat, spread: list[arb]) -> tuple[arb_mat, Any]:
    """Channels of zeros follow, up to what the next layer reads."""
    _, height, width = model.settings["image_shape"]
    wide = model.matrix("backbone.2.weight", None, None, 3, 3).ncols() // 9
    added = wide * (height // 2) * (width // 2) - len(spread)
    require(added >= 0, "checkpoint: backbone.2 reads too few channels")
    return arb_mat([row + [0] * added for row in X.tolist()]), spread + [arb(0)] * added


half, quarter = partial(convolution, 2), partial(convolution, 4)
EXTRACTORS: dict[str, dict[int, Any]] = {
    "fcn": {1: linear},
    "lipschitz-fcn": {1: residual, 2: residual, 3: orthonormal},
    "lipschitz-fcn-8": dict.fromkeys(range(1, 9), residual) | {9: orthonormal},
    "lipschitz-cnn": {0: partial(squares, 1), 1: widened, 2: half, 3: half, 4: half}
    | {5: partial(squares, 2), 6: quarter, 7: quarter, 8: quarter, 10: orthonormal},
}


def read_features(model: Model, levels: bytes, eps: arb) -> tuple[arb_mat, arb_mat]:
    """Return the features of all images in [0, 1] within ``eps`` of levels / 255 in each pixel, and E: dh = E u, ||u|| <= ||dx||.

    Through all layers but ``linear`` two rows get no further apart. So each takes in the middles alone, and what is left out, the sum
    of a row's radii, is added to its features: balls do not grow from layer to layer, and few bits do.
    """
    with ctx.workprec(BITS):
        return _features(model, levels, eps)


def _features(model: Model, levels: bytes, eps: arb) -> tuple[arb_mat, arb_mat]:
    name, (channels, height, width) = model.settings["backbone"], model.settings["image_shape"]
    require(name in EXTRACTORS, f"checkpoint: no claim about predictions through an extractor {name!r} can be checked")
    area, size = height * width, channels * height * width
    mean, std = (model.matrix(part, 1, channels, 1, 1).entries() for part in ("mean", "std"))
    pixels = [(arb(k) / 255 - eps).max(0).union((arb(k) / 255 + eps).min(1)) for k in range(256)]
    table = [[(x - m) / s for x in pixels] for m, s in zip(mean, std, strict=True)]
    X: arb_mat = arb_mat(len(levels) // size, size, [table[i % size // area][k] for i, k in enumerate(levels)])
    spread: Any = [abs(1 / s) for s in std for _ in range(area)]
    apart = arb_mat(X.nrows(), 1)
    for i, layer in EXTRACTORS[name].items():
        if layer is not linear:
            middles = X.mid()
            apart, X = apart + (X - middles) * arb_mat(X.ncols(), 1, [1] * X.ncols()), middles
        X, spread = layer(model, f"backbone.{i}", X, spread)
    return X + apart * arb_mat(1, model.n, [1] * model.n), spread
