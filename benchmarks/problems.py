"""What is solved: trained cells, a convolutional cell and a linear map, each with the features of one batch."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

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


class ConvolutionalCell(nn.Module):
    """f(z, h) = tanh(C2 relu(C1 z) + h), random weights that contract, states (B, channels, side, side)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for convolution in (self.first, self.second):
            shape = convolution.weight.shape
            convolution.weight.data = torch.randn(shape, generator=generator) / (9 * channels) ** 0.5
            nn.init.zeros_(convolution.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return f(z, h)."""
        return torch.tanh(self.second(torch.relu(self.first(z))) + h)

    def linearise(self, z: Tensor, h: Tensor) -> tuple["ConvolutionalPullBack", tuple[Tensor, Tensor]]:
        """Return u -> J' u at ``z``, and the slopes of ReLU and tanh (B, *) that it reads."""
        first, second = (
            convolution.weight.detach().transpose(0, 1).flip(2, 3) for convolution in (self.first, self.second)
        )
        slopes = (self.first(z) > 0).to(z.dtype), 1 - self(z, h).square()
        return ConvolutionalPullBack(first, second), slopes


@dataclass(frozen=True)
class ConvolutionalPullBack:
    """u -> J' u of the convolutional cell, by the convolutions' adjoints."""

    first: Tensor
    second: Tensor

    def __call__(self, u: Tensor, inner_slope: Tensor, outer_slope: Tensor) -> Tensor:
        """Return J' u, (B, *) -> (B, *)."""
        hidden = functional.conv2d(u * outer_slope, self.second, padding=1) * inner_slope
        return functional.conv2d(hidden, self.first, padding=1)


class LinearCell(nn.Module):
    """f(z, h) = A z + h with A symmetric, of spectrum [-radius, radius], states (B, n)."""

    def __init__(self, size: int, radius: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
        spectrum = torch.linspace(-radius, radius, size, dtype=torch.float64)
        self.weight = nn.Parameter(((basis * spectrum) @ basis.T).float())

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return f(z, h)."""
        return torch.addmm(h, z, self.weight)

    def linearise(self, z: Tensor, h: Tensor) -> tuple["LinearPullBack", tuple[()]]:
        """Return u -> J' u, which is the same everywhere."""
        return LinearPullBack(self.weight.detach().T), ()


@dataclass(frozen=True)
class LinearPullBack:
    """u -> J' u of the linear map."""

    weight: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        """Return J' u, (B, n) -> (B, n)."""
        return u @ self.weight


def convolutional_problem(batch: int, channels: int = 64, side: int = 16) -> Problem:
    """Return the convolutional cell with random features."""
    h = torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(1))
    return cell_problem("convolution", ConvolutionalCell(channels), h)


def linear_problem(batch: int, size: int = 64) -> Problem:
    """Return the linear map of spectral radius 0.99 with random features."""
    h = torch.randn(batch, size, generator=torch.Generator().manual_seed(1))
    return cell_problem("linear, radius 0.99", LinearCell(size, 0.99), h)


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
            tolerance=settings.tolerance,
            max_evaluations=settings.max_evaluations,
            compiled=settings.compiled,
        )

    return run
