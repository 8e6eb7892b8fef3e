"""The two forms in which certificates read a cell: the map that is iterated, and the equation of its equilibria."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from analysis.proofs.matrices.enclosure import Enclosure, block, diagonal, identity
from stabdeq.alteration import require_unaltered
from stabdeq.cells import Cell, ConvolutionCell, IntervalCell, MultiscaleCell, ReluCell, cell_alteration
from stabdeq.cells.batchnorm import FoldedCell
from stabdeq.cells.relu import FoldedReluCell
from stabdeq.errors import ConfigError
from stabdeq.linear_algebra import solved

PATTERNS = 256


@dataclass(frozen=True)
class ReluNetwork:
    """z -> A z + D w + d with activations w = relu(N w + B z + U h + c), N strictly lower triangular.

    ``skip`` A (n, n), ``output`` D (n, m), ``shift`` d (n,), ``hidden`` N (m, m), ``state`` B (m, n), ``injection`` U (m, k),
    ``bias`` c (m,); N^depth = 0.
    """

    skip: Enclosure
    output: Enclosure
    shift: Enclosure
    hidden: Enclosure
    state: Enclosure
    injection: Enclosure
    bias: Enclosure
    depth: int

    def flow(self) -> "ReluNetwork":
        """Return the field z -> f(z) - z of this map f."""
        return replace(self, skip=self.skip - identity(self.skip.centre.shape[-1]))

    def jacobians(self, slopes: Tensor) -> Tensor:
        """Return A + D S (I - N S)^-1 B, (B, n, n), for diagonal slopes S given as (B, m): the Jacobians to rounding."""
        reached = torch.eye(self.bias.centre.shape[0], dtype=torch.float64) - self.hidden.centre * slopes[:, None, :]
        return self.skip.centre + (self.output.centre * slopes[:, None, :]) @ solved(
            reached, self.state.centre.expand(len(slopes), -1, -1)
        )


@dataclass(frozen=True)
class Equation:
    """w = relu(M w + U h + c), z = D w + d: what equilibria z solve, whatever map finds them.

    ``weight`` M (m, m), ``injection`` U (m, k), ``bias`` c (m,), ``output`` D (n, m), ``shift`` d (n,).
    """

    weight: Enclosure
    injection: Enclosure
    bias: Enclosure
    output: Enclosure
    shift: Enclosure


def of_paper_cell(cell: FoldedCell) -> tuple[ReluNetwork, Equation]:
    """Return both forms of f(z, h) = scale relu(h + b2 + relu(z W1 + b1) W2) + shift: its two ReLUs are the activations."""
    n = len(cell.scale)
    zero, one = Enclosure.exact(torch.zeros(n, n, dtype=torch.float64)), identity(n)
    inner, outer = Enclosure.exact(cell.inner.mT), Enclosure.exact(cell.outer.mT)
    network = ReluNetwork(
        skip=zero,
        output=block([[zero, diagonal(cell.scale)]]),
        shift=Enclosure.exact(cell.shift),
        hidden=block([[zero, zero], [outer, zero]]),
        state=block([[inner], [zero]]),
        injection=block([[zero], [one]]),
        bias=Enclosure.exact(torch.cat([cell.inner_bias, cell.outer_bias])),
        depth=2,
    )
    return network, _equation(network)


def of_certified_cell(cell: FoldedReluCell) -> tuple[ReluNetwork, Equation]:
    """Return both forms of f(z, h) = relu(z T + scale (h + b)): the state is its own activation.

    The equation is divided by the step: z = relu(W z + h + b) with I - W = diag(scale)^-1 (I - T'), scale > 0.
    """
    n = len(cell.bias)
    one, zero = identity(n), Enclosure.exact(torch.zeros(n, n, dtype=torch.float64))
    transition, nothing = Enclosure.exact(cell.transition.mT), Enclosure.exact(torch.zeros(n, dtype=torch.float64))
    scale, bias = Enclosure.exact(cell.scale), Enclosure.exact(cell.bias)
    network = ReluNetwork(zero, one, nothing, zero, transition, diagonal(cell.scale), scale * bias, depth=1)
    weight = one - scale.reciprocal()[:, None] * (one - transition)
    return network, Equation(weight, one, bias, one, nothing)


def forms_of(cell: nn.Module) -> tuple[ReluNetwork, Equation, Tensor | None]:
    """Return both forms of a ``cell`` of this library, and a multiplier that proves uniqueness where the cell's make gives one.

    Raises ConfigError, with what was found, where the cell is altered, another, or has no equilibrium to solve for.
    """
    require_unaltered(cell_alteration(cell))
    if isinstance(cell, Cell):
        return *of_paper_cell(cell.fold()), None
    if isinstance(cell, ConvolutionCell | MultiscaleCell):
        raise ConfigError(
            "certify does not read convolutional cells: audit the model, which looks for counterexamples and proves what V's make "
            "proves, or train model.cell=certified"
        )
    if not isinstance(cell, ReluCell):
        raise ConfigError(
            "certify proves what a cell does, and this network has none: its features are what its head reads"
        )
    folded = cell.fold()
    start = _dominating_multiplier(folded.transition.mT) if isinstance(cell, IntervalCell) else folded.scale
    return *of_certified_cell(folded), start


def _dominating_multiplier(weight: Tensor) -> Tensor:
    """Return L (n,) with L (I - W) + (I - W') L > 0 for ``weight`` W (n, n), whose rows of |W| sum to less than 1.

    By L = (I - |W|')^{-1} 1 the columns of L (I - |W|) sum to 1, its rows to more than 0: the sum is diagonally dominant.
    """
    matrix = torch.eye(len(weight), dtype=torch.float64) - weight.abs()
    return solved(matrix.mT, torch.ones(len(weight), 1, dtype=torch.float64))[:, 0]


def _equation(network: ReluNetwork) -> Equation:
    """Return the equation of the network's fixed points, by putting z = D w + d into its activations; A must be 0."""
    weight = network.hidden + network.state @ network.output
    bias = network.bias + (network.state @ network.shift[:, None])[:, 0]
    return Equation(weight, network.injection, bias, network.output, network.shift)


def random_slopes(activations: int) -> Tensor:
    """Return (256, m) patterns of ReLU slopes 0 and 1, all ones first: systems that a certificate must cover, each."""
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(PATTERNS, 1, generator=generator)
    slopes = (torch.rand(PATTERNS, activations, generator=generator) < share).double()
    slopes[0] = 1.0
    return slopes
