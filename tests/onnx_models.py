"""ONNX files made for the tests, and what onnxruntime 1.32 gives at one state."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.user_function.onnx_files.messages import (
    AttributeMessage,
    Dimension,
    GraphMessage,
    ModelMessage,
    NodeMessage,
    OperatorSet,
    Shape,
    TensorType,
    Type,
    ValueInfo,
    encoded,
)
from analysis.user_function.onnx_files.tensors import DOUBLE, message_of

STATE = [0.3, -1.2, 0.05, 2.0]


def attribute(name: str, value: Any) -> AttributeMessage:
    if isinstance(value, Tensor):
        return AttributeMessage(name, t=message_of(value, ""), type=4)
    if isinstance(value, str):
        return AttributeMessage(name, s=value.encode(), type=3)
    if isinstance(value, float):
        return AttributeMessage(name, f=value, type=1)
    return (
        AttributeMessage(name, i=value, type=2)
        if isinstance(value, int)
        else AttributeMessage(name, ints=value, type=7)
    )


def node(operation: str, inputs: str = "x", outputs: str = "y", **attributes: Any) -> NodeMessage:
    """An operation; names are parted by spaces, "-" is an input left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    made = [attribute(name, value) for name, value in attributes.items()]
    return NodeMessage(names, outputs.split(), f"the_{operation}", operation, made)


def info(name: str, lengths: list[int | None]) -> ValueInfo:
    return ValueInfo(name, Type(TensorType(DOUBLE, Shape([Dimension(length) for length in lengths]))))


def graph(nodes: list[NodeMessage], constants: dict[str, Any] | None = None, lengths: Any = (1, 4)) -> GraphMessage:
    """A graph from x to y. Constants are lists of numbers: of integers int64, of others float64."""
    tensors = {
        name: value if isinstance(value, Tensor) else torch.tensor(value) for name, value in (constants or {}).items()
    }
    made = [message_of(one.double() if one.is_floating_point() else one, name) for name, one in tensors.items()]
    return GraphMessage(nodes, "g", made, [info("x", list(lengths))], [info("y", [None])])


def saved(path: Path, made: GraphMessage, version: int = 17, **parts: Any) -> Path:
    model = ModelMessage(ir_version=8, graph=made, opset_import=[OperatorSet(version=version)], **parts)
    path.write_bytes(encoded(model))
    return path


@dataclass
class Case:
    nodes: list[NodeMessage]
    constants: dict[str, Any] = field(default_factory=dict)
    version: int = 17
    lengths: tuple[int, ...] = (1, 4)


W = [0.5, -0.25, 1.5, 3.0]
MATRIX = [[0.5, -1.0, 2.0], [1.5, 0.25, -0.75], [-2.0, 1.0, 0.125], [0.0, 3.0, -1.5]]
BIAS = [0.1, -0.2, 0.3]
ZERO, HALF = torch.tensor(0.0), torch.tensor(0.5)
LAST = 2**63 - 1
UNARY = "Neg Relu Tanh Sigmoid Softplus Erf Sin Cos Tan Exp Abs Sign Identity Elu Selu LeakyRelu Atan Reciprocal Softmax Dropout"
BINARY = "Add Sub Mul Div Min Max Sum Mean"
REDUCTIONS = "ReduceMean ReduceMax ReduceMin ReduceSumSquare ReduceL1 ReduceL2"
COMPARISONS = "Greater GreaterOrEqual Less LessOrEqual Equal"

