"""A function of states as a graph of elementary operations, for those that read it otherwise than by running it."""

from collections.abc import Callable

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from stabdeq.errors import StabdeqError


class TraceError(StabdeqError):
    """A function cannot be written as one graph: it leaves PyTorch, or chooses its operations by the values it meets."""


def trace(function: Callable[[Tensor], Tensor], states: Tensor) -> fx.GraphModule:
    """Return what ``function`` does to ``states`` (B, n) as a graph of core ATen operations, derivatives in it included.

    The graph is for batches of this size alone. Tensors that the function reads besides (weights, constants) are attributes
    of the graph module. Raises TraceError where it cannot be traced.
    """
    try:
        graph = make_fx(function, decomposition_table=core_aten_decompositions(), tracing_mode="real")(states)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TraceError(f"it cannot be traced: {reason}") from error
    if not torch.equal(graph(states), function(states)):
        raise TraceError("its trace does not repeat its values")
    return graph
