"""Each elementary operation of a graph on jets of intervals."""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx

from analysis.proofs.deposits import DEPOSITS, layers, pile
from analysis.proofs.intervals.elementary import ELEMENTARY
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.intervals.jets import Jet, Rule, Truth, exceeds, rearranged, where
from analysis.proofs.intervals.piecewise import angle, elu, steps

aten = torch.ops.aten
# What says where and how a tensor is stored changes no number.
STORAGE = {"layout", "device", "pin_memory", "memory_format", "non_blocking"}


class UnboundedError(Exception):
    """A function cannot be bounded over boxes: it cannot be traced, or an operation in it has no interval form."""


def constant(result: Any) -> Any:
    """Return what does not depend on the state: a jet of numbers, or the tensor itself where it is of integers or truths."""
    if not isinstance(result, Tensor):
        return result
    if result.is_floating_point() or result.is_complex():
        if result.is_complex():
            raise UnboundedError("it holds complex numbers")
        return Jet.constant(result.detach().double())  # exact; what is computed with it shows in the dtype of its node
    return result


def as_jet(operand: Any) -> Jet:
    """Return a number, a tensor or a truth (1 or 0) as a jet."""
    if isinstance(operand, Jet):
        return operand
    if isinstance(operand, Truth):
        return where(operand, as_jet(1.0), as_jet(0.0))
    number = torch.as_tensor(operand, dtype=torch.float64)
    given = operand.tolist() if isinstance(operand, Tensor) else operand
    # Python compares its integers with floats exactly.
    if number.tolist() != given:
        raise UnboundedError(f"the number {operand} is not exact in float64")
    return Jet.constant(number)


def _truth(operand: Any) -> Truth:
    if isinstance(operand, Jet):
        raise TypeError("expected truths, got numbers")
    if isinstance(operand, Tensor) and operand.dtype != torch.bool:
        raise TypeError("expected truths, got integers")
    return operand if isinstance(operand, Truth) else Truth.constant(operand)


def _add(a: Any, b: Any, *, alpha: float = 1) -> Jet:
    return as_jet(a) + (as_jet(b) if alpha == 1 else as_jet(b) * as_jet(alpha))


def _sub(a: Any, b: Any, *, alpha: float = 1) -> Jet:
    if a is b and isinstance(a, Jet) and alpha == 1:
        # Where the difference is not defined, its slope is unknown, too.
        return a.chained(_zero(a.value), _zero, _zero)
    return as_jet(a) - (as_jet(b) if alpha == 1 else as_jet(b) * as_jet(alpha))


def _zero(u: Interval) -> Interval:
    """Return 0 where the numbers are known."""
    return Interval.point(torch.zeros_like(u.low)).where_known(~(u.low.isnan() | u.high.isnan()))


def _mul(a: Any, b: Any) -> Any:
    if isinstance(a, Truth) and isinstance(b, Truth):
        return a & b
    return a.square() if a is b and isinstance(a, Jet) else as_jet(a) * as_jet(b)


def _addmm(bias: Jet, a: Jet, b: Jet) -> Jet:
    return bias + a.matmul(b)


def _power(x: Jet, exponent: float) -> Jet:
    if exponent == 2:
        return x.square()
    p = float(exponent)

    def lowered(u: Interval, by: int) -> Interval:
        """Return u^(p - by)."""
        if Fraction(p) - by == Fraction(p - by):
            return u.power(p - by)
        if p.is_integer():
            raise TypeError("expected an exponent whose neighbours are floats")
        # Of one u >= 0, the powers rise or fall with the exponent.
        return u.power(math.nextafter(p - by, -math.inf)).hull(u.power(math.nextafter(p - by, math.inf)))

    def multiple(factor: Interval, by: int) -> Rule:
        number = float(factor.low)
        if number == float(factor.high):
            return lambda u: (lowered(u, by) if number else u.power(0)).scaled(number)
        return lambda u: lowered(u, by) * factor.moved(lambda bound: bound.to(u.low.device))

    first = Interval.point(torch.tensor(p, dtype=torch.float64))
    second = first * (first - Interval.point(torch.tensor(1.0, dtype=torch.float64)))
    return x.chained(x.value.power(p), multiple(first, 1), multiple(second, 2))


def _sum(x: Any, dims: list[int] | None = None, keepdim: bool = False) -> Jet:
    jet = as_jet(x)
    last = _from_the_end(jet, dims)
    return jet.linear(lambda part: part.sum(last, keepdim))


def _mean(x: Jet, dims: list[int] | None = None, keepdim: bool = False) -> Jet:
    count = math.prod(x.shape[dim] for dim in _from_the_end(x, dims))
    return _sum(x, dims, keepdim) / as_jet(float(count))