CASES: dict[str, Case] = {
    **{name: Case([node(name)]) for name in UNARY.split()},
    **{name: Case([node(name, "x w")], {"w": W}) for name in BINARY.split()},
    **{name: Case([node(name, axes=[1])]) for name in REDUCTIONS.split()},
    **{
        name: Case([node(name, "x w", "q"), node("Where", "q x v")], {"w": [0.5, 0.5, 0.05, 2.0], "v": W})
        for name in COMPARISONS.split()
    },
    "Elu with alpha": Case([node("Elu", alpha=0.5)]),
    "LeakyRelu with alpha": Case([node("LeakyRelu", alpha=0.25)]),
    "Gelu": Case([node("Gelu")], version=20),
    "Gelu by tanh": Case([node("Gelu", approximate="tanh")], version=20),
    "Log": Case([node("Abs", "x", "a"), node("Log", "a")]),
    "Sqrt": Case([node("Abs", "x", "a"), node("Sqrt", "a")]),
    "Pow 2": Case([node("Pow", "x e")], {"e": torch.tensor(2.0)}),
    "Pow each": Case([node("Pow", "x e")], {"e": [[1.0, 2.0, 3.0, 2.0]]}),
    "Max of three": Case([node("Max", "x w v")], {"w": W, "v": ZERO}),
    "Gemm": Case([node("Gemm", "x W b")], {"W": MATRIX, "b": BIAS}),
    "Gemm with all": Case(
        [node("Gemm", "x W b", transB=1, alpha=0.5, beta=2.0)], {"W": torch.tensor(MATRIX).T.contiguous(), "b": BIAS}
    ),
    "MatMul": Case([node("MatMul", "x W")], {"W": MATRIX}),
    "Clip": Case([node("Clip", "x low high")], {"low": -HALF, "high": HALF}),
    "Clip above": Case([node("Clip", "x - high")], {"high": HALF}),
    "Clip of old": Case([node("Clip", min=-0.5, max=0.25)], version=6 + 4),
    "And Or Not Cast": Case(
        [
            node("Greater", "x zero", "a"),
            node("Less", "x half", "b"),
            node("And", "a b", "c"),
            node("Not", "c", "d"),
            node("Or", "d b", "e"),
            node("And", "e a", "f"),
            node("Cast", "f", to=DOUBLE),
        ],
        {"zero": ZERO, "half": HALF},
    ),
    "ReduceSum": Case([node("ReduceSum", "x a")], {"a": [1]}),
    "ReduceSum of old": Case([node("ReduceSum", axes=[1], keepdims=0)], version=11),
    "ReduceSum of nothing": Case([node("ReduceSum", noop_with_empty_axes=1)]),
    "ReduceMax of new": Case([node("ReduceMax", "x a", keepdims=0)], {"a": [-1]}, version=18),
    "Split": Case([node("Split", "x", "a b", axis=1), node("Concat", "b a", axis=1)]),
    "Split by sizes": Case([node("Split", "x s", "a b", axis=1), node("Concat", "b a", axis=-1)], {"s": [1, 3]}),
    "Split of old": Case([node("Split", "x", "a b", axis=1, split=[3, 1]), node("Concat", "b a", axis=1)], version=11),
    "Split unevenly": Case(
        [node("Split", "x", "a b c", axis=1, num_outputs=3), node("Concat", "c a", axis=1)], version=18, lengths=(1, 5)
    ),
    "Slice": Case([node("Slice", "x s e a")], {"s": [1], "e": [LAST], "a": [1]}),
    "Slice backwards": Case([node("Slice", "x s e a t")], {"s": [-1], "e": [-LAST], "a": [1], "t": [-2]}),
    "Slice in steps": Case([node("Slice", "x s e a t")], {"s": [-4], "e": [-1], "a": [-1], "t": [2]}),
    "Slice of old": Case([node("Slice", starts=[1], ends=[3], axes=[1])], version=9),
    "Gather": Case([node("Gather", "x i", axis=1)], {"i": [2, -1, 0]}),
    "Gather one": Case([node("Gather", "x i", axis=1)], {"i": torch.tensor(1)}),
    "Gather a matrix": Case([node("Gather", "x i", axis=-1)], {"i": [[0, 1], [3, 2]]}),
    "Transpose": Case([node("Reshape", "x s", "r"), node("Transpose", "r", perm=[0, 2, 1])], {"s": [0, 2, -1]}),
    "Flatten": Case(
        [node("Reshape", "x s", "r"), node("Flatten", "r", "f", axis=2), node("MatMul", "f W")],
        {"s": [0, 2, 2], "W": [[1.0], [10.0]]},
    ),
    "Squeeze": Case(
        [node("Unsqueeze", "x a", "u"), node("Mul", "u W", "v"), node("Squeeze", "v a")], {"a": [1], "W": W}
    ),
    "Squeeze of old": Case([node("Unsqueeze", "x", "u", axes=[-1]), node("Squeeze", "u", axes=[2])], version=11),
    "Shape": Case(
        [
            node("Shape", "x", "s"),
            node("ConstantOfShape", "s", "h", value=torch.tensor([0.5], dtype=torch.float64)),
            node("Gather", "s zero", "b", axis=0),
            node("Unsqueeze", "b zeros", "b1"),
            node("Concat", "b1 rest", "t", axis=0),
            node("Add", "x h", "sum"),
            node("Reshape", "sum t"),
        ],
        {"zero": torch.tensor(0), "zeros": [0], "rest": [2, 2]},
    ),
    "Constant": Case([node("Constant", "", "k", value=torch.tensor(0.75, dtype=torch.float64)), node("Mul", "x k")]),
    "Expand": Case([node("Unsqueeze", "x a", "u"), node("Expand", "u s")], {"a": [1], "s": [1, 3, 1]}),
    "BatchNormalization": Case(
        [node("BatchNormalization", "x g b m v", epsilon=0.25)],
        {"g": W, "b": [1.0, 2.0, 3.0, 4.0], "m": STATE, "v": [1.0, 4.0, 0.5, 2.0]},
        lengths=(1, 4),
    ),
    "LayerNormalization": Case([node("LayerNormalization", "x g b")], {"g": W, "b": [1.0, 2.0, 3.0, 4.0]}),
    "Softmax of old": Case([node("Reshape", "x s", "r"), node("Softmax", "r")], {"s": [0, 2, 2]}, version=11),
    "Dropout of old": Case([node("Dropout", ratio=0.25)], version=11),
    "Einsum": Case(
        [node("Einsum", "x P x", equation="bi,ij,bj->b")],
        {"P": [[float(i * j - 2) for i in range(4)] for j in range(4)]},
    ),
    "Conv along": Case(
        [node("Reshape", "x s", "r"), node("Conv", "r W b", pads=[1, 0], strides=[2])],
        {"s": [0, 1, 4], "W": [[[1.0, -2.0, 0.5]], [[0.25, 3.0, 1.0]]], "b": [0.5, -1.0]},
    ),
    "Conv": Case(
        [node("Conv", "x W", pads=[0, 1, 1, 2], dilations=[1, 2])],
        {"W": [[[[1.0, -2.0], [0.5, 3.0]]]]},
        lengths=(1, 1, 2, 3),
    ),
    "Cast": Case([node("Cast", "x", "i", to=7), node("Cast", "i", to=DOUBLE)]),
}


