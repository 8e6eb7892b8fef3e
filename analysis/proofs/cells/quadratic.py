"""A quadratic Lyapunov function for piecewise affine dynamics, read from the function itself.

What is continuous and piecewise affine (a bound, an absolute value, the larger of two) is written in ReLUs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx

from analysis.proofs.cells.decay import Decay, Shortfall, find_decay
from analysis.proofs.cells.network import ReluNetwork
from analysis.proofs.matrices.enclosure import Enclosure, spectral_norm_bound
from analysis.proofs.tracing import read, trace
from stabdeq.linear_algebra import symmetric_eigenvalues

ATEN = torch.ops.aten
# Operations that move entries about and compute nothing: they act on coefficients as on states.
MOVES = {
    ATEN.alias.default,
    ATEN.clone.default,
    ATEN.select.int,
    ATEN.slice.Tensor,
    ATEN.squeeze.dims,
    ATEN.unsqueeze.default,
    ATEN.permute.default,
    ATEN.flip.default,
    ATEN.index_select.default,
}


ADDS, SUBTRACTS = (ATEN.add.Tensor, ATEN.add.Scalar), (ATEN.sub.Tensor, ATEN.sub.Scalar)
MULTIPLIES, DIVIDES = (ATEN.mul.Tensor, ATEN.mul.Scalar), (ATEN.div.Tensor, ATEN.div.Scalar)


class NotPiecewiseAffineError(Exception):
    """A function is not continuous and piecewise affine, as far as it can be read."""


@dataclass(frozen=True)
class Quadratic:
    """V = (z - z*)'P(z - z*) falls at rate 2 ``decay.rate`` everywhere, for the one equilibrium z*.

    z* lies within ``reach`` of the origin.
    """

    decay: Decay
    reach: float


def find_quadratic(velocity: Callable[[Tensor], Tensor], dim: int) -> Quadratic | Shortfall:
    """Return a proved quadratic Lyapunov function of z' = ``velocity`` (z), (B, dim) -> (B, dim), or how far the search came.

    Raises TraceError or NotPiecewiseAffineError where the function cannot be read.
    """
    network = read_network(velocity, dim)
    found = find_decay(network)
    if isinstance(found, Shortfall):
        return found
    # ||0 - z*||_P <= ||v(0)||_P / a.
    at_origin = _at_origin(network)
    values = symmetric_eigenvalues(found.norm)
    least = float(values[0]) / 2
    stretched = Enclosure.exact(found.norm - least * torch.eye(dim, dtype=torch.float64))
    if not bool(stretched.is_positive_definite()):
        return Quadratic(found, torch.inf)
    largest = spectral_norm_bound(Enclosure.exact(found.norm))
    return Quadratic(found, (largest / least) ** 0.5 * float(at_origin.norm()) / found.rate * (1 + 1e-12))


def _at_origin(network: ReluNetwork) -> Enclosure:
    entering = network.bias[None]
    for _ in range(network.depth):
        entering = network.bias[None] + entering.relu() @ network.hidden.mT
    return (entering.relu() @ network.output.mT + network.shift[None])[0]


def read_network(velocity: Callable[[Tensor], Tensor], dim: int) -> ReluNetwork:
    """Return ``velocity`` as one network of affine maps and ReLUs, its constants those that PyTorch computes.

    Raises TraceError or NotPiecewiseAffineError where it cannot be read.
    """
    states = torch.randn(dim + 3, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    read(velocity, states)  # that it is one graph; the reader sees by a batch's own what mixes its states
    reader = _Reader(trace(velocity, states), dim, len(states))
    return reader.network()


class _Reader:
    """Runs a graph on affine forms: the coefficients (1 + n + m, *) of each value on 1, the n states and the m activations."""

    def __init__(self, graph: fx.GraphModule, dim: int, batch: int) -> None:
        self.graph, self.dim, self.batch = graph, dim, batch
        self.entering: list[Enclosure] = []  # coefficients (K, width) of what enters each ReLU, K growing
        self.count = 1 + dim
        self._rules: dict[Any, Callable[..., Enclosure]] = {
            ATEN.relu.default: self._relu,
            ATEN.leaky_relu.default: self._leaky,
            ATEN.abs.default: self._absolute,
            ATEN.maximum.default: self._larger,
            ATEN.minimum.default: self._smaller,
            ATEN.clamp.default: self._clamp,
            ATEN.clamp_min.default: self._clamp,
            ATEN.clamp_max.default: lambda form, most: self._clamp(form, None, most),
            ATEN.hardtanh.default: lambda form, least=-1.0, most=1.0: self._clamp(form, least, most),
            ATEN.amax.default: lambda *over: self._folded(self._larger, *over),
            ATEN.amin.default: lambda *over: self._folded(self._smaller, *over),
            ATEN.sum.dim_IntList: lambda *over: self._folded(self._add, *over),
            ATEN.mean.dim: self._mean,
        }

    def network(self) -> ReluNetwork:
        values: dict[fx.Node, Any] = {}
        result: Any = None
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                start = torch.cat([torch.zeros(1, self.dim), torch.eye(self.dim)]).double()
                values[node] = Enclosure.exact(start)
            elif node.op == "get_attr":
                values[node] = getattr(self.graph, node.target).detach()
            elif node.op == "call_function":
                values[node] = self._apply(node, *fx.node.map_arg((node.args, node.kwargs), values.__getitem__))
            elif node.op == "output":
                result = values[node.args[0]]
        if not isinstance(result, Enclosure):
            raise NotPiecewiseAffineError("the velocity does not depend on the state")
        return self._assemble(result)

    def _assemble(self, result: Enclosure) -> ReluNetwork:
        n = self.dim
        output = self._widened(result).mT
        entering = [self._widened(part).mT for part in self.entering]
        blank = Enclosure.exact(torch.zeros(0, self.count, dtype=torch.float64))
        rows = Enclosure(
            *(torch.cat([getattr(part, name) for part in (blank, *entering)]) for name in ("centre", "radius"))
        )
        return ReluNetwork(
            skip=output[:, 1 : n + 1],
            output=output[:, n + 1 :],
            shift=output[:, 0],
            hidden=rows[:, n + 1 :],
            state=rows[:, 1 : n + 1],
            injection=Enclosure.exact(torch.zeros(len(rows.centre), 0, dtype=torch.float64)),
            bias=rows[:, 0],
            depth=max(1, len(self.entering)),
        )

    def _apply(self, node: fx.Node, arguments: Any, options: Any) -> Any:
        target, forms = node.target, [part for part in _flat(arguments) if isinstance(part, Enclosure)]
        if not forms:
            return target(*arguments, **options)  # pyrefly: ignore
        if target is ATEN.full_like.default:
            return torch.full((self.batch, *arguments[0].centre.shape[1:]), arguments[1], dtype=torch.float64)
        if target in MOVES and not options:
            return self._moved(target, arguments)
        if target in self._rules and not options:
            return self._rules[target](*arguments)
        if target is ATEN.rsub.Scalar and len(arguments) == 2 and not options:
            return self._add(-arguments[0], arguments[1])
        if target is ATEN.expand.default and not options:
            return self._expanded(*arguments)
        if target is ATEN.pow.Tensor_Scalar and arguments[1] == 1:
            return arguments[0]  # in a norm of order 1
        if target is ATEN.cat.default:
            return self._cat(*arguments)
        if target is ATEN.neg.default:
            return -arguments[0]
        if target in (*ADDS, *SUBTRACTS) and len(arguments) == 2 and not options:
            second = arguments[1]
            return self._add(arguments[0], -second if target in SUBTRACTS else second)
        if target in (*MULTIPLIES, *DIVIDES) and len(forms) == 1:
            return self._times(target, *arguments)
        if target is ATEN.mm.default and len(forms) == 1 and forms[0] is arguments[0]:
            return arguments[0] @ self._constant(arguments[1])
        if target is ATEN.addmm.default and len(forms) == 1 and forms[0] is arguments[1] and not options:
            return self._add(arguments[1] @ self._constant(arguments[2]), arguments[0])
        raise NotPiecewiseAffineError(f"the operation {target} is not read as piecewise affine")

    def _widened(self, form: Enclosure) -> Enclosure:
        missing = (self.count - len(form.centre), *form.centre.shape[1:])
        zeros = torch.zeros(missing, dtype=torch.float64)
        return Enclosure(torch.cat([form.centre, zeros]), torch.cat([form.radius, zeros]))

    def _constant(self, value: Any) -> Enclosure:
        return Enclosure.exact(torch.as_tensor(value, dtype=torch.float64))

    def _moved(self, target: Any, arguments: tuple[Any, ...]) -> Enclosure:
        form, rest = arguments[0], arguments[1:]
        if rest and not self._keeps_batch(target, form.centre.dim(), *rest):
            raise NotPiecewiseAffineError(f"the operation {target} mixes the states of a batch")
        if target is ATEN.slice.Tensor and rest[0] % form.centre.dim() == 0:
            return form
        return Enclosure(target(form.centre, *rest), target(form.radius, *rest))

    def _expanded(self, form: Enclosure, sizes: list[int]) -> Enclosure:
        if len(sizes) != form.centre.dim() or sizes[0] not in (-1, self.batch):
            raise NotPiecewiseAffineError("an expansion over the states of a batch")
        return Enclosure(*(part.expand(-1, *sizes[1:]) for part in (form.centre, form.radius)))

    def _keeps_batch(self, target: Any, dims: int, first: Any = 0, *rest: Any) -> bool:
        if target is ATEN.permute.default:
            return first[0] == 0
        if target in (ATEN.squeeze.dims, ATEN.flip.default):
            return all(dim % dims != 0 for dim in first)
        if target is ATEN.slice.Tensor and first % dims == 0:
            start, end, step = (*rest, *(None, None, 1)[len(rest) :])
            return start in (None, 0) and (end is None or end >= self.batch) and step == 1
        return first % (dims + (target is ATEN.unsqueeze.default)) != 0

    def _relu(self, form: Enclosure) -> Enclosure:
        shape = form.centre.shape[1:]
        self.entering.append(Enclosure(*(part.reshape(len(part), -1) for part in (form.centre, form.radius))))
        width = self.entering[-1].centre.shape[1]
        new = torch.cat([torch.zeros(self.count, width), torch.eye(width)]).double()
        self.count += width
        return Enclosure.exact(new.reshape(self.count, *shape))

    def _larger(self, first: Any, second: Any) -> Enclosure:
        """max(a, b) = a + relu(b - a)"""
        first, second = (first, second) if isinstance(first, Enclosure) else (second, first)
        return self._add(first, self._relu(self._add(-first, second)))

    def _smaller(self, first: Any, second: Any) -> Enclosure:
        return -self._larger(*(-part for part in (first, second)))

    def _absolute(self, form: Enclosure) -> Enclosure:
        """|x| = 2 relu(x) - x"""
        positive = self._relu(form)
        return self._add(self._add(positive, positive), -form)

    def _clamp(self, form: Enclosure, least: Any = None, most: Any = None) -> Enclosure:
        # The second bound is met by what the first one leaves: so a proof sees that the slopes of both are never together.
        if least is not None:
            form = self._relu(form) if _is_zero(least) else self._add(self._relu(self._add(form, -least)), least)
        return form if most is None else self._smaller(form, most)

    def _leaky(self, form: Enclosure, slope: float = 0.01) -> Enclosure:
        """s x + (1 - s) relu(x)"""
        positive = self._relu(form)
        return self._add(self._add(form, -positive) * slope, positive)

    def _folded(
        self, fold: Callable[[Any, Any], Enclosure], form: Enclosure, dims: list[int], keepdim: bool = False
    ) -> Enclosure:
        """Return ``fold`` of all slices along ``dims``."""
        rank = form.centre.dim()
        places = sorted((dim % rank for dim in dims or range(rank)), reverse=True)
        if 0 in places:
            raise NotPiecewiseAffineError("a sum or an extreme over the states of a batch")
        for place in places:
            slices = [form[(slice(None),) * place + (index,)] for index in range(form.centre.shape[place])]
            form = reduce(fold, slices)
            form = form[(slice(None),) * place + (None,)] if keepdim else form
        return form

    def _mean(self, form: Enclosure, dims: list[int], keepdim: bool = False) -> Enclosure:
        count = math.prod(form.centre.shape[dim] for dim in dims)
        return self._times(ATEN.div.Tensor, self._folded(self._add, form, dims, keepdim), count)

    def _cat(self, parts: list[Any], dim: int = 0) -> Enclosure:
        like = next(part for part in parts if isinstance(part, Enclosure))
        if dim % like.centre.dim() == 0:
            raise NotPiecewiseAffineError("a concatenation of the states of a batch")
        wide = [
            self._widened(part if isinstance(part, Enclosure) else self._as_form(self._alike(part, like)))
            for part in parts
        ]
        return Enclosure(*(torch.cat([getattr(part, name) for part in wide], dim) for name in ("centre", "radius")))

    def _as_form(self, constant: Tensor) -> Enclosure:
        return Enclosure.exact(
            torch.cat([constant[None], torch.zeros(self.count - 1, *constant.shape, dtype=torch.float64)])
        )

    def _add(self, first: Any, second: Any) -> Enclosure:
        if not isinstance(first, Enclosure):
            first, second = second, first
        if not isinstance(second, Enclosure):
            constant = self._alike(second, first)
            second = self._as_form(
                constant.reshape([1] * (first.centre.dim() - 1 - constant.dim()) + [*constant.shape])
            )
        if first.centre.dim() != second.centre.dim():
            raise NotPiecewiseAffineError("a sum of values of different shape mixes the states of a batch")
        return self._widened(first) + self._widened(second)

    def _times(self, target: Any, first: Any, second: Any) -> Enclosure:
        if not isinstance(first, Enclosure):
            if target in DIVIDES:
                raise NotPiecewiseAffineError("a division by the state")
            first, second = second, first
        factor = Enclosure.exact(self._alike(second, first))
        return first * (factor.reciprocal() if target in DIVIDES else factor)

    def _alike(self, value: Any, form: Enclosure) -> Tensor:
        """Return the constant that every state of the batch meets."""
        constant = torch.as_tensor(value, dtype=torch.float64)
        if constant.dim() < form.centre.dim():
            return constant
        if constant.dim() > form.centre.dim() or not bool((constant == constant[:1]).all()):
            raise NotPiecewiseAffineError("a constant differs between the states of a batch")
        return constant[0]


def _is_zero(value: Any) -> bool:
    return not isinstance(value, Tensor) and value == 0


def _flat(arguments: Any) -> list[Any]:
    """Return the arguments with those in lists beside them."""
    return [item for part in arguments for item in (part if isinstance(part, list | tuple) else [part])]
