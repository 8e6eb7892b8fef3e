"""A function of states as a graph of elementary operations, for those that read it otherwise than by running it.

The operations are recorded as they run, on tensors that hand no number out. A graph stands for the function only where the same
operations are recorded of one state and of several, with gradients and without; where nothing raised an exception on the way,
which the function may have caught; and where nothing was drawn at random.
"""

import math
import operator
import sys
import sysconfig
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from analysis.proofs import einsum
from analysis.proofs.decompositions import DECOMPOSITIONS

# Two floats that differ by no more than sums taken in another order.
AGREEMENT = 1e-12
BATCH_AGREEMENT = 1e-9  # of one state with itself in a large batch, of the typical size
READS_STATE = "it reads a state otherwise than by operations on tensors"
# What forward differentiation asks of tensors: of their sizes, not of their numbers.
SIZES_ALONE = {torch.ops.aten._has_same_storage_numel.default, torch.ops.aten.is_same_size.default}
READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class TraceError(Exception):
    """A function is not one graph of operations: it leaves PyTorch, or chooses its operations by the values it meets."""


class _MutationError(TraceError):
    """It writes into a tensor, which no graph of pure operations does."""


def read(function: Callable[[Tensor], Tensor], states: Tensor) -> fx.GraphModule:
    """Return ``function``, (B, n) -> (B, *), on the first of ``states`` (B, n), B >= 2, as a graph of core ATen operations.

    The graph is for one state (1, n). Tensors that the function reads besides (weights, constants) are attributes of the graph
    module. Raises TraceError, with the reason, where no one graph stands for the function.
    """
    one, root = _traced(function, states[:1])
    _require_finite(one)
    for others, needs_gradient in ((states, False), (states[:1], True), (states, True)):
        other, _ = _traced(function, others, needs_gradient=needs_gradient)
        _require_equal(one, other, len(others), needs_gradient)
    return fx.GraphModule(root, one)


