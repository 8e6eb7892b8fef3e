"""Hypothesis strategies for this library's cell in evaluation mode, with all of its equilibria known."""

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from stabdeq.cells import Cell
from stabdeq.cells.batchnorm import EPSILON
from stabdeq.errors import ConfigError
from stabdeq.linear_algebra import spectral_norm
from stabdeq.testing.tensors import made_from, require_positive, require_sizes, tensors


@dataclass(frozen=True, eq=False)
class KnownCell:
    """z -> f(z, h) of a ``cell``, float64, at the injected features h = ``injected`` (n,).

    ``equilibria`` (K, n) are all the states with f(z, h) = z, up to rounding; ``lipschitz`` bounds the Lipschitz constant
    of f in z, at every h.
    """

    cell: Cell
    injected: Tensor
    equilibria: Tensor
    lipschitz: float

    def __call__(self, states: Tensor) -> Tensor:
        """Return f(z, h), (B, n), at ``states`` (B, n)."""
        return self.cell(states, self.injected.expand_as(states))


def contracting_cells(dim: int, *, factor: float = 0.9) -> SearchStrategy[KnownCell]:
    """Return a strategy for cells that contract by ``factor`` < 1 or more, by their weights' norms: one equilibrium."""
    require_sizes(dim)
    if not 0 < factor < 1:
        raise ConfigError(f"factor must be between 0 and 1, both excluded, got {factor}")
    count = sum(parameter.numel() for parameter in Cell(dim).parameters())

    def built(drawn: tuple[Tensor, Tensor, Tensor, Tensor]) -> KnownCell:
        weights, means, variances, active = drawn
        cell = _plain_cell(dim)
        torch.nn.utils.vector_to_parameters(weights, cell.parameters())
        for norm, mean, variance in zip((cell.inner_norm, cell.outer_norm), means, variances, strict=True):
            norm.running_mean.copy_(mean)
            norm.running_variance.copy_(variance)
        inner_scale, _ = cell.inner_norm.scale_and_shift()
        outer_scale, outer_shift = cell.outer_norm.scale_and_shift()
        paths = map(spectral_norm, (cell.outer.weight * inner_scale, cell.inner.weight))
        bound = float(math.prod(paths) * outer_scale.abs().max())
        cell.outer.weight.mul_(min(1.0, (1 - 1e-9) * factor / bound) if bound else 1.0)
        # The outer ReLU is given its output at the equilibrium, and the injected features follow from that.
        equilibrium = outer_scale * active + outer_shift
        hidden = cell.inner_norm(cell.inner(equilibrium[None]).relu())
        injected = active - cell.outer(hidden)[0]
        return KnownCell(cell, injected, equilibrium[None], factor)

    pair = (2, dim)
    parts = tensors((count,), -2, 2), tensors(pair, -1, 1), tensors(pair, 0.25, 4), tensors((dim,), 0, 2)
    return made_from(strategies.tuples(*parts), built)


def expanding_cells(dim: int, *, slope: float = 2.0) -> SearchStrategy[KnownCell]:
    """Return a strategy for cells with two equilibria, which expand by ``slope`` > 1 along the first axis from the second.

    The first coordinate is z1 = relu(slope relu(z1) - (slope - 1) r), at rest at 0 and at r; the others follow it. Around
    the first equilibrium the cell is constant in z1, so that both Picard's iteration and the flow settle; from the second
    both depart.
    """
    require_sizes(dim)
    require_positive("slope", slope)
    if not slope > 1:
        raise ConfigError(f"slope must exceed 1, got {slope}")

    def built(drawn: tuple[float, Tensor, Tensor]) -> KnownCell:
        distance, following, features = drawn
        cell = _plain_cell(dim)
        column = torch.cat([torch.tensor([slope], dtype=torch.float64), following])
        cell.inner.weight.copy_(torch.eye(dim, dtype=torch.float64))
        cell.outer.weight[:, 0] = column
        injected = torch.cat([torch.tensor([-(slope - 1) * distance], dtype=torch.float64), features])
        equilibria = (injected + torch.tensor([[0.0], [distance]], dtype=torch.float64) * column).relu()
        return KnownCell(cell, injected, equilibria, float(column.norm()))

    others = tensors((dim - 1,), -2, 2)
    return made_from(strategies.tuples(strategies.floats(0.5, 2), others, others), built)


def _plain_cell(dim: int) -> Cell:
    """Return W2 = 0, W1 = 0 and BatchNorms that change nothing: f(z, h) = relu(h)."""
    cell = Cell(dim).double().eval().requires_grad_(False)
    for layer in (cell.inner, cell.outer):
        layer.weight.zero_()
        layer.bias.zero_()
    for norm in (cell.inner_norm, cell.outer_norm):
        norm.weight.fill_(1)
        norm.running_variance.fill_(1 - EPSILON)
    return cell
