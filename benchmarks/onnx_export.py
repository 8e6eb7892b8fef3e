"""A function of states written as an ONNX file in float64: the graph of its operations, each mapped to ONNX's."""

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from analysis.proofs.tracing import size_of, stands_for, trace
from analysis.user_function.onnx_files.messages import (
    AttributeMessage,
    Dimension,
    GraphMessage,
    ModelMessage,
    NodeMessage,
    OperatorSet,
    Shape,
    TensorMessage,
    TensorType,
    Type,
    ValueInfo,
    encoded,
)
from analysis.user_function.onnx_files.tensors import DOUBLE, message_of
from stabdeq.errors import ConfigError
from stabdeq.files import replace_file

aten = torch.ops.aten
VERSION, IR_VERSION = 17, 8  # of the operations and of the file: what the tools of VNN-COMP read
INT_TYPE, INTS_TYPE = 2, 7
ENDLESS = 2**63 - 1


class Writer:
    """The nodes and constants of an ONNX graph, as they are added."""

    def __init__(self) -> None:
        self.nodes: list[NodeMessage] = []
        self.constants: list[TensorMessage] = []

    def __call__(self, operation: str, *inputs: str, **attributes: int | list[int]) -> str:
        """Add ``operation`` and return the name of its result."""
        name = f"v{len(self.nodes)}"
        made = [
            AttributeMessage(name=key, i=value, type=INT_TYPE)
            if isinstance(value, int)
            else AttributeMessage(name=key, ints=value, type=INTS_TYPE)
            for key, value in attributes.items()
        ]
        self.nodes.append(NodeMessage(list(inputs), [name], f"{operation}_{len(self.nodes)}", operation, made))
        return name

    def constant(self, numbers: Any, dtype: torch.dtype = torch.float64) -> str:
        """Add a constant and return its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(message_of(torch.as_tensor(numbers, dtype=dtype), name))
        return name

    def integers(self, *numbers: int) -> str:
        """Add a list of whole numbers as a constant and return its name."""
        return self.constant(list(numbers), torch.int64)

    def slice(self, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
        """Add x[start:end:step] along ``axis``."""
        return self("Slice", x, *(self.integers(one) for one in (start, end, axis, step)))


@torch.no_grad()
def export_onnx(function: Callable[[Tensor], Tensor], states: Tensor, path: Path) -> None:
    """Write ``function``, (B, n) -> (B, k), as an ONNX file with the input X (1, n) and the output Y (1, k), both float64.

    ``states`` (B, n), B >= 2, are those at which the recorded operations are held against the function. Raises TraceError where it cannot
    be recorded, ConfigError where the operations do not give its values or one of them has no form here.
    """
    graph = trace(function, states[:1])
    if not stands_for(graph, function, states, size_of(function, states)):
        raise ConfigError("the operations of the function on one state are not those on another: it cannot be exported")
    write, names = Writer(), {}
    for node in graph.graph.nodes:
        names[node] = _written(node, graph, write, names)
    (result,) = (node.args[0] for node in graph.graph.nodes if node.op == "output")
    # A node that gives the output by its name, whatever gave the result.
    write.nodes.append(NodeMessage([names[result]], ["Y"], "output", "Identity"))
    inputs, outputs = (
        _info(name, shape) for name, shape in (("X", (1, states.shape[1])), ("Y", result.meta["val"].shape))
    )
    model = ModelMessage(
        ir_version=IR_VERSION,
        producer_name="stabdeq",
        graph=GraphMessage(write.nodes, path.stem, write.constants, [inputs], [outputs]),
        opset_import=[OperatorSet(version=VERSION)],
    )
    replace_file(path, encoded(model))


def _info(name: str, shape: tuple[int, ...]) -> ValueInfo:
    return ValueInfo(name, Type(TensorType(DOUBLE, Shape([Dimension(length) for length in shape]))))


def _written(node: fx.Node, graph: fx.GraphModule, write: Writer, names: dict[fx.Node, Any]) -> Any:
    """Return the name of what ``node`` gives; of several tensors the names."""
    if node.op == "placeholder":
        return "X"
    if node.op == "get_attr":
        value = node.meta["val"]
        return write.constant(value, value.dtype if value.dtype in (torch.int64, torch.bool) else torch.float64)
    if node.op == "output":
        return None
    if node.target is operator.getitem:
        return names[node.args[0]][node.args[1]]
    if node.target not in OPERATIONS or node.kwargs.get("dtype") not in (None, torch.float64):
        raise ConfigError(
            f"the operation {node.target} has no form in ONNX here; known: {', '.join(map(str, OPERATIONS))}"
        )
    return OPERATIONS[node.target](_Call(node, write, names), *node.args[1:])


class _Call:
    """A node with what writes it: the names of its tensors, of numbers among its arguments made constants."""

    def __init__(self, node: fx.Node, write: Writer, names: dict[fx.Node, Any]) -> None:
        self.write, self.node, self.names = write, node, names
        self.shape = [] if isinstance(node.meta["val"], list | tuple) else list(node.meta["val"].shape)

    def length(self, axis: int) -> int:
        return self.node.args[0].meta["val"].shape[axis]

    @property
    def rank(self) -> int:
        return self.node.args[0].meta["val"].dim()

    def operand(self, given: Any) -> str:
        """Return the name of a real tensor or number; truths and whole numbers are cast."""
        if not isinstance(given, fx.Node):
            return self.write.constant(float(given))
        name = self.names[given]
        return name if given.meta["val"].is_floating_point() else self.write("Cast", name, to=DOUBLE)

    @property
    def x(self) -> str:
        """The first operand."""
        return self.operand(self.node.args[0])

    def truth(self, given: Any) -> str:
        return self.names[given] if isinstance(given, fx.Node) else self.write.constant(given, torch.bool)


def _plain(name: str) -> Callable[..., str]:
    """Return the operation of one or two tensors that has this ``name`` in ONNX."""
    return lambda call, *others: call.write(name, call.x, *map(call.operand, others))


def _scaled(name: str) -> Callable[..., str]:
    """Return a sum or difference, whose second term may have a factor ``alpha``."""

    def operation(call: _Call, other: Any) -> str:
        second, factor = call.operand(other), call.node.kwargs.get("alpha", 1)
        second = second if factor == 1 else call.write("Mul", second, call.operand(factor))
        return call.write(name, call.x, second)

    return operation


def _reshaped(call: _Call, *_: Any) -> str:
    name = call.names[call.node.args[0]]
    return call.write("Reshape", name, call.write.integers(*call.shape))


def _permuted(call: _Call, *axes: Any) -> str:
    order = list(range(call.rank))
    if len(axes) == 1:
        order = [axis % call.rank for axis in axes[0]]
    else:
        first, second = axes or (0, -1)
        order[first], order[second] = order[second], order[first]
    return call.write("Transpose", call.x, perm=order)


def _sliced(call: _Call, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> str:
    return call.write.slice(call.x, axis, start or 0, ENDLESS if end is None else end, step)


def _selected(call: _Call, axis: int, place: int) -> str:
    return call.write("Gather", call.x, call.write.constant(place, torch.int64), axis=axis % call.rank)


def _indexed(call: _Call, indices: list[Any]) -> str:
    (axis,) = (place for place, one in enumerate(indices) if one is not None)
    return call.write("Gather", call.x, call.names[indices[axis]], axis=axis)


def _concatenated(call: _Call, axis: int = 0) -> str:
    return call.write("Concat", *map(call.operand, call.node.args[0]), axis=axis)


def _stacked(call: _Call, axis: int = 0) -> str:
    axis = axis % len(call.shape)
    one = call.write.integers(*call.shape[:axis], 1, *call.shape[axis + 1 :])
    return call.write(
        "Concat", *(call.write("Reshape", call.operand(part), one) for part in call.node.args[0]), axis=axis
    )


def _parted(call: _Call, sizes: Any, axis: int = 0) -> list[str]:
    length = call.length(axis)
    sizes = [min(sizes, length - start) for start in range(0, length, sizes)] if isinstance(sizes, int) else sizes
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    return [call.write.slice(call.x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _unbound(call: _Call, axis: int = 0) -> list[str]:
    return [_selected(call, axis, place) for place in range(call.length(axis))]


def _replaced(call: _Call, source: Any, axis: int = 0, start: Any = None, end: Any = None, step: int = 1) -> str:
    """Write a tensor with its part from ``start`` to ``end`` along ``axis`` replaced by ``source``."""
    places = range(*slice(start, end, step).indices(call.length(axis)))
    if step != 1:
        raise ConfigError(f"the operation {call.node.target} with a step of {step} has no form in ONNX here")
    before = call.write.slice(call.x, axis, 0, places.start)
    after = call.write.slice(call.x, axis, places.stop, ENDLESS)
    return call.write(
        "Concat", before, source if isinstance(source, str) else call.operand(source), after, axis=axis % call.rank
    )


def _placed(call: _Call, source: Any, axis: int, place: int) -> str:
    place, shape = place % call.length(axis), list(call.shape)
    shape[axis] = 1
    part = call.write("Reshape", call.operand(source), call.write.integers(*shape))
    return _replaced(call, part, axis, place, place + 1)


def _reduced(name: str) -> Callable[..., str]:
    def operation(call: _Call, axes: Any = None, keep: bool = False) -> str:
        axes = [axis % call.rank for axis in ([axes] if isinstance(axes, int) else axes or range(call.rank))]
        if name == "ReduceSum":  # the only one whose axes are an input in this version
            return call.write(name, call.x, call.write.integers(*axes), keepdims=int(keep))
        return call.write(name, call.x, axes=axes, keepdims=int(keep))

    return operation


def _clamped(call: _Call, low: Any = None, high: Any = None) -> str:
    name = call.x if low is None else call.write("Max", call.x, call.operand(low))
    return name if high is None else call.write("Min", name, call.operand(high))


def _leaky_relu(call: _Call, slope: float = 0.01) -> str:
    # The attribute of LeakyRelu is a float32.
    below = call.write("Mul", call.write("Min", call.x, call.operand(0)), call.operand(slope))
    return call.write("Add", call.write("Relu", call.x), below)


def _elu(call: _Call, alpha: float = 1, scale: float = 1, slope: float = 1) -> str:
    # The attribute of Elu is a float32.
    below = call.write("Min", call.write("Mul", call.x, call.operand(slope)), call.operand(0))
    curved = call.write("Mul", call.write("Sub", call.write("Exp", below), call.operand(1)), call.operand(alpha))
    return call.write("Mul", call.write("Add", call.write("Relu", call.x), curved), call.operand(scale))


def _power(call: _Call, exponent: float) -> str:
    if exponent == 2:
        return call.write("Mul", call.x, call.x)
    return call.write("Pow", call.x, call.operand(exponent))


def _then(first: str, second: str) -> Callable[..., str]:
    return lambda call: call.write(second, call.write(first, call.x))


def _constant(number: float | None = None) -> Callable[..., str]:
    """Return a tensor of the node's shape that is full of one ``number``, or of the one that is the argument."""
    return lambda call, *given: call.write.constant(
        torch.full(call.shape, float(given[0] if number is None else number))
    )