def state_of(case: Case) -> list[float]:
    return [*STATE, -0.4, 0.7][: torch.Size(case.lengths).numel()]


# Of onnxruntime, at the state; in float32 where it has no float64.
EXPECTED = {
    "Neg": [-0.3, 1.2, -0.05, -2.0],
    "Relu": [0.3, 0.0, 0.05, 2.0],
    "Tanh": [0.29131261, -0.83365461, 0.049958375, 0.96402758],
    "Sigmoid": [0.57444252, 0.23147522, 0.5124974, 0.88079708],
    "Softplus": [0.85435522, 0.26328245, 0.71845967, 2.1269281],
    "Erf": [0.32862678, -0.91031396, 0.056371979, 0.99532229],
    "Sin": [0.29552021, -0.93203909, 0.049979169, 0.90929743],
    "Cos": [0.95533649, 0.36235775, 0.99875026, -0.41614684],
    "Tan": [0.30933627, -2.5721519, 0.050041709, -2.1850398],
    "Exp": [1.3498588, 0.30119421, 1.0512711, 7.3890561],
    "Abs": [0.3, 1.2, 0.05, 2.0],
    "Sign": [1.0, -1.0, 1.0, 1.0],
    "Identity": [0.3, -1.2, 0.05, 2.0],
    "Elu": [0.30000001, -0.69880581, 0.050000001, 2.0],
    "Selu": [0.31521031, -1.22857, 0.052535053, 2.101402],
    "LeakyRelu": [0.3, -0.012, 0.05, 2.0],
    "Atan": [0.29145679, -0.87605816, 0.049958393, 1.1071489],
    "Reciprocal": [3.3333333, -0.83333333, 20.0, 0.5],
    "Softmax": [0.13376355, 0.029846682, 0.10417515, 0.73221462],
    "Dropout": [0.3, -1.2, 0.05, 2.0],
    "Add": [0.8, -1.45, 1.55, 5.0],
    "Sub": [-0.2, -0.95, -1.45, -1.0],
    "Mul": [0.15, 0.3, 0.075, 6.0],
    "Div": [0.6, 4.8, 0.033333333, 0.66666667],
    "Min": [0.3, -1.2, 0.05, 2.0],
    "Max": [0.5, -0.25, 1.5, 3.0],
    "Sum": [0.8, -1.45, 1.55, 5.0],
    "Mean": [0.40000001, -0.72500002, 0.77499998, 2.5],
    "ReduceMean": [0.2875],
    "ReduceMax": [2.0],
    "ReduceMin": [-1.2],
    "ReduceSumSquare": [5.5325],
    "ReduceL1": [3.55],
    "ReduceL2": [2.3521267],
    "Greater": [0.5, -0.25, 1.5, 3.0],
    "GreaterOrEqual": [0.5, -0.25, 1.5, 2.0],
    "Less": [0.3, -1.2, 0.05, 3.0],
    "LessOrEqual": [0.3, -1.2, 0.05, 2.0],
    "Equal": [0.5, -0.25, 1.5, 2.0],
    "Elu with alpha": [0.30000001, -0.3494029, 0.050000001, 2.0],
    "LeakyRelu with alpha": [0.3, -0.3, 0.05, 2.0],
    "Gelu": [0.18537344, -0.13808359, 0.025996942, 1.9544997],
    "Gelu by tanh": [0.18537092, -0.13829724, 0.025996938, 1.9545977],
    "Log": [-1.2039728, 0.18232156, -2.9957323, 0.69314718],
    "Sqrt": [0.54772256, 1.0954451, 0.2236068, 1.4142136],
    "Pow 2": [0.09, 1.44, 0.0025, 4.0],
    "Pow each": [0.3, 1.44, 0.000125, 4.0],
    "Max of three": [0.5, 0.0, 1.5, 3.0],
    "Gemm": [-1.65, 5.25, -1.19375],
    "Gemm with all": [-0.675, 2.325, -0.14687498],
    "MatMul": [-1.75, 5.45, -1.49375],
    "Clip": [0.3, -0.5, 0.05, 0.5],
    "Clip above": [0.3, -1.2, 0.05, 0.5],
    "Clip of old": [0.25, -0.5, 0.050000001, 0.25],
    "And Or Not Cast": [1.0, 0.0, 1.0, 1.0],
    "ReduceSum": [1.15],
    "ReduceSum of old": [1.15],
    "ReduceSum of nothing": [0.3, -1.2, 0.05, 2.0],
    "ReduceMax of new": [2.0],
    "Split": [0.05, 2.0, 0.3, -1.2],
    "Split by sizes": [-1.2, 0.05, 2.0, 0.3],
    "Split of old": [2.0, 0.3, -1.2, 0.05],
    "Split unevenly": [-0.4, 0.3, -1.2],
    "Slice": [-1.2, 0.05, 2.0],
    "Slice backwards": [2.0, -1.2],
    "Slice in steps": [0.3, 0.05],
    "Slice of old": [-1.2, 0.05],
    "Gather": [0.05, 2.0, 0.3],
    "Gather one": [-1.2],
    "Gather a matrix": [0.3, -1.2, 2.0, 0.05],
    "Transpose": [0.3, 0.05, -1.2, 2.0],
    "Flatten": [-11.7, 20.05],
    "Squeeze": [0.15, 0.3, 0.075, 6.0],
    "Squeeze of old": [0.3, -1.2, 0.05, 2.0],
    "Shape": [0.8, -0.7, 0.55, 2.5],
    "Constant": [0.225, -0.9, 0.0375, 1.5],
    "Expand": [0.3, -1.2, 0.05, 2.0, 0.3, -1.2, 0.05, 2.0, 0.3, -1.2, 0.05, 2.0],
    "BatchNormalization": [0.99999999, 2.0, 3.0, 4.0],
    "LayerNormalization": [1.0054806, 2.3260959, 2.6876056, 8.5050561],
    "Softmax of old": [0.13376355, 0.029846682, 0.10417515, 0.73221462],
    "Dropout of old": [0.3, -1.2, 0.05, 2.0],
    "Einsum": [21.365],
    "Conv along": [-0.70000005, 0.19999993, -1.3, 0.85000002],
    "Conv": [1.2, 3.3, -1.4000001, 0.40000001, 0.80000001, 0.60000002, -0.40000001, 0.69999999],
    "Cast": [0.0, -1.0, 0.0, 2.0],
}
