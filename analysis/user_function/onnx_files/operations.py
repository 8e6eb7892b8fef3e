"""Each operation of ONNX on tensors, as https://onnx.ai/onnx/operators defines it, in float64.

Keyword arguments are the attributes, by their names there; ``version`` is that of the set of operations. An attribute's default is the
float32 that ONNX stores. Where two forms are the same in real numbers, the one is taken that the proofs bound: its operations are smooth
where the function is.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from analysis.user_function.onnx_files.messages import MalformedError
from analysis.user_function.onnx_files.tensors import BOOL, DOUBLE, FLOAT, REAL, TYPES


def float32(number: float) -> float:
    """Return the float32 next to ``number``, as which ONNX stores it."""
    return struct.unpack("<f", struct.pack("<f", number))[0]


ALPHA = float32(0.01)  # of LeakyRelu
EPSILON = float32(1e-5)
SELU = float32(1.6732632423543772), float32(1.0507009873554805)


@dataclass(frozen=True)
class Operation:
    """A function of tensors; ``constant`` inputs, by their place, are given as numbers or lists and depend on no state."""

    function: Callable[..., Any]
    constant: tuple[int, ...] = ()


def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1,
    beta: float = 1,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    product = (a.mT if transA else a) @ (b.mT if transB else b)
    product = product if alpha == 1 else product * alpha
    return product if c is None else product + (c if beta == 1 else c * beta)


def _div(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def _pow(x: Tensor, exponent: Any) -> Tensor:
    exponents = torch.tensor(exponent, dtype=torch.float64 if x.is_floating_point() else torch.int64)
    if exponents.numel() > 1:
        return torch.pow(x, exponents)
    return torch.pow(x, exponents.item()).reshape([1] * (exponents.dim() - x.dim()) + list(x.shape))


def _number(given: Any) -> Any:
    """Return a number that stands alone or in lists of length 1."""
    while isinstance(given, list):
        if len(given) != 1:
            raise MalformedError(f"expected one number, got {len(given)}")
        given = given[0]
    return given


def _clip(x: Tensor, low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> Tensor:  # noqa: A002
    # Up to version 6 the bounds are attributes.
    low, high = (_number(a if a is not None else b) for a, b in ((low, min), (high, max)))
    # What is infinite bounds nothing.
    low, high = (None if bound is None or math.isinf(bound) else bound for bound in (low, high))
    return x if low is None and high is None else torch.clamp(x, low, high)


def _softplus(x: Tensor) -> Tensor:
    # PyTorch's own is x beyond 20, which is another function.
    return torch.log1p(torch.exp(x))


def _elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    # A sum of continuous functions, one of which is 0.
    return torch.relu(x) + alpha * torch.expm1(torch.clamp(x, max=0.0))


def _selu(x: Tensor, *, alpha: float = SELU[0], gamma: float = SELU[1]) -> Tensor:
    return gamma * _elu(x, alpha=alpha)


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate not in ("none", "tanh"):
        raise MalformedError(f"has the attribute approximate {approximate!r}; expected 'none' or 'tanh'")
    if approximate == "none":
        return functional.gelu(x)
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _softmax(x: Tensor, *, axis: int | None = None, version: int) -> Tensor:
    if version >= 13:
        return torch.softmax(x, -1 if axis is None else axis)
    # All axes from this one on are one there.
    return torch.softmax(_flatten(x, axis=1 if axis is None else axis), 1).reshape(x.shape)


def _reduced(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operation:
    def operation(
        x: Tensor, given: Any = None, *, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        axes = given if given is not None else axes
        if not axes and noop_with_empty_axes:
            return x
        return function(x, list(axes or range(x.dim())), bool(keepdims))

    return Operation(operation, constant=(1,))


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    def operation(*tensors: Tensor) -> Tensor:
        result = tensors[0]
        for other in tensors[1:]:
            result = function(result, other)
        return result

    return Operation(operation)


def _mean(*tensors: Tensor) -> Tensor:
    return sum(tensors[1:], start=tensors[0]) / len(tensors)


def _split(
    x: Tensor, given: Any = None, *, axis: int = 0, split: Any = None, num_outputs: int = 0, outputs: int
) -> Any:
    sizes = given if given is not None else split
    if sizes is None:
        length = x.shape[axis]
        each = -(-length // (num_outputs or outputs))
        sizes = [min(each, length - start) for start in range(0, length, each)]
    return torch.split(x, list(sizes), axis)


def _slice(
    x: Tensor, begin: Any = None, end: Any = None, axis: Any = None, step: Any = None, *, starts: Any = None, ends: Any = None,
    axes: Any = None,
) -> Tensor:  # fmt: skip
    # Up to version 9 the bounds are attributes.
    begin, end, axis = (a if a is not None else b for a, b in ((begin, starts), (end, ends), (axis, axes)))
    axis = range(len(begin)) if axis is None else axis
    step = [1] * len(begin) if step is None else step
    for one, low, high, by in zip(axis, begin, end, step, strict=True):
        picked = range(*slice(low, high, by).indices(x.shape[one]))
        if by > 0:
            start = min(picked.start, x.shape[one])
            x = x[(slice(None),) * (one % x.dim()) + (slice(start, max(start, picked.stop), by),)]
        else:
            x = x.index_select(one, torch.tensor(list(picked), dtype=torch.int64))
    return x


def _gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return x[(slice(None),) * (axis % x.dim()) + (indices,)]


def _reshape(x: Tensor, shape: list[int], *, allowzero: int = 0) -> Tensor:
    lengths = [x.shape[place] if one == 0 and not allowzero else one for place, one in enumerate(shape)]
    return x.reshape(lengths)


def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _transpose(x: Tensor, *, perm: Any = None) -> Tensor:
    return x.permute(perm if perm is not None else list(range(x.dim()))[::-1])


def _squeeze(x: Tensor, given: Any = None, *, axes: Any = None) -> Tensor:
    axes = given if given is not None else axes
    if axes is None:
        return x.squeeze()
    if any(x.shape[axis] != 1 for axis in axes):
        raise MalformedError(f"expected the length 1 along {list(axes)}, got the shape {tuple(x.shape)}")
    return x.squeeze(tuple(axes))


def _unsqueeze(x: Tensor, given: Any = None, *, axes: Any = None) -> Tensor:
    axes = given if given is not None else axes
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _constant(
    *, value: Tensor | None = None, value_float: float | None = None, value_floats: Any = None, value_int: int | None = None,
    value_ints: Any = None,
) -> Tensor:  # fmt: skip
    given = [one for one in (value, value_float, value_floats, value_int, value_ints) if one is not None]
    if len(given) != 1:
        raise MalformedError(f"expected one value, got {len(given)}")
    if isinstance(given[0], Tensor):
        return given[0]
    is_real = value_float is not None or value_floats is not None
    return torch.tensor(given[0], dtype=torch.float64 if is_real else torch.int64)


def _constant_of_shape(shape: list[int], *, value: Tensor | None = None) -> Tensor:
    number = torch.zeros(1, dtype=torch.float64) if value is None else value
    return number.reshape(()).expand(shape)


def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(list(x.shape[start:end]), dtype=torch.int64)


def _cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    if to not in TYPES or (to in REAL and to not in (FLOAT, DOUBLE)):
        name = TYPES[to][0] if to in TYPES else f"type {to}"
        raise MalformedError(f"rounds to {name}; real numbers are computed in float64 here")
    if to == BOOL:
        return x != 0
    if to in REAL:
        return x if x.is_floating_point() else x.double()
    return x.long()


def _expand(x: Tensor, shape: list[int]) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))


def _batch_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float = EPSILON, momentum: float = 0,
    training_mode: int = 0, spatial: int = 1,
) -> Tensor:  # fmt: skip
    if training_mode or not spatial:
        raise MalformedError("normalises by the batch; expected the mode of inference")
    scale, bias, mean, variance = (
        one.reshape(-1, *[1] * (x.dim() - 2)) for one in (scale, bias, mean, variance)
    )  # along axis 1
    return (x - mean) / torch.sqrt(variance + epsilon) * scale + bias


def _layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = EPSILON,
    stash_type: int = 1,
) -> Tensor:
    axes = list(range(axis % x.dim(), x.dim()))
    off = x - x.mean(axes, keepdim=True)
    normalised = off / torch.sqrt((off * off).mean(axes, keepdim=True) + epsilon) * scale
    return normalised if bias is None else normalised + bias


def _dropout(x: Tensor, ratio: Any = None, training: Any = None, *, seed: int = 0, **old: float) -> Tensor:
    if set(old) - {"ratio"}:
        raise MalformedError(f"has the attributes {sorted(old)}; expected seed or ratio")
    if training is not None and _number(training):
        raise MalformedError("draws at random; expected the mode of inference")
    return x


def _conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, auto_pad: str = "NOTSET", dilations: Any = None, group: int = 1,
    kernel_shape: Any = None, pads: Any = None, strides: Any = None,
) -> Tensor:  # fmt: skip
    if auto_pad not in ("NOTSET", "VALID"):
        raise MalformedError(f"has the auto_pad {auto_pad!r}; expected NOTSET or VALID, with pads")
    rank = x.dim() - 2
    if not 1 <= rank <= 3:
        raise MalformedError(f"expected an input of 3 to 5 axes, got the shape {tuple(x.shape)}")
    pads = [0] * 2 * rank if pads is None else pads
    # PyTorch takes the two pads of the last axis first.
    x = functional.pad(x, [pads[place] for one in range(rank - 1, -1, -1) for place in (one, one + rank)])
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    return function(x, weight, bias, stride=strides or [1] * rank, dilation=dilations or [1] * rank, groups=group)


OPERATIONS: dict[str, Operation] = {
    "Add": Operation(lambda a, b: a + b),
    "Sub": Operation(lambda a, b: a - b),
    "Mul": Operation(lambda a, b: a * b),
    "Div": Operation(_div),
    "Neg": Operation(lambda x: -x),
    "Abs": Operation(lambda x: x.abs()),
    "Sign": Operation(lambda x: x.sign()),
    "Reciprocal": Operation(lambda x: 1 / x),
    "Pow": Operation(_pow, constant=(1,)),
    "Sqrt": Operation(lambda x: x.sqrt()),
    "Exp": Operation(lambda x: x.exp()),
    "Log": Operation(lambda x: x.log()),
    "Sin": Operation(lambda x: x.sin()),
    "Cos": Operation(lambda x: x.cos()),
    "Tan": Operation(lambda x: x.tan()),
    "Atan": Operation(lambda x: x.atan()),
    "Tanh": Operation(lambda x: x.tanh()),
    "Sigmoid": Operation(lambda x: x.sigmoid()),
    "Erf": Operation(lambda x: x.erf()),
    "Relu": Operation(lambda x: x.relu()),
    "LeakyRelu": Operation(lambda x, *, alpha=ALPHA: functional.leaky_relu(x, alpha)),
    "Elu": Operation(_elu),
    "Selu": Operation(_selu),
    "Gelu": Operation(_gelu),
    "Softplus": Operation(_softplus),
    "Softmax": Operation(_softmax),
    "Clip": Operation(_clip, constant=(1, 2)),
    "Min": _folded(torch.minimum),
    "Max": _folded(torch.maximum),
    "Sum": _folded(torch.add),
    "Mean": Operation(_mean),
    "Equal": Operation(lambda a, b: a == b),
    "Greater": Operation(lambda a, b: a > b),
    "GreaterOrEqual": Operation(lambda a, b: a >= b),
    "Less": Operation(lambda a, b: a < b),
    "LessOrEqual": Operation(lambda a, b: a <= b),
    "And": Operation(lambda a, b: a & b),
    "Or": Operation(lambda a, b: a | b),
    "Not": Operation(lambda x: ~x),
    "Where": Operation(lambda condition, a, b: torch.where(condition, a, b)),
    "MatMul": Operation(lambda a, b: a @ b),
    "Gemm": Operation(_gemm),
    "Einsum": Operation(lambda *tensors, equation: torch.einsum(equation, *tensors)),
    "Conv": Operation(_conv),
    "BatchNormalization": Operation(_batch_normalization),
    "LayerNormalization": Operation(_layer_normalization),
    "Dropout": Operation(_dropout, constant=(1, 2)),
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceSumSquare": _reduced(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep)),
    "ReduceL1": _reduced(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduced(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep).sqrt()),
    "Concat": Operation(lambda *tensors, axis: torch.cat(tensors, axis)),
    "Split": Operation(_split, constant=(1,)),
    "Slice": Operation(_slice, constant=(1, 2, 3, 4)),
    "Gather": Operation(_gather),
    "Reshape": Operation(_reshape, constant=(1,)),
    "Flatten": Operation(_flatten),
    "Transpose": Operation(_transpose),
    "Squeeze": Operation(_squeeze, constant=(1,)),
    "Unsqueeze": Operation(_unsqueeze, constant=(1,)),
    "Expand": Operation(_expand, constant=(1,)),
    "Identity": Operation(lambda x: x),
    "Cast": Operation(_cast),
    "Constant": Operation(_constant),
    "ConstantOfShape": Operation(_constant_of_shape, constant=(0,)),
    "Shape": Operation(_shape),
}
