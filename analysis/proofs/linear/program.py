"""A function's graph as a program of steps on vectors of numbers, with equal steps made once and what depends on no state worked out."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx

from analysis.proofs.intervals.interval import Interval, choose
from analysis.proofs.intervals.jets import Jet, Truth
from analysis.proofs.intervals.operations import (
    MOVES,
    OPERATIONS,
    SCATTERS,
    SPLITS,
    STORAGE,
    UnboundedError,
    as_jet,
    constant,
    other_kind,
)
from analysis.proofs.linear import relaxations
from analysis.proofs.linear.steps import (
    Choice,
    Constant,
    Elementary,
    Enclosed,
    Matrix,
    Moved,
    Product,
    States,
    Step,
    Weighted,
)

aten = torch.ops.aten


@dataclass(frozen=True)
class Numbers:
    """A tensor of real numbers that depend on the state: the result of the step at ``place``, in this ``shape``."""

    place: int
    shape: torch.Size


@dataclass(frozen=True, eq=False)
class Condition:
    """Truths that depend on the state: an operation on jets and truths, given as ``arguments`` to be found on boxes."""

    operation: Callable[..., Any]
    arguments: tuple[Any, ...]
    shape: torch.Size


class Builder:
    """Makes the steps of a program from the nodes of a graph."""

    def __init__(self, dim: int) -> None:
        self.steps: list[Step] = [States(dim)]
        self._places: dict[Any, int] = {}
        self._rectified: dict[int, int] = {}

    def evaluated(self, graph: fx.GraphModule) -> Any:
        """Return what the graph of one state (1, n) gives: numbers or a condition, or what depends on no state."""
        known: dict[fx.Node, Any] = {}
        for node in graph.graph.nodes:
            if node.op == "output":
                return known[node.args[0]]
            known[node] = self._evaluated(graph, node, known)
        raise UnboundedError("the graph has no output")

    def _evaluated(self, graph: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
        if node.op == "placeholder":
            return Numbers(0, torch.Size([1, self.steps[0].size]))
        if node.op == "get_attr":
            return constant(operator.attrgetter(str(node.target))(graph))
        inputs: Any = fx.map_arg((node.args, node.kwargs), lambda argument: known[argument])
        args, kwargs = inputs
        target: Any = node.target
        if target is operator.getitem:
            return operator.getitem(*args)
        options = {name: value for name, value in kwargs.items() if name not in STORAGE | {"dtype"}}
        inner = [known[argument] for argument in node.all_input_nodes]
        depends = any(isinstance(one, Numbers | Condition) for one in inner)
        if not depends and not any(isinstance(one, Jet | Truth) for one in inner):
            result = target(*args, **kwargs)
            if not inner or not result.is_floating_point():
                return constant(result)
        if target not in OPERATIONS or kwargs.get("dtype") not in (None, torch.float64):
            raise UnboundedError(f"the operation {target} has no interval form")
        rule = RULES.get(target) if depends else None
        try:
            found = rule(self, *args, **options) if rule else NotImplemented
            if found is NotImplemented:
                found = self._enclosed(node, args, options) if depends else OPERATIONS[target](*args, **options)
        except (TypeError, AttributeError) as error:
            raise UnboundedError(f"the operation {target} has no interval form with these arguments") from error
        parts = found if isinstance(found, list) else [found]
        words = other_kind(node, [isinstance(one, Truth | Condition) for one in parts])
        if words is not None:
            raise UnboundedError(words)
        return found

    def add(self, step: Step, key: tuple[Any, ...], shape: Any) -> Numbers:
        """Return the result of ``step``, made once for all that have one ``key``."""
        key = (type(step), step.sources, *key)
        if key not in self._places:
            self._places[key] = len(self.steps)
            self.steps.append(step)
        return Numbers(self._places[key], torch.Size(shape))

    def numbers(self, operand: Any) -> Numbers:
        """Return any operand as numbers."""
        if isinstance(operand, Numbers):
            return operand
        if isinstance(operand, Condition):
            return self.choice(operand, as_jet(1.0), as_jet(0.0))
        jet = as_jet(operand)
        value = jet.value.moved(lambda bound: bound.reshape(-1))
        return self.add(Constant(value), (_digits(value.low), _digits(value.high)), jet.shape)

    def moved(self, operation: Callable[..., Any], operands: list[Any]) -> list[Numbers]:
        """Return the results of an operation that moves the elements of the operands."""
        parts = [self.numbers(operand) for operand in operands]
        starts, tensors = 0, []
        for part in parts:
            size = part.shape.numel()
            tensors.append(torch.arange(starts, starts + size).reshape(part.shape))
            starts += size
        results = operation(*tensors)
        results = list(results) if isinstance(results, list | tuple) else [results]
        return [self._picked(parts, result) for result in results]

    def _picked(self, parts: list[Numbers], picks: Tensor) -> Numbers:
        index, shape = picks.flatten(), picks.shape
        places = tuple(part.place for part in parts)
        if len(places) == 1 and isinstance(self.steps[places[0]], Moved):
            inner: Any = self.steps[places[0]]
            places, index = inner.sources, inner.index[index]
        lengths = tuple(self.steps[place].size for place in places)
        start = 0
        for place, length in zip(places, lengths, strict=True):
            if len(index) and start <= int(index.min()) and int(index.max()) < start + length:
                places, lengths, index = (place,), (length,), index - start
                break
            start += length
        if len(places) == 1 and torch.equal(index, torch.arange(lengths[0])):
            return Numbers(places[0], shape)
        return self.add(Moved(places, index, lengths), (tuple(index.tolist()),), shape)

    def broadcast(self, *operands: Any) -> tuple[list[Any], torch.Size]:
        """Return the operands, each numbers or an interval (m, 1), expanded to their common shape, and that."""
        given = [operand if isinstance(operand, Numbers | Condition) else as_jet(operand) for operand in operands]
        shape = torch.broadcast_shapes(*(one.shape for one in given))
        made: list[Any] = []
        for one in given:
            if isinstance(one, Jet):
                made.append(
                    one.value.moved(
                        lambda bound, rank=len(one.shape): (
                            bound.reshape(bound.shape[bound.dim() - rank :]).expand(shape).reshape(-1, 1)
                        )
                    )
                )
            else:
                made.append(self.moved(lambda part: part.expand(shape), [one])[0])
        return made, shape

    def weighted(self, terms: list[tuple[Any, float]]) -> Numbers:
        """Return the sum of operands times numbers."""
        parts, shape = self.broadcast(*(operand for operand, _ in terms))
        bias: Any = None
        sources, factors = [], []
        for part, (_, factor) in zip(parts, terms, strict=True):
            if isinstance(part, Numbers):
                sources.append(part.place)
                factors.append(torch.full((1, 1), float(factor), dtype=torch.float64))
                continue
            added = part if factor == 1 else part.scaled(factor)
            bias = added if bias is None else bias + added
        if bias is not None and not torch.equal(bias.low, bias.high):
            sources.append(self.numbers(Jet.flat(bias.moved(lambda bound: bound.reshape(1, *shape)))).place)
            factors.append(torch.ones(1, 1, dtype=torch.float64))
            bias = None
        bias = None if bias is None or not bool(bias.low.any()) else bias.low
        step = Weighted(shape.numel(), tuple(sources), tuple(factors), bias)
        return self.add(step, (tuple(float(one) for one in factors), _digits(bias)), shape)

    def scaled(self, operand: Numbers, factor: Interval, shape: torch.Size) -> Numbers:
        """Return an operand of this shape times a known factor (m, 1)."""
        if not torch.equal(factor.low, factor.high):
            return self.product(operand, Jet.flat(factor.moved(lambda bound: bound.reshape(1, *shape))))
        values = factor.low
        if bool((values == values[0]).all()):
            values = values[:1]
            if float(values) == 1:
                return operand
        step = Weighted(shape.numel(), (operand.place,), (values,))
        return self.add(step, (_digits(values), None), shape)

    def product(self, a: Any, b: Any) -> Numbers:
        """Return the product of operands of which one at least depends on the state."""
        (first, second), shape = self.broadcast(self._without_truth(a), self._without_truth(b))
        if isinstance(first, Interval):
            first, second = second, first
        if isinstance(second, Interval):
            if torch.equal(second.low, second.high):
                return self.scaled(first, second, shape)
            second = self.numbers(Jet.flat(second.moved(lambda bound: bound.reshape(1, *shape))))
        if first == second:
            return self.elementary(aten.square.default, first)
        sources = tuple(sorted((first.place, second.place)))
        return self.add(Product(shape.numel(), sources), (), shape)

    def _without_truth(self, operand: Any) -> Any:
        return self.numbers(operand) if isinstance(operand, Condition) else operand

    def elementary(self, target: Any, x: Any, *rest: Any) -> Numbers:
        """Return a smooth function of each number, given as an operation on jets."""
        x = self.numbers(x)
        operation = OPERATIONS[target]

        def applied(jet: Jet) -> Jet:
            return operation(jet, *rest)

        relaxation = relaxations.tanh if target is aten.tanh.default else relaxations.smooth(applied)

        def image(over: Interval) -> Interval:
            return applied(Jet.flat(over)).value

        return self.add(Elementary(x.shape.numel(), (x.place,), relaxation, image), (target, rest), x.shape)

    def kinked(self, x: Any, below: float, above: float) -> Numbers:
        """Return ``below`` x where x < 0 and ``above`` x where x > 0."""
        x = self.numbers(x)

        def image(over: Interval) -> Interval:
            slopes = [Interval.point(over.low.new_tensor(slope)) for slope in (below, above)]
            one, other = (
                choose(end >= 0, slopes[1] * Interval.point(end), slopes[0] * Interval.point(end))
                for end in (over.low, over.high)
            )
            both = one.hull(other)
            return Interval(torch.where((over.low < 0) & (over.high > 0) & (both.low > 0), 0.0, both.low), both.high)

        step = Elementary(x.shape.numel(), (x.place,), relaxations.kinked(below, above), image)
        found = self.add(step, ("kinked", below, above), x.shape)
        if (below, above) == (0, 1):
            self._rectified[found.place] = x.place
        return found

    def sign_of(self, operand: Any) -> Any:
        """Return numbers that are positive just where the operand's are: x in the place of max(x, 0), whose range may touch 0."""
        if isinstance(operand, Numbers):
            return Numbers(self._rectified.get(operand.place, operand.place), operand.shape)
        return operand

    def maximum(self, a: Any, b: Any) -> Numbers:
        """Return the larger of two, b + max(a - b, 0)."""
        return self.weighted([(b, 1), (self.kinked(self.weighted([(a, 1), (b, -1)]), 0.0, 1.0), 1)])

    def minimum(self, a: Any, b: Any) -> Numbers:
        """Return the smaller of two, a - max(a - b, 0)."""
        return self.weighted([(a, 1), (self.kinked(self.weighted([(a, 1), (b, -1)]), 0.0, 1.0), -1)])

    def matrix(self, operand: Numbers, linear: Callable[[Tensor], Tensor], bias: Any = None) -> Numbers:
        """Return a linear function, whose results are single elements or sums of exact multiples, of one operand, plus a bias."""
        size = operand.shape.numel()
        columns = linear(torch.eye(size, dtype=torch.float64).reshape(size, *operand.shape))
        shape, matrix = columns.shape[1:], columns.reshape(size, -1).mT.contiguous()
        added: Any = None
        if bias is not None:
            jet = None if isinstance(bias, Numbers | Condition) else as_jet(bias)
            if jet is None or not torch.equal(jet.value.low, jet.value.high):
                return self.weighted([(self.matrix(operand, linear), 1), (bias, 1)])
            added = jet.value.low[0].expand(shape).reshape(-1, 1)
        return self.add(Matrix((operand.place,), matrix, added), (_digits(matrix), _digits(added)), shape)

    def matmul(self, a: Any, b: Any, bias: Any = None) -> Numbers:
        """Return the matrix product of two, plus a bias."""
        for operand, other, order in ((a, b, lambda x, y: x @ y), (b, a, lambda x, y: y @ x)):
            if (
                isinstance(operand, Numbers)
                and isinstance(other, Jet)
                and torch.equal(other.value.low, other.value.high)
            ):
                fixed = other.value.low[0]
                return self.matrix(operand, lambda x, order=order, fixed=fixed: order(x, fixed), bias)
        (left,) = self.moved(lambda part: part[..., None], [a])
        (right,) = self.moved(lambda part: part[..., None, :, :], [b])
        product = self.matrix(self.product(left, right), lambda x: x.sum(-2))
        return product if bias is None else self.weighted([(product, 1), (bias, 1)])

    def sum(self, x: Any, dims: list[int] | None = None, keepdim: bool = False) -> Numbers:
        operand = self.numbers(x)
        rank = len(operand.shape)
        last = [dim - rank if dim >= 0 else dim for dim in (dims or range(rank))]
        return self.matrix(operand, lambda part: part.sum(last, keepdim) if last else part)

    def mean(self, x: Any, dims: list[int] | None = None, keepdim: bool = False) -> Numbers:
        total = self.sum(x, dims, keepdim)
        return self.quotient(total, float(x.shape.numel() // total.shape.numel()))

    def quotient(self, a: Any, b: Any) -> Any:
        if isinstance(b, Numbers | Condition):
            return self.product(a, self.elementary(aten.reciprocal.default, b))
        divisor = as_jet(b).value
        return self.product(a, Jet.flat(divisor.reciprocal()))

    def extreme(self, x: Any, dims: list[int] | None, keepdim: bool, pick: Callable[[Any, Any], Numbers]) -> Numbers:
        rank = len(x.shape)
        chosen = sorted(dim % rank for dim in (dims or range(rank)))
        for dim in chosen:
            x = reduce(pick, self.moved(lambda part, dim=dim: part.split(1, dim), [x]))
        return (
            x
            if keepdim
            else self.moved(lambda part: part.reshape([d for i, d in enumerate(part.shape) if i not in chosen]), [x])[0]
        )

    def choice(self, condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(condition, Condition):
            if not isinstance(condition, Truth):
                condition = Truth.constant(condition)
            picks = condition.sure[0]
            shape = torch.broadcast_shapes(picks.shape, self.numbers(a).shape, self.numbers(b).shape)
            return self.moved(
                lambda one, two: torch.where(picks, one.expand(shape), two.expand(shape)),
                [self.numbers(a), self.numbers(b)],
            )[0]
        first, second = self.numbers(a), self.numbers(b)
        shape = torch.broadcast_shapes(condition.shape, first.shape, second.shape)
        first, second = (self.moved(lambda part: part.expand(shape), [one])[0] for one in (first, second))
        sources, evaluate = _reader([condition])

        def holds(ranges: list[Interval]) -> tuple[Tensor, Tensor]:
            (truth,) = evaluate(ranges)
            return tuple(  # pyrefly: ignore
                flag.reshape(len(flag), *[1] * (len(shape) - flag.dim() + 1), *flag.shape[1:])
                .expand(-1, *shape)
                .reshape(len(flag), -1)
                .mT
                for flag in (truth.sure, truth.possible)
            )

        step = Choice(shape.numel(), (first.place, second.place, *sources), holds)
        return self.add(step, (id(condition),), shape)

    def _enclosed(self, node: fx.Node, args: Any, options: Any) -> Any:
        """Return the result of an operation that has no linear bounds: a condition, or numbers of which an interval is known."""
        traced = node.meta["val"]
        operation = OPERATIONS[node.target]
        arguments = (args, options)
        if isinstance(traced, list | tuple):
            raise UnboundedError(f"the operation {node.target} has no linear form")
        if traced.dtype == torch.bool:
            return Condition(operation, arguments, traced.shape)
        sources, evaluate = _reader([Condition(operation, arguments, traced.shape)])

        def enclose(ranges: list[Interval]) -> Interval:
            (found,) = evaluate(ranges)
            return as_jet(found).value.moved(lambda bound: bound.reshape(len(bound), -1).mT)

        return self.add(Enclosed(traced.numel(), sources, enclose), (node,), traced.shape)


def _reader(conditions: list[Any]) -> tuple[tuple[int, ...], Callable[[list[Interval]], list[Any]]]:
    """Return the steps that conditions depend on, and a function from these steps' ranges (m, B) to what the conditions are."""
    found: dict[int, None] = {}

    def walk(argument: Any) -> None:
        if isinstance(argument, Numbers):
            found[argument.place] = None
        elif isinstance(argument, Condition):
            walk(argument.arguments)
        elif isinstance(argument, list | tuple):
            for one in argument:
                walk(one)
        elif isinstance(argument, dict):
            walk(list(argument.values()))

    walk(conditions)
    sources = tuple(found)

    def evaluate(ranges: list[Interval]) -> list[Any]:
        by_place = dict(zip(sources, ranges, strict=True))

        def resolved(argument: Any) -> Any:
            if isinstance(argument, Numbers):
                return Jet.flat(_apart(by_place[argument.place], argument.shape))
            if isinstance(argument, Condition):
                args, options = resolved(argument.arguments)
                return argument.operation(*args, **options)
            if isinstance(argument, list | tuple):
                return type(argument)([resolved(one) for one in argument])
            if isinstance(argument, dict):
                return {name: resolved(one) for name, one in argument.items()}
            return argument

        return [resolved(condition) for condition in conditions]

    return sources, evaluate


def _apart(value: Interval, shape: torch.Size) -> Interval:
    """Return an interval (m, B) as (B, *shape), a little wider: numbers that touch are not taken to be apart.

    At a kink, where they touch, a function has more than one generalised gradient; its box is to tell of all.
    """
    low, high = (bound.mT.reshape(-1, *shape) for bound in (value.low, value.high))
    return Interval(
        torch.nextafter(low, torch.full_like(low, -math.inf)), torch.nextafter(high, torch.full_like(high, math.inf))
    )


def _digits(value: Tensor | None) -> Any:
    return None if value is None else (tuple(value.shape), value.contiguous().numpy().tobytes())


def _moves(operands: int = 1, several: bool = False) -> Callable[..., Any]:
    def rule(target: Any) -> Callable[..., Any]:
        def moved(builder: Builder, *args: Any, **options: Any) -> Any:
            listed = isinstance(args[0], list | tuple)
            parts, rest = (list(args[0]), args[1:]) if listed else (list(args[:operands]), args[operands:])
            if any(isinstance(part, Condition) for part in parts):
                return NotImplemented

            def operation(*tensors: Tensor) -> Any:
                if target is aten.copy.default:
                    return tensors[1].expand(tensors[0].shape)
                return target(list(tensors), *rest, **options) if listed else target(*tensors, *rest, **options)

            results = builder.moved(operation, parts)
            return results if several else results[0]

        return moved

    return rule


def _clamp(builder: Builder, x: Any, least: Any = None, most: Any = None) -> Numbers:
    x = x if least is None else builder.maximum(x, least)
    return x if most is None else builder.minimum(x, most)


def _compared(target: Any) -> Callable[..., Any]:
    """Return the rule of a > b or of its contrary: where b is 0 it asks for the sign of a, as the derivative of a relu does."""

    def rule(builder: Builder, a: Any, b: Any) -> Any:
        a = builder.sign_of(a) if isinstance(b, int | float) and b == 0 else a
        shape = torch.broadcast_shapes(*(one.shape for one in (a, b) if not isinstance(one, int | float)))
        return Condition(OPERATIONS[target], ((a, b), {}), shape)

    return rule


def _leaky(builder: Builder, x: Any, slope: float = 0.01) -> Any:
    return builder.kinked(x, float(slope), 1.0) if 0 <= slope < 1 else NotImplemented


def _product(builder: Builder, a: Any, b: Any) -> Any:
    if all(isinstance(one, Condition | Truth) for one in (a, b)):
        return NotImplemented
    return builder.product(a, b)


def _smooth(target: Any) -> Callable[..., Any]:
    return lambda builder, x, *rest: builder.elementary(target, x, *rest)


def _power(builder: Builder, x: Any, exponent: float) -> Any:
    if exponent == 2:
        return builder.elementary(aten.square.default, x)
    return builder.elementary(aten.pow.Tensor_Scalar, x, exponent)


def _sigmoid(builder: Builder, x: Any) -> Numbers:
    """Return (1 + tanh(x / 2)) / 2."""
    return builder.weighted([(builder.elementary(aten.tanh.default, builder.weighted([(x, 0.5)])), 0.5), (0.5, 1)])


SMOOTH = [
    aten.exp.default,
    aten.expm1.default,
    aten.log.default,
    aten.log1p.default,
    aten.sin.default,
    aten.cos.default,
    aten.tan.default,
    aten.tanh.default,
    aten.atan.default,
    aten.square.default,
    aten.sqrt.default,
    aten.rsqrt.default,
    aten.reciprocal.default,
]

RULES: dict[Any, Callable[..., Any]] = {
    **{target: _moves()(target) for target in MOVES},
    **{target: _moves(several=True)(target) for target in SPLITS},
    **{target: _moves(operands=2)(target) for target in (*SCATTERS, aten.copy.default)},
    **{target: _smooth(target) for target in SMOOTH},
    aten.pow.Tensor_Scalar: _power,
    aten.sigmoid.default: _sigmoid,
    aten._to_copy.default: Builder.numbers,
    aten.neg.default: lambda builder, x: builder.weighted([(x, -1)]),
    **dict.fromkeys(
        (aten.add.Tensor, aten.add.Scalar), lambda builder, a, b, alpha=1: builder.weighted([(a, 1), (b, alpha)])
    ),
    **dict.fromkeys(
        (aten.sub.Tensor, aten.sub.Scalar), lambda builder, a, b, alpha=1: builder.weighted([(a, 1), (b, -alpha)])
    ),
    aten.rsub.Scalar: lambda builder, a, b: builder.weighted([(b, 1), (a, -1)]),
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), _product),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), Builder.quotient),
    **dict.fromkeys((aten.mm.default, aten.bmm.default), Builder.matmul),
    aten.addmm.default: lambda builder, bias, a, b: builder.matmul(a, b, bias),
    **dict.fromkeys((aten.sum.default, aten.sum.dim_IntList), Builder.sum),
    **dict.fromkeys((aten.mean.default, aten.mean.dim), Builder.mean),
    aten.amax.default: lambda builder, x, dims=None, keepdim=False: builder.extreme(x, dims, keepdim, builder.maximum),
    aten.amin.default: lambda builder, x, dims=None, keepdim=False: builder.extreme(x, dims, keepdim, builder.minimum),
    aten.maximum.default: Builder.maximum,
    aten.minimum.default: Builder.minimum,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: lambda builder, x, most: _clamp(builder, x, None, most),
    aten.hardtanh.default: lambda builder, x, least=-1.0, most=1.0: _clamp(builder, x, least, most),
    aten.relu.default: lambda builder, x: builder.kinked(x, 0.0, 1.0),
    aten.leaky_relu.default: _leaky,
    aten.abs.default: lambda builder, x: builder.kinked(x, -1.0, 1.0),
    aten.where.self: Builder.choice,
    **{target: _compared(target) for target in (aten.gt.Scalar, aten.le.Scalar)},
}
