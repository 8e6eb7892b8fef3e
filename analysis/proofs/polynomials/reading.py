"""A function's graph as quotients of polynomials with exact rational coefficients, with logarithms besides, or the first operation
that is none of these.

The function meant is the one that the graph's operations define in real arithmetic, with its constants as they are.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from flint import fmpq
from torch import Tensor, fx

from analysis.proofs.balls.ball import array_of, each
from analysis.proofs.intervals.operations import MOVES, SCATTERS, SPLITS, STORAGE, aten
from analysis.proofs.polynomials.logarithms import WithLogarithms
from analysis.proofs.polynomials.polynomial import MOST_DEGREE, BeyondSquaresError, Quotient, Ring, rational

# Quotients are made one number at a time.
MOST_COORDINATES, MOST_CONSTANTS = 100, 50_000


class Unread(Quotient):
    """A number that is no quotient of polynomials, as is what is computed with it."""

    def _unread(self, *_: object) -> "Unread":
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = _unread  # pyrefly: ignore
    __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _unread  # pyrefly: ignore
    __pow__ = __neg__ = reciprocal = derivative = _unread  # pyrefly: ignore


def quotients(
    graph: fx.GraphModule, inputs: list[Quotient], *, leave_unread: bool = False, logarithms: bool = False
) -> np.ndarray:
    """Return the values of the graph of one state (1, n), less the batch, at the state ``inputs`` (n,): () or (n,) of ``Quotient``.

    Raises BeyondSquaresError at the first operation that makes no quotient of polynomials, unless its numbers are to be left ``Unread``.
    Where ``logarithms`` are allowed, a value may be ``WithLogarithms``.
    """
    if len(inputs) > MOST_COORDINATES:
        raise BeyondSquaresError(f"it is a function of {len(inputs)} coordinates")
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target not in READ and not leave_unread:
            raise BeyondSquaresError(f"the operation {node.target} makes no polynomial")
    reader = Reader(inputs[0].ring, logarithms=logarithms)
    known: dict[fx.Node, Any] = {}
    for node in graph.graph.nodes:
        arguments: Any = fx.map_arg((node.args, node.kwargs), lambda argument: known[argument])
        args, kwargs = arguments
        if node.op == "placeholder":
            state = np.empty((1, len(inputs)), dtype=object)
            state[0] = inputs
            known[node] = state
        elif node.op == "get_attr":
            known[node] = operator.attrgetter(str(node.target))(graph)
        elif node.op == "output":
            return array_of(reader.array(args[0])[0])
        elif node.target is operator.getitem:
            known[node] = operator.getitem(*args)
        else:
            try:
                known[node] = _operation(reader, node, args, kwargs)
            except BeyondSquaresError:
                if not leave_unread or not isinstance(node.meta["val"], Tensor):
                    raise
                known[node] = np.full(node.meta["val"].shape, Unread(reader.ring, inputs[0].numerator), dtype=object)
    raise BeyondSquaresError("the graph has no output")


def _operation(reader: "Reader", node: fx.Node, args: Any, kwargs: Any) -> Any:
    made = node.meta["val"]
    if any(one.dtype != torch.float64 for one in (made if isinstance(made, list | tuple) else [made])):
        raise BeyondSquaresError(f"the operation {node.target} computes in another type than float64")
    options = {name: value for name, value in kwargs.items() if name not in STORAGE | {"dtype"}}
    if node.target not in OPERATIONS:
        raise BeyondSquaresError(f"the operation {node.target} makes no polynomial")
    try:
        return OPERATIONS[node.target](reader, *args, **options)
    except (TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise BeyondSquaresError(f"the operation {node.target} is not read with these arguments") from error


class Reader:
    """The operations on arrays of quotients of one ring."""

    def __init__(self, ring: Ring, *, logarithms: bool = False) -> None:
        self.ring, self.logarithms = ring, logarithms

    def array(self, operand: Any) -> np.ndarray:
        """Return quotients, a tensor of floats or integers, or one number as an array of quotients."""
        if isinstance(operand, np.ndarray):
            return operand
        if isinstance(operand, Tensor):
            if operand.is_complex() or operand.dtype == torch.bool:
                raise TypeError("expected real numbers")
            if operand.numel() > MOST_CONSTANTS:
                raise BeyondSquaresError(f"it computes with {operand.numel()} constants")
            return each(self.number, np.array(operand.detach().tolist(), dtype=object).reshape(operand.shape))
        return array_of(self.number(operand))

    def number(self, number: Any) -> Quotient:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError("expected a number")
        if float(number) != number:
            raise TypeError("expected a number that is exact in float64")
        return self.ring.constant(rational(number))

    def add(self, a: Any, b: Any, *, alpha: float = 1) -> np.ndarray:
        return array_of(self.array(a) + self.array(b) * self.array(alpha))

    def sub(self, a: Any, b: Any, *, alpha: float = 1) -> np.ndarray:
        return self.add(a, b, alpha=-alpha)

    def mul(self, a: Any, b: Any) -> np.ndarray:
        return array_of(self.array(a) * self.array(b))

    def div(self, a: Any, b: Any) -> np.ndarray:
        return array_of(self.array(a) / self.array(b))

    def matmul(self, a: Any, b: Any) -> np.ndarray:
        return array_of(self.array(a) @ self.array(b))

    def addmm(self, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> np.ndarray:
        return self.add(self.mul(bias, beta), self.matmul(a, b), alpha=alpha)

    def sum(self, x: Any, dims: list[int] | None = None, keepdim: bool = False) -> np.ndarray:
        axes = tuple(dims) if dims else None
        zero = self.ring.constant(fmpq(0))
        return array_of(np.sum(self.array(x), axis=axes, keepdims=keepdim, initial=zero))  # pyrefly: ignore

    def mean(self, x: Any, dims: list[int] | None = None, keepdim: bool = False) -> np.ndarray:
        total = self.sum(x, dims, keepdim)
        return self.div(total, self.array(x).size // max(1, total.size))

    def product(self, x: Any, axis: int | None = None, keepdim: bool = False) -> np.ndarray:
        one = self.ring.constant(fmpq(1))
        return array_of(np.prod(self.array(x), axis=axis, keepdims=keepdim, initial=one))  # pyrefly: ignore

    def power(self, x: Any, exponent: float) -> np.ndarray:
        if not float(exponent).is_integer() or abs(exponent) > MOST_DEGREE:
            raise BeyondSquaresError(f"the power {exponent} makes no polynomial")
        return each(lambda one: one ** int(exponent), self.array(x))

    def logarithm(self, x: Any, more: int = 0) -> np.ndarray:
        """Return log(x + more)."""
        if not self.logarithms:
            raise BeyondSquaresError("a logarithm makes no polynomial")
        return each(WithLogarithms.of, self.add(x, more))

    def filled(self, x: Any, number: float) -> np.ndarray:
        return np.broadcast_to(self.array(number), self.array(x).shape)


def _moves(target: Any, operands: int = 1) -> Callable[..., Any]:
    """Return the operation that only moves numbers, as ``target`` moves the places of its first ``operands`` tensors."""

    def operation(reader: Reader, *args: Any, **kwargs: Any) -> Any:
        is_listed = isinstance(args[0], list | tuple)
        parts, rest = (list(args[0]), args[1:]) if is_listed else (list(args[:operands]), args[operands:])
        arrays = [reader.array(part) for part in parts]
        ends = np.cumsum([0, *(one.size for one in arrays)]).tolist()
        numbers = np.concatenate([one.reshape(-1) for one in arrays])
        places = [torch.arange(ends[i], ends[i + 1]).reshape(one.shape) for i, one in enumerate(arrays)]
        found = target(places, *rest, **kwargs) if is_listed else target(*places, *rest, **kwargs)
        if isinstance(found, list | tuple):
            return [array_of(numbers[one.numpy()]) for one in found]
        return array_of(numbers[found.numpy()])

    return operation


OPERATIONS: dict[Any, Callable[..., Any]] = {
    **{target: _moves(target) for target in [*MOVES, *SPLITS]},
    **{target: _moves(target, operands=2) for target in SCATTERS},
    aten.copy.default: _moves(lambda old, new: new.expand(old.shape), operands=2),
    aten._to_copy.default: Reader.array,
    aten.full_like.default: Reader.filled,
    aten.zeros_like.default: lambda reader, x: reader.filled(x, 0),
    aten.ones_like.default: lambda reader, x: reader.filled(x, 1),
    aten.neg.default: lambda reader, x: reader.mul(x, -1),
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar), Reader.add),
    **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar), Reader.sub),
    aten.rsub.Scalar: lambda reader, a, b: reader.sub(b, a),
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), Reader.mul),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), Reader.div),
    **dict.fromkeys((aten.mm.default, aten.bmm.default), Reader.matmul),
    aten.addmm.default: Reader.addmm,
    **dict.fromkeys((aten.sum.default, aten.sum.dim_IntList), Reader.sum),
    **dict.fromkeys((aten.mean.default, aten.mean.dim), Reader.mean),
    **dict.fromkeys((aten.prod.default, aten.prod.dim_int), Reader.product),
    aten.pow.Tensor_Scalar: Reader.power,
    aten.square.default: lambda reader, x: reader.power(x, 2),
    aten.log.default: Reader.logarithm,
    aten.log1p.default: lambda reader, x: reader.logarithm(x, 1),
    aten.reciprocal.default: lambda reader, x: reader.div(1, x),
}
READ = {*OPERATIONS, operator.getitem}
