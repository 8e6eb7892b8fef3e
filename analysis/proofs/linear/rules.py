"""What each operation of a graph becomes in a program of steps; what is not listed here has an interval alone."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from analysis.proofs.intervals.elementary import ELEMENTARY
from analysis.proofs.intervals.jets import Jet, Truth
from analysis.proofs.intervals.operations import (
    MOVES,
    OPERATIONS,
    SCATTERS,
    SPLITS,
    STORAGE,
    UnboundedError,
    constant,
    other_kind,
)
from analysis.proofs.linear.conditions import Condition, Numbers
from analysis.proofs.linear.program import Builder
from analysis.proofs.shapes import common_shape

aten = torch.ops.aten


def program_of(graph: fx.GraphModule) -> tuple[Builder, Numbers]:
    """Return the program of a graph of one state (1, n), and the numbers that are its result.

    Raises UnboundedError where an operation has no bounds.
    """
    known: dict[fx.Node, Any] = {}
    states, *nodes, output = graph.graph.nodes
    builder = Builder(states.meta["val"].shape[1])
    known[states] = Numbers(0, states.meta["val"].shape)
    for node in nodes:
        known[node] = _evaluated(builder, graph, node, known)
    return builder, builder.numbers(known[output.args[0]])


def _evaluated(builder: Builder, graph: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    if node.op == "get_attr":
        return constant(operator.attrgetter(str(node.target))(graph))
    inputs: Any = fx.map_arg((node.args, node.kwargs), lambda argument: known[argument])
    args, kwargs = inputs
    target: Any = node.target
    if target is operator.getitem:
        return operator.getitem(*args)
    value = node.meta.get("val")
    if isinstance(value, Tensor) and not value.numel():  # no number depends on the state
        return constant(value)
    options = {name: value for name, value in kwargs.items() if name not in STORAGE | {"dtype"}}
    inner = [known[argument] for argument in node.all_input_nodes]
    depends = any(isinstance(one, Numbers | Condition) for one in inner)
    if not depends and not any(isinstance(one, Jet | Truth) for one in inner):
        result = target(*args, **kwargs)
        # As in interval arithmetic: a quotient of integers is rounded, and so to be bounded; what is read from no tensor is a constant.
        if not inner or not result.is_floating_point():
            return constant(result)
    if target not in OPERATIONS or kwargs.get("dtype") not in (None, torch.float64):
        raise UnboundedError(f"the operation {target} has no interval form")
    rule = RULES.get(target) if depends else None
    try:
        found = rule(builder, *args, **options) if rule else NotImplemented
        if found is NotImplemented:
            found = builder.enclosed(node, args, options) if depends else OPERATIONS[target](*args, **options)
    except (TypeError, AttributeError) as error:
        raise UnboundedError(f"the operation {target} has no interval form with these arguments") from error
    parts = found if isinstance(found, list) else [found]
    words = other_kind(node, [isinstance(one, Truth | Condition) for one in parts])
    if words is not None:
        raise UnboundedError(words)
    return found


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
        shape = common_shape(*(one.shape for one in (a, b) if not isinstance(one, int | float)))
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
    *(target for target in ELEMENTARY if target is not aten.sigmoid.default),
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
    **{
        target: lambda builder, x, *rest, target=target: OPERATIONS[target](x, *rest)
        for target in (aten.full_like.default, aten.zeros_like.default, aten.ones_like.default)
    },
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