def _compared(name: str) -> Callable[..., str]:
    return lambda call, other: call.write(name, call.x, call.operand(other))


def _logical(name: str) -> Callable[..., str]:
    return lambda call, *others: call.write(name, call.truth(call.node.args[0]), *map(call.truth, others))


def _where(call: _Call, a: Any, b: Any) -> str:
    return call.write("Where", call.truth(call.node.args[0]), call.operand(a), call.operand(b))


def _addmm(call: _Call, a: Any, b: Any) -> str:
    return call.write("Add", call.x, call.write("MatMul", call.operand(a), call.operand(b)))


OPERATIONS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((aten.view.default, aten._unsafe_view.default, aten.unsqueeze.default), _reshaped),
    **dict.fromkeys((aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims), _reshaped),
    **dict.fromkeys((aten.permute.default, aten.transpose.int, aten.t.default), _permuted),
    **dict.fromkeys((aten.clone.default, aten._to_copy.default), lambda call, *_: call.x),
    aten.expand.default: lambda call, *_: call.write("Expand", call.x, call.write.integers(*call.shape)),
    aten.select.int: _selected,
    aten.slice.Tensor: _sliced,
    aten.index.Tensor: _indexed,
    aten.index_select.default: lambda call, axis, index: call.write("Gather", call.x, call.names[index], axis=axis),
    aten.cat.default: _concatenated,
    aten.stack.default: _stacked,
    aten.split.Tensor: _parted,
    aten.split_with_sizes.default: _parted,
    aten.unbind.int: _unbound,
    aten.select_scatter.default: _placed,
    aten.slice_scatter.default: _replaced,
    aten.full_like.default: _constant(),
    aten.zeros_like.default: _constant(0.0),
    aten.ones_like.default: _constant(1.0),
    aten.neg.default: _plain("Neg"),
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar), _scaled("Add")),
    **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar), _scaled("Sub")),
    aten.rsub.Scalar: lambda call, other: call.write("Sub", call.operand(other), call.x),
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), _plain("Mul")),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), _plain("Div")),
    aten.mm.default: _plain("MatMul"),
    aten.bmm.default: _plain("MatMul"),
    aten.addmm.default: _addmm,
    aten.sum.default: _reduced("ReduceSum"),
    aten.sum.dim_IntList: _reduced("ReduceSum"),
    aten.mean.default: _reduced("ReduceMean"),
    aten.mean.dim: _reduced("ReduceMean"),
    aten.amax.default: _reduced("ReduceMax"),
    aten.amin.default: _reduced("ReduceMin"),
    aten.maximum.default: _plain("Max"),
    aten.minimum.default: _plain("Min"),
    aten.clamp.default: _clamped,
    aten.clamp_min.default: _clamped,
    aten.clamp_max.default: lambda call, high: _clamped(call, None, high),
    aten.hardtanh.default: lambda call, low=-1.0, high=1.0: _clamped(call, low, high),
    aten.relu.default: _plain("Relu"),
    aten.leaky_relu.default: _leaky_relu,
    aten.elu.default: _elu,
    aten.abs.default: _plain("Abs"),
    **dict.fromkeys((aten.sign.default, aten.sgn.default), _plain("Sign")),
    aten.pow.Tensor_Scalar: _power,
    aten.square.default: lambda call: _power(call, 2),
    aten.sqrt.default: _plain("Sqrt"),
    aten.rsqrt.default: _then("Sqrt", "Reciprocal"),
    aten.reciprocal.default: _plain("Reciprocal"),
    aten.exp.default: _plain("Exp"),
    aten.expm1.default: lambda call: call.write("Sub", call.write("Exp", call.x), call.operand(1)),
    aten.log.default: _plain("Log"),
    aten.log1p.default: lambda call: call.write("Log", call.write("Add", call.x, call.operand(1))),
    aten.sin.default: _plain("Sin"),
    aten.cos.default: _plain("Cos"),
    aten.tan.default: _plain("Tan"),
    aten.tanh.default: _plain("Tanh"),
    aten.sigmoid.default: _plain("Sigmoid"),
    aten.atan.default: _plain("Atan"),
    aten.erf.default: _plain("Erf"),
    aten.where.self: _where,
    **dict.fromkeys((aten.gt.Scalar, aten.gt.Tensor), _compared("Greater")),
    **dict.fromkeys((aten.lt.Scalar, aten.lt.Tensor), _compared("Less")),
    **dict.fromkeys((aten.ge.Scalar, aten.ge.Tensor), _compared("GreaterOrEqual")),
    **dict.fromkeys((aten.le.Scalar, aten.le.Tensor), _compared("LessOrEqual")),
    **dict.fromkeys((aten.eq.Scalar, aten.eq.Tensor), _compared("Equal")),
    **dict.fromkeys((aten.logical_and.default, aten.bitwise_and.Tensor), _logical("And")),
    **dict.fromkeys((aten.logical_or.default, aten.bitwise_or.Tensor), _logical("Or")),
    **dict.fromkeys((aten.logical_not.default, aten.bitwise_not.default), _logical("Not")),
}
