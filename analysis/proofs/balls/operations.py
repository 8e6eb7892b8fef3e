"""Each elementary operation of a graph on balls."""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from flint import arb
from torch import Tensor

from analysis.proofs.balls.ball import Balls, Truths, array_of, each, exact, full
from analysis.proofs.balls.elementary import ELEMENTARY
from analysis.proofs.deposits import DEPOSITS, layers, pile
from analysis.proofs.intervals.operations import MOVES, SCATTERS, SPLITS, STEPS, aten


class UnreadableError(Exception):
    """A graph holds an operation that has no form in ball arithmetic here."""


def constant(tensor: Tensor) -> Any:
    if tensor.dtype == torch.bool:
        known = tensor.numpy()
        return Truths(known, known, np.zeros_like(known))
    if not tensor.is_floating_point():
        return tensor  # indices
    return Balls(exact(tensor))


def as_balls(operand: Any) -> Balls:
    if isinstance(operand, Balls):
        return operand
    if isinstance(operand, Truths):
        return _where(operand, Balls(full(1)), Balls(full(0)))
    if isinstance(operand, Tensor):
        return Balls(exact(operand))
    return Balls(full(operand))


def _slope(operand: Balls) -> np.ndarray:
    return full(0) if operand.slope is None else operand.slope


def _combined(a: Balls, b: Balls, value: np.ndarray, slope: Callable[[], np.ndarray]) -> Balls:
    return Balls(value, None if a.slope is None and b.slope is None else np.broadcast_to(slope(), np.shape(value)))


def _add(a: Any, b: Any, *, alpha: float = 1) -> Balls:
    a, b = as_balls(a), as_balls(b)
    factor = arb(alpha)
    return _combined(a, b, a.value + factor * b.value, lambda: _slope(a) + factor * _slope(b))


def _sub(a: Any, b: Any, *, alpha: float = 1) -> Balls:
    return _add(a, b, alpha=-alpha)


def _mul(a: Any, b: Any) -> Any:
    if isinstance(a, Truths) and isinstance(b, Truths):
        return _both(a, b)
    same, a, b = a is b, as_balls(a), as_balls(b)
    value = each(lambda number: number**2, a.value) if same else a.value * b.value
    return _combined(a, b, value, lambda: _slope(a) * b.value + a.value * _slope(b))


def _div(a: Any, b: Any) -> Balls:
    return _mul(as_balls(a), as_balls(b).through(lambda u: 1 / u, lambda u: -1 / u**2))


def _matmul(a: Any, b: Any) -> Balls:
    a, b = as_balls(a), as_balls(b)
    return _combined(a, b, a.value @ b.value, lambda: sum(_products(a, b), start=np.zeros((), dtype=object)))


def _products(a: Balls, b: Balls) -> list[np.ndarray]:
    """Return the terms of the derivative of a product of matrices that are not 0."""
    terms = [] if a.slope is None else [a.slope @ b.value]
    return terms if b.slope is None else [*terms, a.value @ b.slope]


def _sum(x: Any, dims: list[int] | None = None, keepdim: bool = False) -> Balls:
    axes = tuple(dims) if dims else None
    return as_balls(x).moved(lambda numbers: array_of(_summed(numbers, axes, keepdim)))


def _summed(numbers: np.ndarray, axes: tuple[int, ...] | None, keepdim: bool) -> Any:
    """Return the sums along ``axes``, of nothing the ball 0."""
    return np.sum(numbers, axis=axes, keepdims=keepdim, initial=arb(0))  # pyrefly: ignore


def _mean(x: Any, dims: list[int] | None = None, keepdim: bool = False) -> Balls:
    total = _sum(x, dims, keepdim)
    count = as_balls(x).value.size // max(1, total.value.size)
    return _div(total, count)


def _power(x: Any, exponent: float) -> Balls:
    if float(exponent).is_integer():
        whole = int(exponent)
        return as_balls(x).through(
            lambda u: _whole_power(u, whole), lambda u: whole * _whole_power(u, whole - 1) if whole else arb(0)
        )
    p = arb(float(exponent))
    if exponent == 0.5:
        return as_balls(x).through(arb.sqrt, lambda u: 1 / (2 * u.sqrt()))
    return as_balls(x).through(lambda u: u**p, lambda u: p * u ** (p - 1))