def _from_the_end(jet: Jet, dims: list[int] | None) -> list[int]:
    """Return ``dims`` counted from the last dimension, all where none is given."""
    rank = len(jet.shape)
    return [dim - rank if dim >= 0 else dim for dim in (dims or range(rank))]


def _amax(x: Jet, dims: list[int] | None = None, keepdim: bool = False) -> Jet:
    for dim in sorted(_from_the_end(x, dims)):
        slices = rearranged(lambda numbers, dim=dim: numbers.unbind(dim), [x])
        (x,) = rearranged(lambda numbers, dim=dim: numbers.unsqueeze(dim), [reduce(Jet.maximum, slices)])
    return x if keepdim else rearranged(lambda numbers: numbers.squeeze(_from_the_end(x, dims)), [x])[0]


def _amin(x: Jet, dims: list[int] | None = None, keepdim: bool = False) -> Jet:
    return -_amax(-x, dims, keepdim)


def _clamp(x: Jet, least: float | None = None, most: float | None = None) -> Jet:
    x = x if least is None else x.maximum(as_jet(least))
    return x if most is None else x.minimum(as_jet(most))


def _leaky_relu(x: Jet, slope: float = 0.01) -> Jet:
    scaled = x * as_jet(slope)
    return x.maximum(scaled) if slope <= 1 else x.minimum(scaled)


def _sign(x: Jet) -> Jet:
    zero = as_jet(0.0)
    return where(exceeds(x, zero), as_jet(1.0), where(exceeds(zero, x), as_jet(-1.0), zero))


def _greater(a: Any, b: Any) -> Truth:
    return exceeds(as_jet(a), as_jet(b))


def _equal(a: Any, b: Any) -> Truth:
    return ~_greater(a, b) & ~_greater(b, a)


def _either(a: Any, b: Any) -> Truth:
    return ~(~_truth(a) & ~_truth(b))


def _elementary(value: Rule, slope: Rule, curvature: Rule) -> Callable[[Any], Jet]:
    """Return the operation on jets of a function of one number, given it and its two derivatives."""
    return lambda x: as_jet(x).chained(value(as_jet(x).value), slope, curvature)


def _moves(function: Callable[..., Any], operands: int = 1, several: bool = False) -> Callable[..., Any]:
    """Return the operation on jets that only moves elements as ``function`` does those of its first ``operands`` tensors.

    A list of tensors counts as one operand; ``several``: it returns a list.
    """

    def operation(*args: Any, **kwargs: Any) -> Any:
        listed = isinstance(args[0], list | tuple)
        parts, rest = (list(args[0]), args[1:]) if listed else (list(args[:operands]), args[operands:])
        is_truth = all(isinstance(part, Truth) for part in parts)
        jets = [_as_number(part) if is_truth else as_jet(part) for part in parts]
        results = rearranged(
            lambda *numbers: (
                function(list(numbers), *rest, **kwargs) if listed else function(*numbers, *rest, **kwargs)
            ),
            jets,
        )
        made = [_as_truth(result, parts) for result in results] if is_truth else results
        return made if several else made[0]

    return operation


def _as_number(truth: Truth) -> Jet:
    return Jet.flat(Interval(truth.sure.double(), truth.possible.double()))


def _as_truth(jet: Jet, parts: list[Truth]) -> Truth:
    order, dim = (max(getattr(part, name) for part in parts) for name in ("order", "dim"))
    return Truth(jet.value.low > 0, jet.value.high > 0, order, dim)


def _copied(target: Tensor, source: Tensor) -> Tensor:
    return source.expand(target.shape)


def _deposited(target: Any) -> Callable[..., Jet]:
    def operation(x: Any, *args: Any) -> Jet:
        rest = list(args)
        x, source = as_jet(x), as_jet(rest.pop(DEPOSITS[target][0]))
        piled = layers(target, x.shape, source.shape, rest)
        return _sum(_moves(pile, operands=3)(x, source, as_jet(0.0), piled), [0])

    return operation


MOVES = [
    aten.view.default,
    aten._unsafe_view.default,
    aten.expand.default,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.index.Tensor,
    aten.index_select.default,
    aten.gather.default,
    aten.unfold.default,
    aten.diagonal.default,
    aten.flip.default,
    aten.repeat.default,
    aten.roll.default,
    aten.cat.default,
    aten.stack.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
]


SPLITS = [aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int]


SCATTERS = [aten.select_scatter.default, aten.slice_scatter.default]


STEPS = {
    aten.floor.default: torch.floor,
    aten.ceil.default: torch.ceil,
    aten.trunc.default: torch.trunc,
    aten.round.default: torch.round,
}


COUNTS = {aten.sum.default, aten.sum.dim_IntList}


