"""Functions made of a V and its dynamics, as graphs: V-dot along a vector field, and what V falls by in one step.

V's gradient is that of its recorded operations, whatever backward pass its author gave it.
"""

import copy
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx

from analysis.proofs.inputs import controlled, ending_at
from analysis.proofs.intervals.operations import MOVES, SCATTERS, SPLITS, UnboundedError
from analysis.proofs.tracing import trace

aten = torch.ops.aten
INCREASING = {aten.sigmoid.default, aten.tanh.default, aten.exp.default, aten.expm1.default, aten.atan.default}
# Where one of these changes, a function may jump, of which its derivative elsewhere tells nothing.
COMPARISONS = {
    getattr(getattr(aten, name), kind) for name in ("gt", "ge", "lt", "le", "eq", "ne") for kind in ("Scalar", "Tensor")
}
# Continuous where they are defined, with a derivative that PyTorch records as it is in real arithmetic; that of erf, exp2 or log10 has
# a constant that is rounded, and floor or atan2 jump where no derivative tells.
CONTINUOUS = {
    *MOVES,
    *SPLITS,
    *SCATTERS,
    *(
        getattr(aten, name).default
        for name in ["exp", "expm1", "log", "log1p", "sin", "cos", "tan", "tanh", "sigmoid", "atan", "asin", "acos"]
    ),
    *(
        getattr(aten, name).default
        for name in ["sinh", "cosh", "asinh", "acosh", "atanh", "square", "sqrt", "rsqrt", "reciprocal"]
    ),
    *(
        getattr(aten, name).default
        for name in ["neg", "abs", "relu", "leaky_relu", "hardtanh", "elu", "clamp", "clamp_min", "clamp_max"]
    ),
    *(
        getattr(aten, name).default
        for name in ["maximum", "minimum", "amax", "amin", "mm", "bmm", "addmm", "sum", "mean", "copy", "_to_copy"]
    ),
    *(
        getattr(aten, name).default
        for name in ["full_like", "zeros_like", "ones_like", "logical_and", "logical_or", "logical_not"]
    ),
    *(getattr(getattr(aten, name), kind) for name in ("add", "sub", "mul", "div") for kind in ("Tensor", "Scalar")),
    *(getattr(aten, name).Tensor for name in ("bitwise_and", "bitwise_or")),
    *(aten.rsub.Scalar, aten.sum.dim_IntList, aten.mean.dim, aten.bitwise_not.default, aten.where.self),
}
SIGNS = {aten.sign.default, aten.sgn.default}


def lie_derivative(value_graph: fx.GraphModule, velocity_graph: fx.GraphModule, state: Tensor) -> fx.GraphModule:
    """Return the graph of w(z) = grad V(z) . f(z) of one state (1, n), given those of V and f; ``state`` (1, n) is one to record at.

    Of dynamics F(z, u(z)) that are affine in their control u, w is grad V . F(z, 0) + (dF/du' grad V) . u, where parts of grad V may
    cancel before the wide range of u is met.

    Where V has a kink, bounds of w over a box that holds it are to hold every product of f with a generalised (Clarke) gradient, which
    they do if no comparison is taken to be certain of numbers that touch. Where V may jump, bounds of w are NaN: a term 0 / s is
    added, with s = 1 or -1 as the comparison has it. Raises UnboundedError where V's derivative is not known in real
    arithmetic.
    """
    jumps, parts = _jumps(value_graph), controlled(velocity_graph)

    def along(states: Tensor) -> Tensor:
        with torch.enable_grad():
            at = states.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(value_graph(at).sum(), at)
        if parts is None:
            total = (gradient * velocity_graph(states)).sum(1)
        else:
            none = torch.zeros(parts.shape, dtype=states.dtype, requires_grad=True)
            with torch.enable_grad():
                drift = (gradient * parts.velocity(states, none)).sum(1)
                (slope,) = torch.autograd.grad(drift.sum(), none)
            total = drift + (slope * parts.control(states)).sum()
        for jump in jumps:
            total = total + (0 / jump(states)).sum()
        return total

    return trace(along, state)


