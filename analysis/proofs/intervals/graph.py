"""A function of the user's, evaluated with its derivatives over whole boxes of states: its graph, read in interval arithmetic.

The function meant is the one that the graph's operations define in real arithmetic, with its constants as they are.
"""

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from analysis.proofs.intervals.interval import Interval
from analysis.proofs.intervals.jets import Bounds, Jet, Truth, rearranged
from analysis.proofs.intervals.operations import OPERATIONS, STORAGE, UnboundedError, as_jet, constant, other_kind
from analysis.proofs.tracing import TraceError, read, size_of, stands_for


class FunctionEnclosure:
    """Bounds of ``function``, (B, n) -> (B,) or (B, n), and of its derivatives over boxes of states.

    ``trial`` (B, n) are states, two or more, where it is defined and held against its graph: the ``graph`` given, made of graphs
    that were read, or what is read here. Raises UnboundedError where it cannot be
    bounded.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], trial: Tensor, graph: fx.GraphModule | None = None
    ) -> None:
        self._function = function
        try:
            self.graph = read(function, trial[:2]) if graph is None else graph
        except TraceError as error:
            raise UnboundedError(str(error)) from error
        self._size = size_of(function, trial)
        self._sources = _first_of_equals(self.graph.graph, {})
        self(Interval.point(trial[:2]), 2)
        if not self.agrees_at(trial):
            raise UnboundedError(f"at {len(trial)} states its values are not those of its operations")

    def agrees_at(self, states: Tensor) -> bool:
        """Return whether the function gives at each of ``states`` (B, n) what its operations do, to another order of sums."""
        return stands_for(self.graph, self._function, states, self._size)

    def __call__(self, boxes: Interval, order: int) -> Bounds:
        """Return the bounds over ``boxes`` (B, n) with every derivative up to ``order``; its shape is () or (n,)."""
        return self._result(self._known(boxes, order, self._sources)).bounds(boxes.shape, order)

    def at(self, state: Tensor) -> Bounds:
        """Return the bounds of first order at one ``state`` (n,), where g(z) - g(c) is seen to be 0 at z = c.

        What is known exactly there is told apart by its numbers alone: the state, say, is not told from a constant equal to
        it, and equal operations on both are the same.
        """
        point = Interval.point(state[None])
        exact = {
            node: _digits(found.value)
            for node, found in self._known(point, 0, self._sources).items()
            if _is_exact(found)
        }
        values = self._known(point, 0, _first_of_equals(self.graph.graph, exact))
        return self._result(self._known(point, 1, self._sources, values)).bounds(point.shape, 1)

    def _known(
        self,
        boxes: Interval,
        order: int,
        sources: dict[fx.Node, fx.Node],
        values: dict[fx.Node, Any] | None = None,
    ) -> dict[fx.Node, Any]:
        """Return what each node is; ``sources`` names the first of equal nodes, ``values`` are known bounds besides."""
        known: dict[fx.Node, Any] = {}
        for node, source in sources.items():
            found = known[source] if source is not node else self._evaluated(node, known, boxes, order)
            if values is not None and isinstance(found, Jet):
                found = replace(found, value=found.value.intersected(values[node].value))
            known[node] = found
        return known

    def _result(self, known: dict[fx.Node, Any]) -> Jet:
        """Return the jet of the one state of the batch."""
        return rearranged(lambda numbers: numbers[0], [as_jet(known[self.graph.graph.output_node()])])[0]

    def _evaluated(self, node: fx.Node, known: dict[fx.Node, Any], boxes: Interval, order: int) -> Any:
        if node.op == "placeholder":
            return Jet.states(boxes, order)
        if node.op == "get_attr":
            return constant(operator.attrgetter(str(node.target))(self.graph))
        inputs: Any = fx.map_arg((node.args, node.kwargs), lambda argument: known[argument])
        target: Any = node.target
        args, kwargs = inputs
        if node.op == "output":
            return args[0]
        if node.target is operator.getitem:
            return operator.getitem(*args)
        if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
            raise UnboundedError(f"the operation {node.target} is random")
        if not any(isinstance(known[argument], Jet | Truth) for argument in node.all_input_nodes):
            result = target(*args, **kwargs)
            # A quotient of integers is rounded, and so to be bounded below; what is read from no tensor is a constant.
            if not node.all_input_nodes or not result.is_floating_point():
                return constant(result)
        if node.target not in OPERATIONS or kwargs.get("dtype") not in (None, torch.float64):
            raise UnboundedError(f"the operation {node.target} has no interval form")
        options = {name: value for name, value in kwargs.items() if name not in STORAGE | {"dtype"}}
        try:
            found = OPERATIONS[node.target](*args, **options)
        except (TypeError, AttributeError) as error:
            raise UnboundedError(f"the operation {node.target} has no interval form with these arguments") from error
        words = other_kind(node, [isinstance(one, Truth) for one in (found if isinstance(found, list) else [found])])
        if words is not None:
            raise UnboundedError(words)
        return found


def _first_of_equals(graph: fx.Graph, exact: dict[fx.Node, str]) -> dict[fx.Node, fx.Node]:
    """Return for every node the first that does the same to the same, so that z[:, 0] * z[:, 0] is seen to be a square.

    ``exact`` nodes are the same where these texts of their numbers are.
    """
    sources: dict[fx.Node, fx.Node] = {}
    first: dict[str, fx.Node] = {}
    for node in graph.nodes:
        inputs = fx.map_arg((node.args, node.kwargs), lambda argument: sources[argument])
        operation = node.op if node.op in ("call_function", "output") else node.name
        sources[node] = first.setdefault(exact.get(node, repr((operation, str(node.target), inputs))), node)
    return sources


def _is_exact(found: Any) -> bool:
    return isinstance(found, Jet) and torch.equal(found.value.low, found.value.high)


def _digits(value: Interval) -> str:
    """Return the shape and the numbers of an exact interval as a text; 0 has one sign."""
    return repr((tuple(value.shape), (value.low + 0.0).flatten().tolist()))
