"""A function from an ONNX file: its operations on one state, run on a batch of states by ``torch.func.vmap``.

So a file whose batch is fixed to 1 takes batches too, and none couples the states of one. Nothing in the file is run but the operations
of ``OPERATIONS``.
"""

import inspect
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from analysis.user_function.onnx_files.messages import (
    AttributeMessage,
    GraphMessage,
    MalformedError,
    ModelMessage,
    NodeMessage,
    ValueInfo,
    decoded,
)
from analysis.user_function.onnx_files.operations import OPERATIONS, Operation
from analysis.user_function.onnx_files.tensors import Beside, tensor_of
from stabdeq.errors import ConfigError, closest
from stabdeq.reading import of_single_keys, read_regular

VERSIONS = range(7, 29)  # of the set of operations: broadcasting is NumPy's from 7 on
MOST_BYTES = 2**28
MOST_NUMBERS = 2**24  # in one tensor, of one state
FLOAT_ATTRIBUTE, INT_ATTRIBUTE, STRING_ATTRIBUTE, TENSOR_ATTRIBUTE, FLOATS_ATTRIBUTE, INTS_ATTRIBUTE = 1, 2, 3, 4, 6, 7


@dataclass(frozen=True)
class Step:
    """One operation of the file; ``inputs`` and ``outputs`` are names, None for an input that is left out."""

    label: str
    operation: Operation
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def run(self, known: dict[str, Any]) -> None:
        """Add the results of the operation on what is ``known``. Raises ConfigError where it cannot be done."""
        given: list[Any] = [None if name is None else known[name] for name in self.inputs]
        for place in self.operation.constant:
            if place < len(given) and given[place] is not None:
                given[place] = given[place].tolist()
        try:
            found = self.operation.function(*given, **self.attributes)
        except (MalformedError, RuntimeError, IndexError, ValueError, TypeError, ZeroDivisionError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"{self.label}: {text}") from error
        results = found if isinstance(found, tuple | list) else [found]
        if len(results) != len(self.outputs):
            raise ConfigError(f"{self.label} has {len(self.outputs)} outputs, of which {len(results)} are known here")
        for name, result in zip(self.outputs, results, strict=True):
            if result.numel() > MOST_NUMBERS:
                raise ConfigError(f"{self.label} gives {result.numel()} numbers; expected at most {MOST_NUMBERS}")
            known[name] = result


