"""What is solved: trained cells and those of ``benchmarks.cells``, each with the features of one batch."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.cells import AttentionCell, ConvolutionalCell, GraphCell, LinearCell
from stabdeq.config import SolverConfig
from stabdeq.data import Split, to_unit
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Forward, Implicit, Solution, build_solver, fixed_point

Solve = Callable[[Tensor], Solution]  # features h -> equilibria, with their gradient where grad is on


@dataclass(frozen=True, eq=False)
class Problem:
    """z = cell(z, h) for the features ``h`` (B, *), and our way to solve it with given settings."""

    name: str
    cell: nn.Module
    h: Tensor
    prepare: Callable[[SolverConfig], Solve]

    @property
    def batch(self) -> int:
        """The number of samples."""
        return len(self.h)


def model_problem(name: str, model: StabilisedDEQ, images: Split, batch: int) -> Problem:
    """Return the equilibria of a trained model for test images, repeated to fill the batch."""
    with torch.no_grad():
        h = model.inject(repeated(images, batch)[0])
    return Problem(name, model.cell, h, lambda settings: with_solver(model, settings).solve)


def repeated(images: Split, batch: int) -> tuple[Tensor, Tensor]:
    """Return ``batch`` images (B, C, H, W) in [0, 1] with their labels, from the start again where they end."""
    rows = torch.arange(batch) % len(images)
    return to_unit(images.images[rows]), images.labels[rows]


def with_solver(model: StabilisedDEQ, settings: SolverConfig) -> StabilisedDEQ:
    """Return the same model, weights shared, with another solver."""
    chosen = copy.copy(model)
    chosen.config = replace(model.config, solver=settings)
    return chosen


def convolutional_problem(batch: int, channels: int = 64, side: int = 16) -> Problem:
    """Return the convolutional cell with random features."""
    h = torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(1))
    return cell_problem(f"convolution, {channels} x {side} x {side}", ConvolutionalCell(channels), h)


def linear_problem(batch: int, size: int = 64) -> Problem:
    """Return the linear map of spectral radius 0.99 with random features."""
    h = torch.randn(batch, size, generator=torch.Generator().manual_seed(1))
    return cell_problem("linear, radius 0.99", LinearCell(size, 0.99), h)


def attention_problem(batch: int, tokens: int = 16, width: int = 32) -> Problem:
    """Return the attention block with random features."""
    h = torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(1))
    return cell_problem("attention", AttentionCell(width), h)


def graph_problem(batch: int, nodes: int = 50, width: int = 16) -> Problem:
    """Return the graph cell with random features."""
    h = torch.randn(batch, nodes, width, generator=torch.Generator().manual_seed(1))
    return cell_problem("graph", GraphCell(nodes, width), h)


def cell_problem(name: str, cell: nn.Module, h: Tensor) -> Problem:
    """Return the equilibria of any cell, by the library's functions instead of a model."""
    return Problem(name, cell, h, lambda settings: _prepare(cell, settings))


def _prepare(cell: nn.Module, settings: SolverConfig) -> Solve:
    solver = build_solver(settings)
    names, parameters = zip(*cell.named_parameters(), strict=True)

    def f(z: Tensor, h: Tensor, *values: Tensor) -> Tensor:
        return functional_call(cell, dict(zip(names, values, strict=True)), (z, h))

    def run(h: Tensor) -> Solution:
        if h.dim() == 4:  # TorchDEQ would lay them out anew at each evaluation
            h = h.contiguous(memory_format=torch.channels_last)
        linearise = getattr(cell, "linearise", None)
        return fixed_point(
            f,
            torch.zeros_like(h),
            solver,
            inputs=(h,),
            parameters=parameters,
            adjoint=Implicit(linearise=linearise and (lambda z: linearise(z, h.detach()))),
            forward=Forward(cell, (h.detach(),)),
            tolerance=settings.stopping_tolerance,
            max_evaluations=settings.max_evaluations,
            compiled=settings.compiled,
            returns=settings.returns,
        )

    return run
