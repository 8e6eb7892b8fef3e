"""States that a function itself singles out: its constants, the hyperplanes of its kinks, its axes at the centre."""

from collections.abc import Callable

import torch
from torch import Tensor

from analysis.evidence.constants import constants_of
from analysis.evidence.falsifier import gradients, hessians
from analysis.evidence.regions import Pairs, Region
from analysis.evidence.sampling import INNERMOST, directions
from stabdeq.linear_algebra import symmetric_eigenvectors
from stabdeq.lyapunov.claims import Violation

# How far out along each direction, as parts of the radius.
FRACTIONS = (1e-3, 0.03, 0.1, 0.3, 0.6, 1.0)
MOST_CONSTANTS = 1024
# Numbers in them, of each of which several states are made.
CONSTANT_NUMBERS = 2**18
# A Hessian takes 2 n gradients.
LARGEST_HESSIAN = 256
AXES = 16
PAIRS_EACH = 4


def landmarks(violation: Callable[[Tensor], Violation], region: Region, generator: torch.Generator) -> Tensor:
    """Return states (m, n) of ``region`` at which ``violation`` may hide what random states miss; none is no fault."""
    constants = _constants(violation, region)
    if isinstance(region, Pairs):
        states = _from_constants(constants, region.region, generator)
        found = region.project(_pairs_around(states, region.region.radius, generator))
    else:
        found = _from_constants(constants, region, generator)
    return torch.cat([found, _along_axes(violation, region)])


def _constants(violation: Callable[[Tensor], Violation], region: Region) -> list[Tensor]:
    """Return the finite constants that ``violation`` reads."""
    states = region.sample(3, torch.Generator(device=region.centre.device).manual_seed(0))
    with torch.no_grad():
        found = constants_of(lambda batch: violation(batch).relative, states)
    floating = [constant.detach().double() for constant in found if constant.is_floating_point()]
    return [constant for constant in floating if bool(constant.isfinite().all())]


def _from_constants(constants: list[Tensor], region: Region, generator: torch.Generator) -> Tensor:
    """Return the constants as states, the feet of the hyperplanes that they span with biases, and states along them."""
    centre = region.centre
    rows = [row for constant in constants for row in _rows(constant, len(centre))]
    feet = [foot for row in rows for foot in _feet(row, constants)]
    if not rows:
        return centre.new_zeros(0, len(centre))
    vectors = torch.cat(rows + feet)
    most = min(MOST_CONSTANTS, max(1, CONSTANT_NUMBERS // len(centre)))
    if len(vectors) > most:
        drawn = torch.randperm(len(vectors), generator=generator, device=generator.device)[:most]
        vectors = vectors[drawn]
    offsets = torch.cat([vectors, vectors - centre])
    # Nearer than any other state that is looked at, an offset is mostly rounding.
    offsets = offsets[offsets.norm(dim=1) >= INNERMOST * region.radius]
    return torch.cat([region.project(centre + offsets), _along(offsets, region)])


def _rows(constant: Tensor, dim: int) -> list[Tensor]:
    """Return ``constant`` as vectors (k, dim), by rows and by columns, as far as its shape allows."""
    rows = [constant.reshape(-1, dim)] if constant.ndim and constant.shape[-1] == dim else []
    columns = [constant.reshape(dim, -1).T] if constant.ndim > 1 and constant.shape[0] == dim else []
    return rows + columns


def _feet(weights: Tensor, constants: list[Tensor]) -> list[Tensor]:
    """Return the points nearest to 0 of w . z + b = 0 and w . z - b = 0, for weights (k, n) and all that may be b (k,)."""
    unit = weights / _square(weights)
    biases = [constant for constant in constants if constant.shape == weights.shape[:1]]
    return [sign * bias[:, None] * unit for bias in biases for sign in (-1, 1)]


def _pairs_around(states: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Return pairs (4 m, 2 n) with the ``states`` (m, n) in their middle."""
    middle = states.repeat(PAIRS_EACH, 1)
    length = radius * 10 ** (-3 * torch.rand(len(middle), 1, generator=generator, device=middle.device).double())
    half = length * directions(len(middle), middle.shape[1], generator)
    return torch.cat([middle + half, middle - half], 1)


def _along_axes(violation: Callable[[Tensor], Violation], region: Region) -> Tensor:
    """Return states along the gradient of the excess next to the centre and along the axes of its greatest curvature."""
    centre, dim = region.centre, len(region.centre)
    if dim > LARGEST_HESSIAN:
        return centre.new_zeros(0, dim)

    def excess(states: Tensor) -> Tensor:
        return violation(states).excess

    step = FRACTIONS[0] * region.radius
    hessian = hessians(excess, centre[None], centre.new_full((1,), step))[0]
    axes = symmetric_eigenvectors(hessian).vectors.T[-AXES:]
    if not bool(axes.isfinite().all()):
        return centre.new_zeros(0, dim)
    # At the centre itself V and its derivatives need not exist.
    gradient = gradients(excess, centre + step * axes[-1:])[1]
    return _along(torch.cat([gradient, axes]), region)


def _along(offsets: Tensor, region: Region) -> Tensor:
    """Return states at several distances from the centre along the ``offsets`` (m, n), forth and back."""
    unit = offsets / _square(offsets).sqrt()
    rays = torch.cat([unit, -unit])
    return region.project(torch.cat([region.centre + part * region.radius * rays for part in FRACTIONS]))


def _square(vectors: Tensor) -> Tensor:
    """Return the squared norms (m, 1), 1 for a vector that has none."""
    square = vectors.square().sum(1, keepdim=True)
    return torch.where(square == 0, 1, square)
