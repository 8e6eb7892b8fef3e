"""A function's graph evaluated at one state in ball arithmetic.

The function meant is the one that the graph's operations define in real arithmetic, with its constants as they are.
"""

import operator
from typing import Any

import numpy as np
import torch
from torch import fx

from analysis.proofs.balls.ball import Balls, Truths
from analysis.proofs.balls.operations import OPERATIONS, UnreadableError, as_balls, constant
from analysis.proofs.intervals.operations import STORAGE, other_kind

BALLS = "balls"  # under which a node of a constant keeps it


def evaluate(graph: fx.GraphModule, state: np.ndarray, direction: np.ndarray | None = None) -> Balls:
    """Return the value of the graph of one state at ``state`` (n,), and its derivative along ``direction`` (n,), at the precision set.

    Raises UnreadableError where an operation has no form here.
    """
    known: dict[fx.Node, Any] = {}
    for node in graph.graph.nodes:
        arguments: Any = fx.map_arg((node.args, node.kwargs), lambda argument: known[argument])
        args, kwargs = arguments
        if node.op == "placeholder":
            known[node] = Balls(state[None], None if direction is None else direction[None])
        elif node.op == "get_attr":
            if BALLS not in node.meta:  # of wide layers they are many
                node.meta[BALLS] = constant(operator.attrgetter(str(node.target))(graph))
            known[node] = node.meta[BALLS]
        elif node.op == "output":
            return as_balls(args[0]).moved(lambda numbers: numbers[0])
        elif node.target is operator.getitem:
            known[node] = operator.getitem(*args)
        else:
            known[node] = _operation(node, args, kwargs)
    raise UnreadableError("the graph has no output")


def _operation(node: fx.Node, args: Any, kwargs: Any) -> Any:
    options = {name: value for name, value in kwargs.items() if name not in STORAGE}
    if options.pop("dtype", None) not in (None, torch.float64, torch.bool) or node.target not in OPERATIONS:
        raise UnreadableError(f"the operation {node.target} has no form in ball arithmetic")
    try:
        found = OPERATIONS[node.target](*args, **options)
    except (TypeError, AttributeError, IndexError) as error:
        raise UnreadableError(f"the operation {node.target} has no form in ball arithmetic here") from error
    words = other_kind(node, [isinstance(one, Truths) for one in (found if isinstance(found, list) else [found])])
    if words is not None:
        raise UnreadableError(words)
    return found