def _whole_power(u: arb, exponent: int) -> arb:
    """Return ``u`` to a whole power, by products where it may be 0: arb's own power of such a ball is NaN."""
    if exponent < 0 or not u.contains(0) or u.is_zero():
        return u**exponent
    found = arb(1)
    for bit in f"{exponent:b}":
        found = found * found * (u if bit == "1" else 1)
    return found


def _maximum(a: Any, b: Any) -> Balls:
    return _where(_greater(a, b), as_balls(a), as_balls(b))


def _minimum(a: Any, b: Any) -> Balls:
    return _where(_greater(b, a), as_balls(a), as_balls(b))


def _extreme(choose: Callable[[Any, Any], Balls]) -> Callable[..., Balls]:
    def operation(x: Any, dims: list[int] | None = None, keepdim: bool = False) -> Balls:
        x = as_balls(x)
        for axis in sorted(dims or range(x.value.ndim)):
            parts = [
                x.moved(lambda numbers, axis=axis, place=place: np.take(numbers, [place], axis=axis))
                for place in range(x.value.shape[axis])
            ]
            x = reduce(choose, parts)
        if keepdim:
            return x
        return x.moved(lambda numbers: np.squeeze(numbers, axis=tuple(dims or range(numbers.ndim))))

    return operation


def _clamp(x: Any, least: float | None = None, most: float | None = None) -> Balls:
    x = x if least is None else _maximum(x, least)
    return as_balls(x if most is None else _minimum(x, most))


def _compared(a: Any, b: Any, holds: Callable[[arb, arb], bool], fails: Callable[[arb, arb], bool]) -> Truths:
    first, second = np.broadcast_arrays(as_balls(a).value, as_balls(b).value)
    sure, fail = _each_pair(holds, first, second), _each_pair(fails, first, second)
    if all(as_balls(one).slope is None for one in (a, b)):  # what does not change has no edge
        return Truths(sure, ~fail, np.zeros_like(sure))
    return Truths(sure, ~fail, _each_pair(lambda u, v: not (u > v or u < v), first, second))


def _greater(a: Any, b: Any) -> Truths:
    return _compared(a, b, operator.gt, operator.le)


def _greater_or_equal(a: Any, b: Any) -> Truths:
    return _compared(a, b, operator.ge, operator.lt)


def _equal(a: Any, b: Any) -> Truths:
    return _compared(a, b, lambda u, v: (u - v).is_zero(), lambda u, v: u > v or u < v)


def _not(a: Any) -> Truths:
    return Truths(~a.possible, ~a.sure, a.edge)


def _both(a: Truths, b: Truths) -> Truths:
    return Truths(a.sure & b.sure, a.possible & b.possible, a.edge | b.edge)


def _either(a: Truths, b: Truths) -> Truths:
    return Truths(a.sure | b.sure, a.possible | b.possible, a.edge | b.edge)


def _where(condition: Any, a: Any, b: Any) -> Balls:
    """Return ``a`` where the condition holds, else ``b``: both together where that is open, and no slope on its edge."""
    if isinstance(condition, Tensor):
        condition = constant(condition.bool())
    a, b = as_balls(a), as_balls(b)
    shape = np.broadcast_shapes(condition.sure.shape, a.value.shape, b.value.shape)
    sure, possible, edge = (np.broadcast_to(one, shape) for one in (condition.sure, condition.possible, condition.edge))
    value = _chosen(sure, possible, np.broadcast_to(a.value, shape), np.broadcast_to(b.value, shape))
    if a.slope is None and b.slope is None and not edge.any():
        return Balls(value)
    first, second = (np.broadcast_to(_slope(one), shape) for one in (a, b))
    slope = _chosen(sure, possible, first, second)
    meet = _same(first, second) & _same(np.broadcast_to(a.value, shape), np.broadcast_to(b.value, shape))
    return Balls(value, _chosen(~edge | meet, ~edge | meet, slope, full(arb("nan"))))


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _each_pair(lambda u, v: (u - v).is_zero(), a, b)