def stands_for(graph: fx.GraphModule, function: Callable[[Tensor], Tensor], states: Tensor, size: float) -> bool:
    """Return whether ``function`` gives at ``states`` (B, n) what its ``graph`` does of each, to another order of sums.

    ``size`` is that of its values, to which the rounding of sums is relative.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # where vmap has no rule, it loops
        found, expected = function(states), torch.func.vmap(graph)(states[:, None])[:, 0]
    return torch.allclose(found, expected, rtol=BATCH_AGREEMENT, atol=BATCH_AGREEMENT * size, equal_nan=True)


def size_of(function: Callable[[Tensor], Tensor], states: Tensor) -> float:
    """Return the largest finite value of ``function`` at ``states`` (B, n), in magnitude."""
    with torch.no_grad():
        return float(function(states).abs().nan_to_num(0, 0, 0).max())


def trace(function: Callable[[Tensor], Tensor], states: Tensor, *, needs_gradient: bool = False) -> fx.GraphModule:
    """Return the operations that ``function`` makes of ``states`` (B, n), for a batch of this size, in this mode of gradients.

    Raises TraceError where it cannot be recorded, or what is recorded does not give what the function gives.
    """
    graph, root = _traced(function, states, needs_gradient=needs_gradient)
    return fx.GraphModule(root, graph)


def _traced(
    function: Callable[[Tensor], Tensor], states: Tensor, *, needs_gradient: bool = False
) -> tuple[fx.Graph, torch.nn.Module]:
    """Return the operations, and the module whose attributes are the tensors that they read besides."""
    try:
        recorder, result = _watched(function, states, needs_gradient)
    except _MutationError:  # recorded again, each operation that writes into a tensor as one that returns a new tensor
        recorder, result = _watched(torch.func.functionalize(function), states, needs_gradient)
    graph = recorder.finished(result)
    with torch.set_grad_enabled(needs_gradient):
        expected = function(states.detach().clone().requires_grad_(needs_gradient)).detach()
    # Run once, a graph is interpreted sooner than its code is written and compiled.
    found = fx.Interpreter(recorder.root, graph=graph).run(states)
    if found.shape != expected.shape or not torch.allclose(
        found, expected, rtol=AGREEMENT, atol=1e-300, equal_nan=True
    ):
        raise TraceError("its operations, run again, do not give its values")
    return graph, recorder.root


def _watched(function: Callable[[Tensor], Tensor], states: Tensor, needs_gradient: bool) -> tuple["_Recorder", Any]:
    """Return what recorded ``function``, and its result; raises TraceError where it raises an exception that it may have caught."""
    _decompositions()  # what is imported for us is no part of the function
    raised: list[str] = []
    # A first call may import and fill caches, which raises and catches exceptions that mean nothing: a second one counts.
    for _ in range(2):
        raised.clear()
        recorder = _Recorder()
        with _exceptions(raised):
            result = _recorded(function, states, recorder, needs_gradient)
        if not raised:
            return recorder, result
    raise TraceError(f"it cannot be traced: {raised[0]}")


def _recorded(function: Callable[[Tensor], Tensor], states: Tensor, recorder: "_Recorder", needs_gradient: bool) -> Any:
    with recorder, einsum.Einsum(), torch.set_grad_enabled(needs_gradient):
        try:
            result = function(recorder.input(states.detach().clone(), needs_gradient))
        except Exception as error:
            if recorder.mutating:
                raise _MutationError(_writes(recorder.mutating)) from error
            reason = recorder.refusal or (READS_STATE if "tensor subclass" in str(error) else _first_line(error))
            raise TraceError(f"it cannot be traced: {reason}") from error
    if recorder.mutating:
        raise _MutationError(_writes(recorder.mutating))
    if recorder.refusal:
        raise TraceError(f"it cannot be traced: {recorder.refusal}")
    return result


def _writes(operation: str) -> str:
    return f"it cannot be traced: the operation {operation} writes into a tensor"


class _Recorded(torch.Tensor):
    """A tensor without a storage of its own: ``value`` is what was computed, ``node`` the operation that did."""

    value: Tensor
    node: fx.Node

    @staticmethod
    def __new__(cls, value: Tensor, node: fx.Node, requires_grad: bool = False) -> "_Recorded":
        made = torch.Tensor._make_wrapper_subclass(  # pyrefly: ignore
            cls,
            value.shape,
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=value.device,
            requires_grad=requires_grad,
        )
        made.value, made.node = value, node
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyrefly: ignore

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # pyrefly: ignore
        raise TraceError(READS_STATE)


class _Recorder(TorchDispatchMode):
    """Records each operation on what the input leads to, as a node of a graph; ``refusal`` says why the graph is none."""

    def __init__(self) -> None:
        super().__init__()
        self.graph, self.root = fx.Graph(), torch.nn.Module()
        self.attributes: dict[tuple[int, int], fx.Node] = {}
        self.held: list[Tensor] = []
        self.refusal = ""
        self.mutating = ""  # the first operation that writes into a tensor

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # skipping it would import torch._dynamo, two seconds or more; nothing is compiled here

    def input(self, states: Tensor, requires_grad: bool) -> _Recorded:
        node = self.graph.placeholder("states")
        node.meta["val"] = states
        return _Recorded(states, node, requires_grad)

    def finished(self, result: Any) -> fx.Graph:
        if not isinstance(result, Tensor):
            raise TraceError(f"it returns {type(result).__name__}, no tensor")
        self.graph.output(self._argument(result))
        self.graph.eliminate_dead_code()
        return self.graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            self._refuse(f"the operation {func} is random")
        if not any(issubclass(kind, _Recorded) for kind in types):
            return func(*args, **kwargs)
        if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):  # the same numbers
            return _Recorded(args[0].value, args[0].node)
        if READS & set(func.tags) and not _indexes_by_numbers(func, args):
            self._refuse(READS_STATE)
        if func._schema.is_mutable:
            self.mutating = self.mutating or str(func)
        else:
            found = self._decomposed(func, args, kwargs)
            if func in DECOMPOSITIONS and isinstance(found, tuple):
                whole = self._whole(func, args, kwargs)  # for the results that the decomposition leaves out
                return tuple(one if part is None else part for part, one in zip(found, whole, strict=True))
            if found is not NotImplemented:
                return found
        return self._whole(func, args, kwargs)

    def _decomposed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return what simpler operations make of it, NotImplemented where there are none; its constants are recorded, too."""
        own, theirs = DECOMPOSITIONS.get(func), _decompositions().get(func)
        if own is None and theirs is None and not _is_composite(func):
            return NotImplemented
        if own is None and theirs is not None:
            with self, _unwatched():
                return theirs(*args, **kwargs)
        if own is not None:
            args, kwargs = map_aggregate((args, kwargs), self._as_recorded)
        with self:
            return (own or func.decompose)(*args, **kwargs)

    def _as_recorded(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or isinstance(leaf, _Recorded):
            return leaf
        node = self._argument(leaf)
        return _Recorded(node.meta["val"], node)

    def _whole(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return what the operation itself gives, recorded as one node."""
        values, options = map_aggregate((args, kwargs), _value)
        result = func(*values, **options)
        if func in SIZES_ALONE:
            return result
        node = self.graph.call_function(func, *map_aggregate((args, kwargs), self._argument))
        return self._wrapped(result, node)

    def _wrapped(self, result: Any, node: fx.Node) -> Any:
        node.meta["val"] = result
        if isinstance(result, Tensor):
            return _Recorded(result, node)
        if isinstance(result, list | tuple):
            return type(result)(
                self._wrapped(part, self.graph.call_function(operator.getitem, (node, index)))
                for index, part in enumerate(result)
            )
        if result is not None:
            self._refuse(READS_STATE)
        return result

    def _argument(self, leaf: Any) -> Any:
        if isinstance(leaf, _Recorded):
            return leaf.node
        if not isinstance(leaf, Tensor):
            return leaf
        key = id(leaf), leaf._version
        # Writes through `.data` or NumPy change no version.
        if key not in self.attributes or not torch.equal(self.attributes[key].meta["val"], leaf.detach()):
            name, value = f"constant_{len(self.held)}", leaf.detach().clone()
            self.root.register_buffer(name, value)
            self.attributes[key] = self.graph.get_attr(name)
            self.attributes[key].meta["val"] = value
            self.held.append(leaf)  # as long as it lives, no other tensor gets its identity
        return self.attributes[key]

    def _refuse(self, reason: str) -> None:
        """Say why the graph stands for nothing; the function may catch the exception, so that it is remembered."""
        self.refusal = self.refusal or reason
        raise TraceError(self.refusal)


def _value(leaf: Any) -> Any:
    return leaf.value if isinstance(leaf, _Recorded) else leaf


@cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    from torch._decomp import core_aten_decompositions

    return dict(core_aten_decompositions())


def _indexes_by_numbers(func: Any, args: Any) -> bool:
    """Return whether ``func`` picks elements by numbers that are constants, not by truths or by what the states are."""
    if func is not torch.ops.aten.index.Tensor:
        return False
    return all(one is None or not (isinstance(one, _Recorded) or one.dtype == torch.bool) for one in args[1])


@cache
def _is_composite(func: Any) -> bool:
    """Return whether ``func`` is no operation of its own, but made of others."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


@contextmanager
def _exceptions(raised: list[str]) -> Generator[None]:
    """Note the exceptions ``raised`` in the block by the function itself, which may catch them and go on.

    Who traced before, such as a debugger, goes on doing so.
    """

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        follow = before and before(frame, event, argument)
        if frame.f_code.co_filename.startswith(_OTHERS):
            return follow
        frame.f_trace_lines = before is not None

        def local(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal follow
            if event == "exception" and argument[0] not in (StopIteration, GeneratorExit):
                raised.append(f"it raises {argument[0].__name__}: {_first_line(argument[1])}")
            follow = follow and follow(frame, event, argument)
            return local

        return local

    before: Any = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def _unwatched() -> Generator[None]:
    """PyTorch's own code in the block, which at its first call imports much, and slowly where each call is followed."""
    before = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(before)


# PyTorch and Python's own modules raise and catch for reasons of their own.
_OTHERS = (torch.__path__[0], sysconfig.get_path("stdlib") + "/", "<frozen", __file__, einsum.__file__)


def _first_line(error: BaseException) -> str:
    text = str(error)
    return text.splitlines()[0] if text.strip() else type(error).__name__


def _require_finite(graph: fx.Graph) -> None:
    """Raise TraceError where a constant in the graph is infinite or NaN: what it makes of other numbers may be no number."""
    for node in graph.nodes:
        numbers = [leaf for leaf in tree_flatten((node.args, node.kwargs))[0] if isinstance(leaf, float)]
        constant = [node.meta["val"]] if node.op == "get_attr" and node.meta["val"].is_floating_point() else []
        if not all(map(math.isfinite, numbers)) or not all(bool(one.isfinite().all()) for one in constant):
            raise TraceError("it computes with a constant that is infinite or NaN")


def _require_equal(one: fx.Graph, other: fx.Graph, size: int, needs_gradient: bool) -> None:
    """Raise TraceError unless ``other``, of a batch of ``size``, does to each state what ``one`` does to a single one."""
    mode = "with gradients" if needs_gradient else "without gradients"
    states = "one state" if size == 1 else f"{size} states"
    reason = (
        f"its operations on {states} {mode} are not those on one without: it depends on the batch, the mode or chance"
    )
    firsts, others = list(one.nodes), list(other.nodes)
    places = {node: place for nodes in (firsts, others) for place, node in enumerate(nodes)}
    if len(firsts) != len(others):
        raise TraceError(reason)
    for a, b in zip(firsts, others, strict=True):
        values, form = tree_flatten((a.args, a.kwargs))
        other_values, other_form = tree_flatten((b.args, b.kwargs))
        alike = a.op == b.op and form == other_form and (a.op != "call_function" or a.target is b.target)
        if a.op == "get_attr":
            alike = alike and _is_constant_of(a.meta["val"], b.meta["val"], size)
        if not alike or not all(
            places[x] == places[y] if isinstance(x, fx.Node) and isinstance(y, fx.Node) else _is_same(x, y, size)
            for x, y in zip(values, other_values, strict=True)
        ):
            raise TraceError(reason)


def _is_same(one: Any, other: Any, size: int) -> bool:
    """Return whether arguments are equal, or a length of one state's tensor and of that of ``size`` states."""
    if type(one) is int and type(other) is int:
        return other in (one, one * size)
    return type(one) is type(other) and one == other


def _is_constant_of(one: Tensor, other: Tensor, size: int) -> bool:
    """Return whether a constant is the same for ``size`` states, or has a row for each that is the one state's."""
    if one.dtype != other.dtype or one.dim() != other.dim():
        return False
    if one.shape != other.shape and not (one.shape[0] == 1 and other.shape == (size, *one.shape[1:])):
        return False
    return bool((one == other).all())
