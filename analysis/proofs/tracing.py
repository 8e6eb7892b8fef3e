"""A function of states as a graph of elementary operations, for those that read it otherwise than by running it."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx


class TraceError(Exception):
    """A function cannot be written as one graph: it leaves PyTorch, or chooses its operations by the values it meets."""


def trace(function: Callable[[Tensor], Tensor], states: Tensor) -> fx.GraphModule:
    """Return what ``function`` does to ``states`` (B, n) as a graph of core ATen operations, derivatives in it included.

    The graph is for batches of this size alone. Tensors that the function reads besides (weights, constants) are attributes
    of the graph module. Raises TraceError where it cannot be traced. What NumPy or Python computed of the states stands in
    the graph as a constant: a proof asks ``require_symbolic`` first.
    """
    try:
        # The table's own type is wider than what make_fx declares.
        table: Any = core_aten_decompositions()
        graph = make_fx(function, decomposition_table=table, tracing_mode="real")(states)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TraceError(f"it cannot be traced: {reason}") from error
    # A decomposition may round otherwise than the operation.
    if not torch.allclose(graph(states), function(states), rtol=1e-12, atol=1e-300):
        raise TraceError("its trace does not repeat its values")
    return graph


def require_symbolic(function: Callable[[Tensor], Tensor], states: Tensor) -> None:
    """Raise TraceError where ``function`` reads the numbers in ``states`` (B, n) otherwise than by operations on tensors.

    It is called with states that have no numbers to read.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Accessing the data pointer")
        try:
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                function(mode.from_tensor(states))
        except Exception as error:
            raise TraceError("it cannot be traced: it reads a state otherwise than by operations on tensors") from error