class OnnxNetwork(nn.Module):
    """The function that an ONNX file holds, in float64: of inputs (B, ...), its one output (B, k). ``sha256`` is of all that was read."""

    def __init__(self, name: str, graph: GraphMessage, version: int, beside: Beside) -> None:
        super().__init__()
        self.name, self.sha256 = name, ""
        self.names: list[str] = []
        for message in graph.initializer:
            try:
                self._hold(message.name, tensor_of(message, beside))
            except MalformedError as error:
                raise ConfigError(f"{name}: the initialiser {message.name!r} {error}") from None
        self.inputs = [_input(one, name) for one in graph.input if one.name not in self.names]
        for sort, names in (("initialisers", self.names), ("inputs", [one for one, _ in self.inputs])):
            if len(set(names)) < len(names):
                raise ConfigError(
                    f"{name}: two {sort} have one name, among {', '.join(map(repr, names))}: export it again"
                )
        if len(graph.output) != 1:
            words = ", ".join(repr(one.name) for one in graph.output)
            raise ConfigError(
                f"{name}: expected one output, got {len(graph.output)}: {words}; export the one that is meant"
            )
        self.output = graph.output[0].name
        self.steps: list[Step] = []
        self._read(graph, version, beside)

    def _hold(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(f"constant_{len(self.names)}", tensor)
        self.names.append(name)

    def _constants(self) -> dict[str, Any]:
        return {name: self.get_buffer(f"constant_{place}") for place, name in enumerate(self.names)}

    def _read(self, graph: GraphMessage, version: int, beside: Beside) -> None:
        """Take over the operations in their order; those of constants alone are done at once."""
        constants = self._constants()
        fixed = set(constants)  # what depends on no state: constants, and what follows from shapes
        known = fixed | {name for name, _ in self.inputs}
        for node in graph.node:
            step = _step(
                node, f"{self.name}: node {(node.name or node.output[:1])!r} ({node.op_type})", version, beside
            )
            for place, name in enumerate(step.inputs):
                if name is not None and name not in known:
                    raise ConfigError(
                        f"{step.label} reads {name!r}, which is no input or initialiser and no result of a node before it "
                        "(an initialiser is missing, or the graph has a cycle)"
                    )
                if place in step.operation.constant and name is not None and name not in fixed:
                    raise ConfigError(
                        f"{step.label}: expected a constant as its input {place}, got {name!r}, which depends on the state"
                    )
            taken = [name for name in step.outputs if name in known]
            if taken or len(set(step.outputs)) < len(step.outputs):
                raise ConfigError(f"{step.label} writes a name twice: {', '.join(taken or step.outputs)}")
            known.update(step.outputs)
            if all(name is None or name in fixed for name in step.inputs) or node.op_type == "Shape":
                fixed.update(step.outputs)
            if all(name is None or name in constants for name in step.inputs):
                step.run(constants)
                for name in step.outputs:
                    self._hold(name, constants[name])
            else:
                self.steps.append(step)
        if self.output not in known:
            raise ConfigError(f"{self.name}: no node gives its output {self.output!r}")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output (B, k), all its numbers of a state in order, at ``inputs`` (B, n), one for each of the file's.

        Raises ConfigError where they do not fit the file's.
        """
        if len(inputs) != len(self.inputs):
            names = ", ".join(repr(name) for name, _ in self.inputs)
            raise ConfigError(f"{self.name} takes {len(self.inputs)} inputs, {names}; got {len(inputs)}")
        for given, (name, shape) in zip(inputs, self.inputs, strict=True):
            if not _fits(given.shape[1:], shape):
                lengths = ", ".join("any" if one == -1 else str(one) for one in shape)
                raise ConfigError(
                    f"{self.name} takes states of shape ({lengths}) as {name!r}, got a batch {tuple(given.shape)}"
                )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # where vmap has no rule, it loops
            return torch.func.vmap(self._of_one)(*inputs)

    def _of_one(self, *inputs: Tensor) -> Tensor:
        known = self._constants()
        for given, (name, shape) in zip(inputs, self.inputs, strict=True):
            # Said in full: what is left open (-1) cannot be told of an empty batch.
            known[name] = given.reshape([given.numel() // _count(shape) if one == -1 else one for one in shape])
        for step in self.steps:
            step.run(known)
        result = known[self.output]
        return result.reshape(result.numel())


def load_onnx(path: str | Path) -> OnnxNetwork:
    """Return the function in the ONNX file at ``path``, a module of float64: inputs (B, n), output (B, k).

    Numbers of the file are widened to float64, which is exact, and all real numbers are computed in it, whatever the file says. Each state
    is computed as a batch of one; the output's numbers of a state are given in order, whatever its shape.

    Raises:
        ConfigError: there is no such file, it is no ONNX model, or it holds something that is not known here: an operation, an
            attribute, a type, or data that is missing or lies outside the file's folder.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"expected an ONNX file, found none at {str(path)!r}")
    try:
        content = read_regular(path, MOST_BYTES)
        model = decoded(ModelMessage, memoryview(content))
    except OSError as error:
        raise ConfigError(
            f"{path.name} cannot be read ({error.strerror}): give a file that 'torch.onnx.export' wrote"
        ) from None
    except MalformedError as error:
        raise ConfigError(f"{path.name} is no ONNX model: {error}") from None
    versions = [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")]
    if model.graph is None or not versions:
        raise ConfigError(f"{path.name} is no ONNX model: it names no graph, or no version of the operations")
    if versions[0] not in VERSIONS:
        words = f"{VERSIONS.start} to {VERSIONS.stop - 1}"
        raise ConfigError(f"{path.name} uses version {versions[0]} of the operations; expected {words}")
    if model.functions or model.graph.sparse_initializer:
        what = "functions of its own" if model.functions else "sparse initialisers"
        raise ConfigError(f"{path.name} holds {what}, which are not known here; export it with plain operations")
    network = OnnxNetwork(path.name, model.graph, versions[0], beside := Beside(path.parent))
    network.sha256 = beside.sha256_with(content)
    return network


def _input(info: ValueInfo, name: str) -> tuple[str, list[int]]:
    """Return the name of an input, and its shape of one state: a leading length that is not known is 1, another one -1."""
    tensor = None if info.type is None else info.type.tensor_type
    if tensor is None or tensor.shape is None:
        return info.name, [1, -1]
    lengths = [-1 if one.value is None or one.value < 0 else one.value for one in tensor.shape.dim]
    if len(lengths) > 1 and lengths[0] == -1:
        lengths[0] = 1
    if lengths.count(-1) > 1 or 0 in lengths:
        raise ConfigError(
            f"{name}: expected an input with at most one length unknown besides the batch, got {lengths} of {info.name!r}"
        )
    return info.name, lengths


def _fits(given: torch.Size, shape: list[int]) -> bool:
    return given.numel() % _count(shape) == 0 if -1 in shape else given.numel() == _count(shape)


def _count(shape: list[int]) -> int:
    """Return the product of the lengths that are known."""
    return math.prod(one for one in shape if one != -1)


def _step(node: NodeMessage, label: str, version: int, beside: Beside) -> Step:
    """Return the operation that ``node`` names. Raises ConfigError where it, or an attribute, is not known."""
    if node.domain not in ("", "ai.onnx"):
        raise ConfigError(f"{label} is of the domain {node.domain!r}; expected ONNX's own operations")
    if node.op_type not in OPERATIONS:
        raise ConfigError(f"{label}: unknown operation {node.op_type!r}: {closest(node.op_type, OPERATIONS)}")
    operation = OPERATIONS[node.op_type]
    try:
        attributes = of_single_keys([(one.name, _attribute(one, label, beside)) for one in node.attribute])
    except ValueError as error:
        raise ConfigError(f"{label}: of its attributes {error}: export it again") from None
    outputs = tuple(node.output)
    while outputs and not outputs[-1]:
        outputs = outputs[:-1]
    expected = inspect.signature(operation.function)
    own = {"version": version, "outputs": len(outputs)}
    attributes |= {name: value for name, value in own.items() if name in expected.parameters}
    try:
        bound = expected.bind(*node.input, **attributes)
    except TypeError as error:
        raise ConfigError(f"{label} has inputs or attributes that are not known here: {error}") from None
    needed = [
        value for name, value in bound.arguments.items() if expected.parameters[name].default is inspect.Parameter.empty
    ]
    if any("" in value if isinstance(value, tuple) else value == "" for value in needed):
        raise ConfigError(f"{label} leaves out an input that it needs: its inputs are {node.input}")
    return Step(label, operation, tuple(name or None for name in node.input), outputs, attributes)


def _attribute(one: AttributeMessage, label: str, beside: Beside) -> Any:
    if one.type == TENSOR_ATTRIBUTE and one.t is not None:
        try:
            return tensor_of(one.t, beside)
        except MalformedError as error:
            raise ConfigError(f"{label}: its attribute {one.name!r} {error}") from None
    kinds: dict[int, Any] = {
        FLOAT_ATTRIBUTE: one.f,
        INT_ATTRIBUTE: one.i,
        STRING_ATTRIBUTE: one.s.decode(errors="replace"),
        FLOATS_ATTRIBUTE: one.floats,
        INTS_ATTRIBUTE: one.ints,
    }
    if one.type not in kinds:
        raise ConfigError(
            f"{label}: its attribute {one.name!r} is of ONNX's type {one.type}; expected a number, a text, a tensor or numbers"
        )
    return kinds[one.type]