def other_kind(node: fx.Node, are_truths: list[bool]) -> str | None:
    """Return why the results at ``node``, truths or real numbers, are not what PyTorch computes there, as its dtype tells; or None.

    Sums of truths are truths there, what is stored in a tensor of integers is rounded, and so is what is computed in float32. A count
    alone is an integer that is surely exact.
    """
    traced = node.meta["val"]
    for one, is_truth in zip(traced if isinstance(traced, list | tuple) else [traced], are_truths, strict=True):
        is_count = one.dtype == torch.int64 and node.target in COUNTS
        if one.dtype != (torch.bool if is_truth else torch.float64) and not is_count:
            return f"the operation {node.target} computes in {str(one.dtype).removeprefix('torch.')}"
    return None


OPERATIONS: dict[Any, Callable[..., Any]] = {
    **{target: _moves(target) for target in MOVES},
    **{target: _moves(target, several=True) for target in SPLITS},
    **{target: _moves(target, operands=2) for target in SCATTERS},
    aten.copy.default: _moves(_copied, operands=2),
    aten._to_copy.default: as_jet,
    aten.full_like.default: lambda x, number: Jet.constant(torch.full(x.shape, float(number), dtype=torch.float64)),
    aten.zeros_like.default: lambda x: Jet.constant(torch.zeros(x.shape, dtype=torch.float64)),
    aten.ones_like.default: lambda x: Jet.constant(torch.ones(x.shape, dtype=torch.float64)),
    aten.neg.default: lambda x: -as_jet(x),
    aten.add.Tensor: _add,
    aten.add.Scalar: _add,
    aten.sub.Tensor: _sub,
    aten.sub.Scalar: _sub,
    aten.rsub.Scalar: lambda a, b: _sub(b, a),
    aten.mul.Tensor: _mul,
    aten.mul.Scalar: _mul,
    aten.div.Tensor: lambda a, b: as_jet(a) / as_jet(b),
    aten.div.Scalar: lambda a, b: as_jet(a) / as_jet(b),
    aten.mm.default: Jet.matmul,
    aten.bmm.default: Jet.matmul,
    aten.addmm.default: _addmm,
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum,
    aten.mean.default: _mean,
    aten.mean.dim: _mean,
    aten.amax.default: _amax,
    aten.amin.default: _amin,
    aten.maximum.default: lambda a, b: as_jet(a).maximum(as_jet(b)),
    aten.minimum.default: lambda a, b: as_jet(a).minimum(as_jet(b)),
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: lambda x, most: _clamp(x, None, most),
    aten.hardtanh.default: lambda x, least=-1.0, most=1.0: _clamp(x, least, most),
    aten.relu.default: lambda x: _clamp(x, 0.0),
    aten.leaky_relu.default: _leaky_relu,
    aten.abs.default: Jet.abs,
    aten.sign.default: _sign,
    aten.sgn.default: _sign,
    aten.pow.Tensor_Scalar: _power,
    aten.square.default: Jet.square,
    aten.sqrt.default: lambda x: _power(x, 0.5),
    aten.rsqrt.default: lambda x: _power(x, -0.5),
    aten.reciprocal.default: lambda x: as_jet(1.0) / x,
    **{target: _elementary(*rules) for target, rules in ELEMENTARY.items()},
    aten.elu.default: elu,
    **{target: steps(function) for target, function in STEPS.items()},
    aten.atan2.default: lambda y, x: angle(as_jet(y), as_jet(x)),
    **{target: _deposited(target) for target in DEPOSITS},
    aten.where.self: lambda condition, a, b: where(_truth(condition), as_jet(a), as_jet(b)),
    **dict.fromkeys((aten.gt.Scalar, aten.gt.Tensor), _greater),
    **{operation: lambda a, b: _greater(b, a) for operation in (aten.lt.Scalar, aten.lt.Tensor)},
    **{operation: lambda a, b: ~_greater(b, a) for operation in (aten.ge.Scalar, aten.ge.Tensor)},
    **{operation: lambda a, b: ~_greater(a, b) for operation in (aten.le.Scalar, aten.le.Tensor)},
    **dict.fromkeys((aten.eq.Scalar, aten.eq.Tensor), _equal),
    **{operation: lambda a, b: ~_equal(a, b) for operation in (aten.ne.Scalar, aten.ne.Tensor)},
    **{op: lambda a, b: _truth(a) & _truth(b) for op in (aten.logical_and.default, aten.bitwise_and.Tensor)},
    **dict.fromkeys((aten.logical_or.default, aten.bitwise_or.Tensor), _either),
    **{op: lambda a: ~_truth(a) for op in (aten.logical_not.default, aten.bitwise_not.default)},
}
