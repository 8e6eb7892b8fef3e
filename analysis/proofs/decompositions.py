"""Compound operations as elementary ones, beside PyTorch's core ATen decompositions.

In real arithmetic each is what PyTorch computes. They are written to be bounded well: without a kink, a jump or an infinite constant
that the function itself does not have. A result that is not written here (the place of a maximum) is None.
"""

import math
from collections.abc import Callable
from functools import reduce
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from analysis.proofs.shapes import common_shape

aten = torch.ops.aten
# The constants of PyTorch's kernels.
HALF_ROOT = math.sqrt(0.5)
TANH_SCALE, TANH_CUBE = math.sqrt(2) * (2 / math.sqrt(math.pi)) * 0.5, 0.044715


def constant_in(tensor: Any) -> Tensor | None:
    """Return the numbers of a recorded tensor that is a constant of the function, None of what is made of the state."""
    return tensor.value if tensor.node.op == "get_attr" else None


def _off_differences(x: Tensor, dim: int) -> Tensor:
    """Return x_j - x_i for all j other than i: (n - 1, *shape), i along ``dim``."""
    return torch.stack([x.roll(step, dim) - x for step in range(1, x.shape[dim])])


def _softmax(x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    return torch.ones_like(x) if x.shape[dim] == 1 else 1 / (1 + _off_differences(x, dim).exp().sum(0))


def _log_softmax(x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    return torch.zeros_like(x) if x.shape[dim] == 1 else -_off_differences(x, dim).exp().sum(0).log1p()


def _logsumexp(x: Tensor, dim: list[int], keepdim: bool = False) -> Tensor:
    return x.exp().sum(dim, keepdim).log()


def _log_sigmoid(x: Tensor) -> tuple[Tensor, None]:
    return -torch.log1p(torch.exp(-x)), None


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return 0.5 * x * (1 + torch.tanh(TANH_SCALE * (x + TANH_CUBE * x**3)))
    return x * 0.5 * (1 + torch.erf(x * HALF_ROOT))


# PyTorch's own decompositions of these two say the same, but import SymPy, which takes half a second.
def _tanh_backward(gradient: Tensor, image: Tensor) -> Tensor:
    return gradient * (1 - image * image)


def _sigmoid_backward(gradient: Tensor, image: Tensor) -> Tensor:
    return gradient * (image * (1 - image))


def _celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    return aten.elu.default(x, alpha, 1.0, 1.0 / alpha)


def _mish(x: Tensor) -> Tensor:
    return x * x.exp().log1p().tanh()


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    scaled, slopes = weight * x, constant_in(weight)
    if slopes is None:
        return NotImplemented
    if bool((slopes <= 1).all()):
        return torch.maximum(x, scaled)
    return torch.where(weight <= 1, torch.maximum(x, scaled), torch.minimum(x, scaled))


def _softshrink(x: Tensor, width: float = 0.5) -> Tensor:
    return x - x.clamp(-width, width)


def _clamp(x: Tensor, least: Tensor | None = None, most: Tensor | None = None) -> Tensor:
    x = x if least is None else torch.maximum(x, least)
    return x if most is None else torch.minimum(x, most)


def _powers(x: Tensor, exponent: Tensor) -> Tensor:
    """Return x to each of ``exponent``: constants by rules of their own, which take a negative x."""
    numbers = constant_in(exponent)
    if numbers is None:
        return torch.exp(exponent * torch.log(x))
    shape = common_shape(x.shape, exponent.shape)
    first, *others = numbers.unique().tolist()
    return reduce(lambda rest, p: torch.where(exponent == p, x**p, rest), others, x.expand(shape) ** first)


def _scalar_power(base: float, exponent: Tensor) -> Tensor:
    return torch.exp(exponent * torch.full_like(exponent, base).log())


def _remainder(a: Tensor, b: Any) -> Tensor:
    return a - b * torch.floor(a / b)


def _scalar_remainder(a: float, b: Tensor) -> Tensor:
    return a - b * torch.floor(a / b)


def _fmod(a: Tensor, b: Any) -> Tensor:
    return a - b * torch.trunc(a / b)


def _divided(a: Tensor, b: Any, *, rounding_mode: str | None = None) -> Tensor:
    quotient = a / b
    return {None: lambda: quotient, "floor": quotient.floor, "trunc": quotient.trunc}[rounding_mode]()


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    return torch.sqrt(a**2 + b**2)


def _moments(
    x: Tensor, dim: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the variance and the mean over ``dim``, all where none is given."""
    dims = dim or list(range(x.dim()))
    mean = x.mean(dims, keepdim=True)
    count = math.prod(x.shape[one] for one in dims) - (1 if correction is None else correction)
    variance = (x - mean).square().sum(dims, keepdim) / count
    return variance, mean if keepdim else mean.squeeze(dims)


def _variance(x: Tensor, dim: list[int] | None = None, **options: Any) -> Tensor:
    return _moments(x, dim, **options)[0]


def _layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    variance, mean = _moments(x, list(range(-len(shape), 0)), correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + eps)
    found = (x - mean) * inverse
    found = found if weight is None else found * weight
    return found if bias is None else found + bias, mean, inverse


def _product(x: Tensor, dim: int, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    if dtype not in (None, x.dtype):
        return NotImplemented
    found = reduce(torch.mul, x.unbind(dim))
    return found.unsqueeze(dim) if keepdim else found


def _running(operation: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def running(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
        if dtype not in (None, x.dtype):
            return NotImplemented
        return torch.stack(list(accumulate(x.unbind(dim), operation)), dim)

    return running


def _sorted(x: Tensor, dim: int, descending: bool = False) -> list[Tensor]:
    """Return the slices along ``dim`` in order, by comparing neighbours (odd-even transposition)."""
    parts = list(x.unbind(dim))
    for turn in range(len(parts)):
        for place in range(turn % 2, len(parts) - 1, 2):
            pair = parts[place : place + 2]
            parts[place : place + 2] = [torch.minimum(*pair), torch.maximum(*pair)]
    return parts[::-1] if descending else parts


def _sort(x: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, None]:
    return torch.stack(_sorted(x, dim, descending), dim), None


def _stable_sort(
    x: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, None]:
    return _sort(x, dim, descending)


def _topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, in_order: bool = True) -> tuple[Tensor, None]:
    if not in_order:
        return NotImplemented  # PyTorch does not say in which
    return torch.stack(_sorted(x, dim, largest)[:k], dim), None


def _median(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, None]:
    middle = _sorted(x, dim)[(x.shape[dim] - 1) // 2]
    return middle.unsqueeze(dim) if keepdim else middle, None


def _largest(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, None]:
    return x.amax(dim, keepdim), None


def _least(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, None]:
    return x.amin(dim, keepdim), None


def _addmv(x: Tensor, matrix: Tensor, vector: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = (matrix @ vector[:, None])[:, 0]
    return (x if beta == 1 else x * beta) + (product if alpha == 1 else product * alpha)


def _sign_and_logarithm(a: Tensor) -> tuple[Tensor, Tensor, None, None]:
    found = _determinant(a)
    return found.sign(), found.abs().log(), None, None


def _column(matrix: Tensor, index: int) -> Tensor:
    return matrix.narrow(-1, index, 1)


def _determinant(a: Tensor) -> Tensor:
    """Return the determinant of (..., n, n): written out for n <= 3, else by elimination without exchanges."""
    size = a.shape[-1]
    rows = [[a.select(-2, i).select(-1, j) for j in range(size)] for i in range(size)]
    if size == 1:
        return rows[0][0]
    if size == 2:
        return rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
    if size == 3:
        return sum((rows[0][j] * _minor(rows, 0, j) for j in range(1, 3)), start=rows[0][0] * _minor(rows, 0, 0))
    return _product(torch.stack([step.select(-1, 0).select(-1, 0) for step, _ in _eliminated(a, a)]), 0)


def _minor(rows: list[list[Tensor]], i: int, j: int) -> Tensor:
    """Return the cofactor of a 3 x 3 matrix: its indices go round, which gives the sign."""
    a, b, c, d = ((i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3)
    return rows[a][c] * rows[b][d] - rows[a][d] * rows[b][c]


def _eliminated(a: Tensor, b: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return what is left of (..., n, n) and (..., n, k) before each step of Gaussian elimination; their first rows stay."""
    steps = [(a, b)]
    for left in range(a.shape[-1] - 1, 0, -1):
        (first, rest), (first_of_b, rest_of_b) = (
            (part.narrow(-2, 0, 1), part.narrow(-2, 1, left)) for part in steps[-1]
        )
        factor = _column(rest, 0) / _column(first, 0)
        steps.append((rest.narrow(-1, 1, left) - factor * first.narrow(-1, 1, left), rest_of_b - factor * first_of_b))
    return steps


def _solved(a: Tensor, b: Tensor) -> Tensor:
    """Return the solution x (..., n, k) of a x = b, by elimination without exchanges, or Cramer's rule where that meets a 0."""
    steps = _eliminated(a, b)
    pivots = [_column(rest.narrow(-2, 0, 1), 0) for rest, _ in steps]
    if a.shape[-1] <= 3 and any(bool((pivot.value == 0).any()) for pivot in pivots):  # pyrefly: ignore
        return (_adjugate(a) @ b) / _determinant(a)[..., None, None]
    found: list[Tensor] = []
    for (rest, right), pivot in zip(reversed(steps), reversed(pivots), strict=True):
        entry = right.narrow(-2, 0, 1)
        for place, known in enumerate(reversed(found)):
            entry = entry - _column(rest.narrow(-2, 0, 1), 1 + place) * known
        found.append(entry / pivot)
    return torch.cat(found[::-1], -2)


def _adjugate(a: Tensor) -> Tensor:
    size = a.shape[-1]
    rows = [[a.select(-2, i).select(-1, j) for j in range(size)] for i in range(size)]
    if size == 1:
        return torch.ones_like(a)
    if size == 2:
        found = [[rows[1][1], -rows[0][1]], [-rows[1][0], rows[0][0]]]
    else:
        found = [[_minor(rows, j, i) for j in range(3)] for i in range(3)]
    return torch.stack([torch.stack(row, -1) for row in found], -2)


def _solve(a: Tensor, b: Tensor, *, left: bool = True, check_errors: bool = False) -> tuple[Tensor, None, None, None]:
    is_vector = b.dim() == 1 or b.shape == a.shape[:-1]  # PyTorch's rule
    b = b[..., None] if is_vector else b
    found = _solved(a, b) if left else _solved(a.mT, b.mT).mT
    return found[..., 0] if is_vector else found, None, None, None


def _inverse(a: Tensor, *, check_errors: bool = False) -> tuple[Tensor, None]:
    return _solved(a, torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)), None


def _lerp(a: Tensor, b: Tensor, weight: Any) -> Tensor:
    return a + weight * (b - a)


def _no_tangent(x: Tensor, other: Tensor, *, self_num_batch_dims: int = 0) -> Tensor:
    return torch.zeros_like(other) if self_num_batch_dims == 0 else NotImplemented


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten._softmax.default: _softmax,
    aten._log_softmax.default: _log_softmax,
    aten.logsumexp.default: _logsumexp,
    aten.logaddexp.default: lambda a, b: torch.log(torch.exp(a) + torch.exp(b)),
    aten.log_sigmoid_forward.default: _log_sigmoid,
    aten.tanh_backward.default: _tanh_backward,
    aten.sigmoid_backward.default: _sigmoid_backward,
    aten.gelu.default: _gelu,
    aten.celu.default: _celu,
    aten.mish.default: _mish,
    aten._prelu_kernel.default: _prelu,
    aten.softshrink.default: _softshrink,
    aten.clamp.Tensor: _clamp,
    aten.clamp_min.Tensor: _clamp,
    aten.clamp_max.Tensor: lambda x, most: _clamp(x, None, most),
    aten.fmax.default: torch.maximum,
    aten.fmin.default: torch.minimum,
    aten.pow.Tensor_Tensor: _powers,
    aten.pow.Scalar: _scalar_power,
    aten.remainder.Scalar: _remainder,
    aten.remainder.Tensor: _remainder,
    aten.remainder.Scalar_Tensor: _scalar_remainder,
    aten.fmod.Scalar: _fmod,
    aten.fmod.Tensor: _fmod,
    aten.div.Tensor_mode: _divided,
    aten.div.Scalar_mode: _divided,
    aten.hypot.default: _hypot,
    aten.var_mean.correction: _moments,
    aten.var.correction: _variance,
    aten.native_layer_norm.default: _layer_norm,
    aten.prod.dim_int: _product,
    aten.cumsum.default: _running(torch.add),
    aten.cumprod.default: _running(torch.mul),
    aten.sort.default: _sort,
    aten.sort.stable: _stable_sort,
    aten.topk.default: _topk,
    aten.median.dim: _median,
    aten.max.dim: _largest,
    aten.min.dim: _least,
    aten.addmv.default: _addmv,
    aten.lerp.Scalar: _lerp,
    aten._new_zeros_with_same_feature_meta.default: _no_tangent,  # where forward differentiation has none
    aten.lerp.Tensor: _lerp,
    aten._linalg_det.default: lambda a: (_determinant(a), None, None),
    aten._linalg_slogdet.default: _sign_and_logarithm,
    aten._linalg_solve_ex.default: _solve,
    aten.linalg_inv_ex.default: _inverse,
    # Where a matrix is singular, the quotients by its pivots are not known.
    aten._linalg_check_errors.default: lambda info, name, *, is_matrix: None,
}
