"""The ball around an equilibrium in which no ReLU changes sign: the cell is affine there, so its decay is an eigenvalue problem."""

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.proofs.cells.network import ReluNetwork
from analysis.proofs.matrices.enclosure import EPS, Enclosure, identity
from stabdeq.linear_algebra import eigenvalues, singular_values, solved_lyapunov, symmetric_eigenvalues

CHUNK = 32
SHARE = 0.9  # of the spectral abscissa, the rate to prove: nearer to it, the ellipsoid grows thin


@dataclass(frozen=True)
class AffineBalls:
    """What is proved around each of B equilibria z* of z' = f(z, h) - z; each (B,).

    f is affine within ``radius`` of z*, 0 where that was not proved. There differences decay at ``rate`` in an ellipsoidal norm,
    -inf where not proved, and every trajectory that starts within ``attraction`` of z* stays in the ball and converges.
    ``abscissa`` is the largest real part of the eigenvalues of df/dz - 1 there, in floating point; ``error`` bounds the
    distance of the given z from z*.
    """

    radius: Tensor
    error: Tensor
    abscissa: Tensor
    rate: Tensor
    attraction: Tensor


def find_affine_balls(network: ReluNetwork, z: Tensor, h: Tensor) -> AffineBalls:
    """Return the balls around the equilibria that lie next to ``z`` (B, n) for the features ``h`` (B, k) of the map ``network``."""
    parts = [_balls(network, *pair) for pair in zip(z.split(CHUNK), h.split(CHUNK), strict=True)]
    names = ("radius", "error", "abscissa", "rate", "attraction")
    return AffineBalls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def activations(network: ReluNetwork, z: Enclosure, h: Enclosure) -> tuple[Enclosure, Enclosure]:
    """Return what enters the ReLUs, and what leaves them, (B, m), at states ``z`` (B, n) with features ``h`` (B, k)."""
    base = z @ network.state.mT + h @ network.injection.mT + network.bias
    entering = base
    for _ in range(network.depth - 1):
        entering = base + entering.relu() @ network.hidden.mT
    return entering, entering.relu()


def _balls(network: ReluNetwork, z: Tensor, h: Tensor) -> AffineBalls:
    state = Enclosure.exact(z)
    entering, leaving = activations(network, state, Enclosure.exact(h))
    slopes = Enclosure.exact((entering.centre > 0).double())
    sensitivity = Enclosure(*(part.expand(len(z), -1, -1) for part in (network.state.centre, network.state.radius)))
    for _ in range(network.depth - 1):
        sensitivity = network.state + network.hidden @ (slopes[..., None] * sensitivity)
    distance = (entering.centre.abs() - entering.radius) / sensitivity.norm() * (1 - 4 * EPS)
    flat = distance.amin(1)  # NaN, which nothing below accepts, where a weight is

    drift = network.flow()
    field = drift.skip + drift.output @ (slopes[..., None] * sensitivity)
    velocity = state @ drift.skip.mT + leaving @ drift.output.mT + drift.shift
    error = velocity.norm() / _least_stretch(field) * (1 + 4 * EPS)
    radius = torch.where(error < flat, (flat - error) * (1 - 4 * EPS), 0.0)

    abscissa = eigenvalues(field.centre).real.amax(1)
    rate = -SHARE * abscissa
    norm, least, largest = _ellipsoids(field.centre, rate)
    P = Enclosure.exact(norm)
    product = P @ field
    falls = (P * Enclosure.exact(-2 * rate[:, None, None]) - product - product.mT).is_positive_definite()
    one = identity(z.shape[1])
    bounded = (P - one * Enclosure.exact(least[:, None, None])).is_positive_definite()
    bounded &= (one * Enclosure.exact(largest[:, None, None]) - P).is_positive_definite()
    proved = falls & bounded & (least > 0) & (rate > 0) & (radius > 0)
    return AffineBalls(
        radius=radius,
        error=error,
        abscissa=abscissa,
        rate=torch.where(proved, rate, -torch.inf),
        attraction=torch.where(proved, radius * (least / largest).sqrt() * (1 - 8 * EPS), 0.0),
    )


def _least_stretch(field: Enclosure) -> Tensor:
    """Return a proved lower bound (B,) of the smallest singular value of matrices (B, n, n); 0 where none is proved.

    Where f is affine, an equilibrium lies within ||f(z) - z|| over this of z, if that is within the ball, and no other.
    """
    guess = 0.99 * singular_values(field.centre)[:, -1]
    square = Enclosure.exact(guess[:, None, None]) * Enclosure.exact(guess[:, None, None])
    proved = (field.mT @ field - identity(field.centre.shape[-1]) * square).is_positive_definite()
    return torch.where(proved, guess, 0.0)


def _ellipsoids(fields: Tensor, rates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return P (B, n, n) with J'P + PJ + 2 rate P < 0 for the ``fields`` J, where there is one, and bounds of its eigenvalues."""
    norms = []
    identity = torch.eye(fields.shape[-1], dtype=torch.float64)
    for field, rate in zip(fields, rates.tolist(), strict=True):
        norm = solved_lyapunov((field + rate * identity).mT, -identity)
        norms.append((norm + norm.mT) / 2 if bool(norm.isfinite().all()) else identity)
    stacked = torch.stack(norms)
    stacked = stacked / stacked.abs().amax((1, 2), keepdim=True)
    values = symmetric_eigenvalues(stacked)
    return stacked, values[:, 0] * (1 - 1e-6), values[:, -1] * (1 + 1e-6)
