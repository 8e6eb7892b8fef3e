"""What the parameters in a checkpoint define: its tensors, and its cell, in balls."""

import math
import struct
from typing import Any, NamedTuple

from flint import arb, arb_mat

from .matrices import block, diagonal, require_definite, scaled
from .reading import Failure, Unreadable, fields, number, numbers, parsed, require


class Model:
    """A checkpoint's settings, and its parameters: float32 or float64 numbers, taken as the real numbers that they are."""

    def __init__(self, data: bytes) -> None:
        try:
            start = 8 + struct.unpack("<Q", data[:8])[0]
            self.tensors, self.data = parsed(data[8:start], "its header"), data[start:]
            self.settings = parsed(self.tensors["__metadata__"]["stabdeq"], "its metadata")["model"]
            require_settings(self.settings)
            self.n, self.classes = self.settings["state_dim"], self.settings["classes"]
        except (struct.error, KeyError, TypeError, Unreadable) as error:
            raise Unreadable(f"the checkpoint is no safetensors file of stabdeq: {error!r:.80}") from None

    def matrix(self, name: str, *shape: int | None) -> arb_mat:
        """Return a tensor of this shape, None for any number, as a matrix with its first axis as rows: a vector is a column."""
        entry = self.tensors.get(f"model.{name}", {"dtype": None, "shape": [], "data_offsets": [0, 0]})
        try:
            sizes, code, (start, end) = (
                entry["shape"],
                {"F32": "f", "F64": "d"}.get(entry["dtype"]),
                entry["data_offsets"],
            )
            fits = code is not None and len(sizes) == len(shape) and all(type(size) is int for size in sizes)
            fits = fits and all(
                given == size >= 0 or (given is None and size > 0) for size, given in zip(sizes, shape, strict=True)
            )
            require(fits, f"checkpoint: expected {name} of shape {shape}, float32 or float64")
            require(0 <= start <= end, f"checkpoint: {name} lies outside of the file")
            values = struct.unpack(f"<{math.prod(sizes)}{code}", self.data[start:end])
        except (struct.error, KeyError, TypeError, ValueError):
            raise Unreadable(f"the checkpoint is truncated or damaged at {name}") from None
        require(all(map(math.isfinite, values)), f"checkpoint: {name} is not finite")
        return arb_mat(sizes[0], len(values) // sizes[0], values)

    def vector(self, name: str) -> arb_mat:
        return self.matrix(name, self.n)

    def square(self, name: str) -> arb_mat:
        return self.matrix(name, self.n, self.n)


def require_settings(settings: Any) -> None:
    """Raise Unreadable where what claims read of a model's settings is of another type or size than stabdeq's models have."""
    counts = [settings["state_dim"], settings["classes"], *settings["image_shape"]]
    names = [settings[name] for name in ("cell", "backbone", "head", "stability")]
    sizes = [settings["lyapunov"][name] for name in ("eta", "smoothing")]
    fits = len(counts) == 5 and all(type(count) is int and 0 < count <= 65536 for count in counts)
    fits = fits and all(type(name) is str for name in names)
    if not (fits and all(type(size) in (int, float) and 0 < size < math.inf for size in sizes)):
        raise Unreadable(f"settings {[*counts, *names, *sizes]!r:.60}")


class Cell(NamedTuple):
    """The map z -> D w + d, w = relu(N w + B z + ...), and what its equilibria solve: w = relu(M w + U h + c), z = D w + d."""

    D: arb_mat
    d: arb_mat
    N: arb_mat
    B: arb_mat | None
    M: arb_mat
    U: arb_mat
    c: arb_mat

    def of_map(self, where: str) -> arb_mat:
        """Return B; raise Failure where it is not known, for want of the step."""
        if self.B is None:
            raise Failure(f"{where}: expected the step of the cell's map")
        return self.B


def read_cell(model: Model, step: Any) -> Cell:
    """Return the cell of the parameters; where its map is z -> relu(z - s L (z - W z - h - b)), B is null without the step s."""
    n, kind = model.n, model.settings["cell"]
    one, zero = diagonal([1] * n), arb_mat(n, n)
    if kind == "batchnorm":
        (s1, d1), (s2, d2) = (batchnorm(model, f"cell.{part}_norm") for part in ("inner", "outer"))
        W1, W2 = model.square("cell.inner.weight"), model.square("cell.outer.weight")
        b1, b2 = model.vector("cell.inner.bias"), model.vector("cell.outer.bias")
        D, N, B = block([zero, s2]), block([zero, zero], [W2 * s1, zero]), block([W1], [zero])
        c, U = block([b1], [W2 * d1 + b2]) + B * d2, block([zero], [one])
        require(step is None, "step: expected null, the map of this cell has none")
        return Cell(D=D, d=d2, N=N, B=B, M=N + B * D, U=U, c=c)
    if kind == "interval":  # rows whose absolute values sum to more than 1/2 are scaled to 1/2
        W = model.square("cell.matrix")
        B = W = scaled([arb(0.5) / sum(map(abs, row), arb(0)).max(arb(0.5)) for row in W.tolist()], W)
        require(step is None, "step: expected null, the map of this cell has none")
    else:
        require(kind in ("certified", "monotone"), f"checkpoint: no claim about a cell {kind!r} can be checked")
        A, K, L = model.square("cell.symmetric"), model.square("cell.skew"), [arb(1)] * n
        monotone = one + A.transpose() * A - K + K.transpose()  # L (I - W)
        if kind == "certified":
            L = [x.exp() for x in model.vector("cell.log_multiplier").entries()]
            room = diagonal([(1 + x * x) * 1001 / 2000 for x in L])
            monotone = room + A.transpose() * A / 2 + K - K.transpose()
        W = one - scaled([1 / x for x in L], monotone)
        B = None if step is None else one - verified_step(monotone, step) * monotone
    return Cell(D=one, d=arb_mat(n, 1), N=zero, B=B, M=W, U=one, c=model.vector("cell.bias"))


def batchnorm(model: Model, name: str) -> tuple[arb_mat, arb_mat]:
    """Return the diagonal scale and the shift of a BatchNorm in evaluation mode, its epsilon 1e-5."""
    parts = ("weight", "bias", "running_mean", "running_variance")
    weight, bias, mean, variance = (model.vector(f"{name}.{part}") for part in parts)
    pairs = zip(weight.entries(), variance.entries(), strict=True)
    scale = diagonal([w / (v + arb(1) / 100000).sqrt() for w, v in pairs])
    return scale, bias - scale * mean


def verified_step(M: arb_mat, step: Any) -> arb:
    """Return a ball that holds the map's step: the largest s with s M'M <= (M + M') / 2, M being L (I - W)."""
    *bounds, vector = fields(step, "step", "low", "high", "vector")
    low, high = (arb(number(bound, "step")) for bound in bounds)
    half, gram = (M + M.transpose()) / 2, M.transpose() * M
    require_definite(half - low * gram, "step.low: (M + M') / 2 - s M'M")
    v = arb_mat(M.nrows(), 1, numbers(vector, M.nrows(), "step.vector"))
    require((v.transpose() * (high * gram - half) * v)[0, 0] > 0, "step.high: the vector does not prove s below it")
    return low.union(high)
