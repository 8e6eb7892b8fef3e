"""Dynamics that are affine in what a few numbers feed into them, f(z) = F(z, u(z)): a controlled system, whose u is its control."""

import copy
import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from analysis.proofs.intervals.operations import MOVES, SPLITS

aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.mul.Tensor, aten.mul.Scalar}
SUMS = {
    *(aten.neg.default, aten.rsub.Scalar, aten.sum.default, aten.sum.dim_IntList, operator.getitem),
    *(getattr(getattr(aten, name), kind) for name in ("add", "sub") for kind in ("Tensor", "Scalar")),
    *MOVES,
    *SPLITS,
}
QUOTIENTS = {aten.div.Tensor, aten.div.Scalar}
LAYERS = {aten.mm.default, aten.addmm.default}


class Controlled(NamedTuple):
    """The ``control`` u of one state (1, n), of any ``shape``, and the ``velocity`` F(z, u), which is affine in u in real arithmetic."""

    control: fx.GraphModule
    velocity: fx.GraphModule
    shape: torch.Size


def controlled(velocity_graph: fx.GraphModule) -> Controlled | None:
    """Return the dynamics of one state (1, n) by their control: the first numbers, no more than n, that are made of a layer's and that
    they are affine in. None where there are no such numbers.
    """
    nodes = list(velocity_graph.graph.nodes)
    after: set[fx.Node] = set()
    for node in nodes[1:-1]:
        if node.target in LAYERS or not after.isdisjoint(node.all_input_nodes):
            after.add(node)
            found = node.meta["val"]
            few = isinstance(found, Tensor) and found.numel() <= nodes[0].meta["val"].shape[1]
            if few and _degree(nodes, node) == 1:
                return Controlled(
                    ending_at(velocity_graph, node.name), _of_both(velocity_graph, node.name), found.shape
                )
    return None


def ending_at(graph: fx.GraphModule, name: str) -> fx.GraphModule:
    """Return the graph of what the node called ``name`` gives."""
    part = copy.deepcopy(graph)
    (output,) = [node for node in part.graph.nodes if node.op == "output"]
    (last,) = [node for node in part.graph.nodes if node.name == name]
    output.args = (last,)
    part.graph.eliminate_dead_code()
    part.recompile()
    return part


def _of_both(graph: fx.GraphModule, name: str) -> fx.GraphModule:
    """Return the graph as a function of the state and of what the node called ``name`` gives."""
    part = copy.deepcopy(graph)
    states, *nodes = part.graph.nodes
    (given,) = [node for node in nodes if node.name == name]
    with part.graph.inserting_after(states):
        given.replace_all_uses_with(part.graph.placeholder("control"))
    part.graph.eliminate_dead_code()
    part.recompile()
    return part


def _degree(nodes: list[fx.Node], given: fx.Node) -> int:
    """Return the degree of the last of ``nodes`` as a polynomial in what a node ``given`` gives, 2 where it is more or none is known."""
    degrees: dict[Any, int] = {given: 1}
    for node in nodes[nodes.index(given) + 1 : -1]:
        if degrees.keys().isdisjoint(node.all_input_nodes):
            continue
        of_args = [degrees.get(argument, 0) for argument in node.args if isinstance(argument, fx.Node)]
        degrees[node] = 2
        if node.target in SUMS:
            degrees[node] = max(degrees.get(one, 0) for one in node.all_input_nodes)
        elif node.target in PRODUCTS:
            degrees[node] = min(2, sum(of_args))
        elif node.target in QUOTIENTS and degrees.get(node.args[1], 0) == 0:
            degrees[node] = of_args[0]
    return degrees.get(nodes[-1].args[0], 0)
