"""A program of steps on vectors of numbers, made operation by operation; equal steps are made once."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx

from analysis.proofs.intervals.interval import ROUNDOFF, Interval
from analysis.proofs.intervals.jets import Jet, Truth
from analysis.proofs.intervals.operations import OPERATIONS, UnboundedError, as_jet
from analysis.proofs.linear import relaxations
from analysis.proofs.linear.conditions import Condition, Numbers, reader
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
from analysis.proofs.shapes import common_shape

aten = torch.ops.aten
LARGEST_MATRIX = 2048


class Builder:
    """Makes the steps of a program from the nodes of a graph."""

    def __init__(self, dim: int) -> None:
        self.steps: list[Step] = [States(dim, ())]
        self._places: dict[Any, int] = {}
        # The places of x where the result is max(x, 0), or tanh x.
        self._rectified: dict[int, int] = {}
        self._tanhs: dict[int, int] = {}

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
        return self.add(Constant(len(value.low), (), value), (_digits(value.low), _digits(value.high)), jet.shape)

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
        return self.add(Moved(len(index), places, index, lengths), (tuple(index.tolist()),), shape)

    def broadcast(self, *operands: Any) -> tuple[list[Any], torch.Size]:
        """Return the operands, each numbers or an interval (m, 1), expanded to their common shape, and that."""
        given = [operand if isinstance(operand, Numbers | Condition) else as_jet(operand) for operand in operands]
        shape = common_shape(*(one.shape for one in given))
        made: list[Any] = []
        for one in given:
            if isinstance(one, Jet):
                fixed = one.value.moved(lambda bound: bound[0].expand(shape).reshape(-1, 1))
                made.append(fixed)
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
        """Return an operand of this shape times a factor (m, 1), known but for an error of a few units as a step charges."""
        values = factor.low / 2 + factor.high / 2
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
            if bool((second.high - second.low <= 4 * ROUNDOFF * second.magnitude).all()):
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
        if target is aten.square.default and x.place in self._tanhs:
            # Its second derivative is known at once, where a bound of each in turn would be looser.
            x, target = Numbers(self._tanhs[x.place], x.shape), "tanh^2"
        relaxation = relaxations.KNOWN.get(target)
        if relaxation is None:
            operation = OPERATIONS[target]
            relaxation = relaxations.smooth(lambda jet: operation(jet, *rest))
        step = Elementary(x.shape.numel(), (x.place,), relaxation)
        found = self.add(step, (target, rest), x.shape)
        if target is aten.tanh.default:
            self._tanhs[found.place] = x.place
        return found

    def kinked(self, x: Any, below: float, above: float) -> Numbers:
        """Return ``below`` x where x < 0 and ``above`` x where x > 0."""
        x = self.numbers(x)

        step = Elementary(x.shape.numel(), (x.place,), relaxations.kinked(below, above))
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
        if size > LARGEST_MATRIX:
            raise UnboundedError(f"a sum over some of {size} numbers is too large for linear bounds")
        columns = linear(torch.eye(size, dtype=torch.float64).reshape(size, *operand.shape))
        shape, matrix = columns.shape[1:], columns.reshape(size, -1).mT.contiguous()
        added: Any = None
        if bias is not None:
            jet = None if isinstance(bias, Numbers | Condition) else as_jet(bias)
            if jet is None or not torch.equal(jet.value.low, jet.value.high):
                return self.weighted([(self.matrix(operand, linear), 1), (bias, 1)])
            added = jet.value.low[0].expand(shape).reshape(-1, 1)
        return self.add(Matrix(len(matrix), (operand.place,), matrix, added), (_digits(matrix), _digits(added)), shape)

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
            shape = common_shape(picks.shape, self.numbers(a).shape, self.numbers(b).shape)
            return self.moved(
                lambda one, two: torch.where(picks, one.expand(shape), two.expand(shape)),
                [self.numbers(a), self.numbers(b)],
            )[0]
        first, second = self.numbers(a), self.numbers(b)
        shape = common_shape(condition.shape, first.shape, second.shape)
        first, second = (self.moved(lambda part: part.expand(shape), [one])[0] for one in (first, second))
        sources, evaluate = reader(condition)

        def holds(ranges: list[Interval]) -> tuple[Tensor, Tensor]:
            truth = evaluate(ranges)
            return tuple(  # pyrefly: ignore
                flag.reshape(len(flag), *[1] * (len(shape) - flag.dim() + 1), *flag.shape[1:])
                .expand(-1, *shape)
                .reshape(len(flag), -1)
                .mT
                for flag in (truth.sure, truth.possible)
            )

        step = Choice(shape.numel(), (first.place, second.place, *sources), holds)
        return self.add(step, (id(condition),), shape)

    def enclosed(self, node: fx.Node, args: Any, options: Any) -> Any:
        """Return the result of an operation that has no linear bounds: a condition, or numbers of which an interval is known."""
        traced = node.meta["val"]
        operation = OPERATIONS[node.target]
        arguments = (args, options)
        if isinstance(traced, list | tuple):
            raise UnboundedError(f"the operation {node.target} has no linear form")
        if traced.dtype == torch.bool:
            return Condition(operation, arguments, traced.shape)
        sources, evaluate = reader(Condition(operation, arguments, traced.shape))

        def enclose(ranges: list[Interval]) -> Interval:
            return as_jet(evaluate(ranges)).value.moved(lambda bound: bound.reshape(len(bound), -1).mT)

        return self.add(Enclosed(traced.numel(), sources, enclose), (node,), traced.shape)


def _digits(value: Tensor | None) -> Any:
    return None if value is None else (tuple(value.shape), value.contiguous().numpy().tobytes())