def _each_pair(holds: Callable[[arb, arb], bool], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.frompyfunc(holds, 2, 1)(a, b)).astype(bool)


def _chosen(sure: np.ndarray, possible: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    def one(surely: bool, perhaps: bool, first: arb, second: arb) -> arb:
        return first if surely else first.union(second) if perhaps else second

    made = np.empty(np.broadcast_shapes(sure.shape, a.shape, b.shape), dtype=object)
    made[...] = np.frompyfunc(one, 4, 1)(sure, possible, a, b)
    return made


def _sign(x: Any) -> Balls:
    positive, negative = _greater(x, 0), _greater(0, x)
    return _where(positive, Balls(full(1)), _where(negative, Balls(full(-1)), Balls(full(0))))


def _moves(target: Any, operands: int = 1) -> Callable[..., Any]:
    """Return the operation that only moves numbers, as ``target`` moves the places of its first ``operands`` tensors."""

    def operation(*args: Any, **kwargs: Any) -> Any:
        is_listed = isinstance(args[0], list | tuple)
        parts, rest = (list(args[0]), args[1:]) if is_listed else (list(args[:operands]), args[operands:])
        if all(isinstance(part, Truths) for part in parts):
            sides = [
                _placed(target, [getattr(part, side) for part in parts], rest, kwargs, is_listed) for side in SIDES
            ]
            return [Truths(*one) for one in zip(*sides, strict=True)] if isinstance(sides[0], list) else Truths(*sides)
        balls = [as_balls(part) for part in parts]
        value = _placed(target, [one.value for one in balls], rest, kwargs, is_listed)
        if all(one.slope is None for one in balls):
            return [Balls(one) for one in value] if isinstance(value, list) else Balls(value)
        slopes = [np.broadcast_to(_slope(one), one.value.shape) for one in balls]
        slope = _placed(target, slopes, rest, kwargs, is_listed)
        return (
            [Balls(*both) for both in zip(value, slope, strict=True)]
            if isinstance(value, list)
            else Balls(value, slope)
        )

    return operation


SIDES = ("sure", "possible", "edge")


def _placed(target: Any, arrays: list[np.ndarray], rest: Any, kwargs: Any, is_listed: bool) -> Any:
    places, start = [], 0
    for array in arrays:
        places.append(torch.arange(start, start + array.size).reshape(array.shape))
        start += array.size
    numbers = (
        np.concatenate([np.asarray(array).reshape(-1) for array in arrays]) if arrays else np.empty(0, dtype=object)
    )
    found = target(places, *rest, **kwargs) if is_listed else target(*places, *rest, **kwargs)
    return (
        [numbers[one.numpy()] for one in found] if isinstance(found, list | tuple) else array_of(numbers[found.numpy()])
    )


def _copied(target: Tensor, source: Tensor) -> Tensor:
    return source.expand(target.shape)


def _filled(number: float) -> Callable[..., Balls]:
    return lambda x, *_: Balls(np.broadcast_to(full(number), as_balls(x).value.shape))


def _elu(x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Balls:
    left = _mul(_mul(x, input_scale).through(arb.expm1, arb.exp), float(alpha))
    return _mul(_where(_greater(x, 0), as_balls(x), left), float(scale))


def _angle(y: Any, x: Any) -> Balls:
    y, x = as_balls(y), as_balls(x)

    def factor(v: arb, u: arb) -> arb:
        """Return 1 / (x^2 + y^2) off the cut, where the angle jumps."""
        return 1 / (v**2 + u**2) if u > 0 or v > 0 or v < 0 else arb("nan")

    inverse = np.frompyfunc(factor, 2, 1)(y.value, x.value)
    value = array_of(np.frompyfunc(arb.atan2, 2, 1)(y.value, x.value))
    return _combined(y, x, value, lambda: (x.value * _slope(y) - y.value * _slope(x)) * inverse)


def _deposited(target: Any) -> Callable[..., Balls]:
    def operation(x: Any, *args: Any) -> Balls:
        rest = list(args)
        x, source = as_balls(x), as_balls(rest.pop(DEPOSITS[target][0]))
        piled = layers(target, torch.Size(x.value.shape), torch.Size(source.value.shape), rest)
        return _sum(PILED(x, source, as_balls(0.0), piled), [0])

    return operation


PILED = _moves(pile, operands=3)
OPERATIONS: dict[Any, Callable[..., Any]] = {
    **{target: _moves(target) for target in [*MOVES, *SPLITS]},
    **{target: _moves(target, operands=2) for target in SCATTERS},
    aten.copy.default: _moves(_copied, operands=2),
    aten._to_copy.default: as_balls,
    aten.full_like.default: lambda x, number: Balls(np.broadcast_to(full(number), as_balls(x).value.shape)),
    aten.zeros_like.default: _filled(0),
    aten.ones_like.default: _filled(1),
    aten.neg.default: lambda x: _mul(x, -1),
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar), _add),
    **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar), _sub),
    aten.rsub.Scalar: lambda a, b: _sub(b, a),
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), _mul),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), _div),
    **dict.fromkeys((aten.mm.default, aten.bmm.default), _matmul),
    aten.addmm.default: lambda bias, a, b: _add(bias, _matmul(a, b)),
    **dict.fromkeys((aten.sum.default, aten.sum.dim_IntList), _sum),
    **dict.fromkeys((aten.mean.default, aten.mean.dim), _mean),
    aten.amax.default: _extreme(_maximum),
    aten.amin.default: _extreme(_minimum),
    aten.maximum.default: _maximum,
    aten.minimum.default: _minimum,
    **dict.fromkeys((aten.clamp.default, aten.clamp_min.default), _clamp),
    aten.clamp_max.default: lambda x, most: _clamp(x, None, most),
    aten.hardtanh.default: lambda x, least=-1.0, most=1.0: _clamp(x, least, most),
    aten.relu.default: lambda x: _clamp(x, 0.0),
    aten.leaky_relu.default: lambda x, slope=0.01: _where(_greater(x, 0), x, _mul(x, slope)),
    aten.abs.default: lambda x: _where(_greater(x, 0), x, _mul(x, -1)),
    **dict.fromkeys((aten.sign.default, aten.sgn.default), _sign),
    aten.pow.Tensor_Scalar: _power,
    aten.square.default: lambda x: _power(x, 2),
    aten.sqrt.default: lambda x: _power(x, 0.5),
    aten.rsqrt.default: lambda x: _div(1, _power(x, 0.5)),
    aten.reciprocal.default: lambda x: _div(1, x),
    **{target: lambda x, rules=rules: as_balls(x).through(*rules) for target, rules in ELEMENTARY.items()},
    aten.elu.default: _elu,
    aten.atan2.default: _angle,
    **{target: _deposited(target) for target in DEPOSITS},
    aten.where.self: _where,
    **dict.fromkeys((aten.gt.Scalar, aten.gt.Tensor), _greater),
    **dict.fromkeys((aten.lt.Scalar, aten.lt.Tensor), lambda a, b: _greater(b, a)),
    **dict.fromkeys((aten.ge.Scalar, aten.ge.Tensor), _greater_or_equal),
    **dict.fromkeys((aten.le.Scalar, aten.le.Tensor), lambda a, b: _greater_or_equal(b, a)),
    **dict.fromkeys((aten.eq.Scalar, aten.eq.Tensor), _equal),
    **dict.fromkeys((aten.ne.Scalar, aten.ne.Tensor), lambda a, b: _not(_equal(a, b))),
    **dict.fromkeys((aten.logical_and.default, aten.bitwise_and.Tensor), _both),
    **dict.fromkeys((aten.logical_or.default, aten.bitwise_or.Tensor), _either),
    **dict.fromkeys((aten.logical_not.default, aten.bitwise_not.default), _not),
}

COMPARISONS = [
    getattr(getattr(aten, name), kind) for name in ("gt", "lt", "ge", "le", "eq", "ne") for kind in ("Scalar", "Tensor")
]
# What is not continuous, and what may choose otherwise than continuously.
JUMPING = frozenset([*COMPARISONS, *STEPS, aten.sign.default, aten.sgn.default, aten.where.self, aten.atan2.default])