def composed(value_graph: fx.GraphModule, step_graph: fx.GraphModule, kappa: float, state: Tensor) -> fx.GraphModule:
    """Return the graph of V(g(z)) - (1 - kappa) V(z) of one state (1, n), given those of V and of the next state g."""
    matrix = _quadratic(value_graph)

    def falls(states: Tensor) -> Tensor:
        value, after = value_graph(states), step_graph(states)
        change = value_graph(after) - value
        if matrix is not None:
            # With P = P', V(g) - V(z) = (g - z)'P(g + z), whose bounds are closer.
            change = ((after - states) @ matrix * (after + states)).sum(1)
        return change + kappa * value if kappa else change

    return trace(falls, state)


def without_last_increase(value_graph: fx.GraphModule) -> fx.GraphModule:
    """Return the graph of h where V = s(h) with a strictly increasing and smooth s, such as a sigmoid that ends a network; else V's.

    V-dot = s'(h) h-dot has the sign of h-dot, since s' > 0: in a claim V-dot < 0 (or <= 0) h may stand for V. In one of
    V-dot + alpha V with alpha > 0 it may not, nor in one about the values of V.
    """
    found = copy.deepcopy(value_graph)
    (output,) = [node for node in found.graph.nodes if node.op == "output"]
    node = output.args[0]
    while isinstance(node, fx.Node) and node.target in (*MOVES, *INCREASING) and isinstance(node.args[0], fx.Node):
        inner = node.args[0]
        if node.target in INCREASING:
            node.replace_all_uses_with(inner)
        node = inner
    found.graph.eliminate_dead_code()
    found.recompile()
    return found


def _jumps(value_graph: fx.GraphModule) -> list[Callable[[Tensor], Tensor]]:
    """Return functions of states (1, n), of values 1 and -1 (a sign's 0 besides), that change wherever V may jump."""
    found = []
    for node in value_graph.graph.nodes:
        depends = any(isinstance(one.meta.get("val"), Tensor) for one in node.all_input_nodes)
        if node.op == "call_function" and depends and not _is_known(node):
            raise UnboundedError(f"the derivative of the operation {node.target} is not known in real arithmetic")
        if node.target in COMPARISONS | SIGNS:
            found.append(_up_to(value_graph, node.name, node.target in COMPARISONS))
    return found


def _is_known(node: fx.Node) -> bool:
    """Return whether an operation is continuous and has the derivative that PyTorch records, where no comparison or sign changes."""
    if node.target is aten.pow.Tensor_Scalar:
        exponent: Any = node.args[1]
        return Fraction(exponent) - 1 == Fraction(exponent - 1)  # which is the exponent of its derivative
    return node.target in CONTINUOUS | COMPARISONS | SIGNS


def _up_to(graph: fx.GraphModule, name: str, is_truth: bool) -> Callable[[Tensor], Tensor]:
    """Return the graph that ends at the node called ``name``, its truths as 1 and -1."""
    part = ending_at(graph, name)
    one = torch.ones((), dtype=torch.float64)
    return (lambda states: torch.where(part(states), one, -one)) if is_truth else part


def _quadratic(value_graph: fx.GraphModule) -> Tensor | None:
    """Return the matrix P (n, n) = P' where the graph is (z * (z P)).sum(1), else None."""
    nodes = list(value_graph.graph.nodes)
    if len(nodes) != 6 or [node.op for node in nodes][:2] != ["placeholder", "get_attr"]:
        return None
    states, matrix, product, square, total, output = nodes
    is_form = (
        (product.target, product.args) == (aten.mm.default, (states, matrix))
        and square.target is aten.mul.Tensor
        and set(square.args) == {states, product}
        and (total.target, total.args) == (aten.sum.dim_IntList, (square, [1]))
        and output.args == (total,)
    )
    found: Any = matrix.meta["val"]
    return found if is_form and torch.equal(found, found.mT) else None
