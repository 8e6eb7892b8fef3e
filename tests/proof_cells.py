"""Cells that certificates are asked of, and states."""

import torch
from exact_forms import Exact, exact
from torch import Tensor

from analysis.proofs.cells.network import ReluNetwork, of_certified_cell
from analysis.proofs.matrices.enclosure import Enclosure
from stabdeq.cells import CertifiedCell
from stabdeq.cells.batchnorm import FoldedCell
from stabdeq.cells.relu import FoldedReluCell


def certified_cell(n: int, seed: int) -> FoldedReluCell:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cell = CertifiedCell(n).double()
        with torch.no_grad():
            cell.log_multiplier.normal_(0, 0.3)
            cell.bias.normal_()
    return cell.fold()


def paper_cell(n: int, seed: int, size: float) -> FoldedCell:
    """A cell of the paper's form whose norms are about ``size`` each."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return FoldedCell(
        size / 2 / n**0.5 * draw(n, n), draw(n), size / 2 / n**0.5 * draw(n, n), draw(n), draw(n), draw(n)
    )


def scalar_cell(weight: float) -> ReluNetwork:
    """f(z, h) = relu(weight z + h)."""
    one = torch.ones(1, dtype=torch.float64)
    return of_certified_cell(FoldedReluCell(weight * one[None], one, 0 * one))[0]


def states(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def encloses(enclosure: Enclosure, values: Exact) -> bool:
    centre, radius = exact(enclosure.centre), exact(enclosure.radius)
    return all(
        abs(value - middle) <= reach
        for rows in zip(values, centre, radius, strict=True)
        for value, middle, reach in zip(*rows, strict=True)
    )
