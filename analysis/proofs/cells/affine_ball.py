"""The ball around an equilibrium in which no ReLU changes sign: the cell is affine there, so its decay is an eigenvalue problem."""

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.proofs.cells.decay import Decay
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
    ``error`` bounds the distance of the given z from z*. ``abscissa`` is the largest real part of the eigenvalues of df/dz - 1
    there, in floating point; None where a decay that is proved for all states made it needless.
    """

    radius: Tensor
    error: Tensor
    rate: Tensor
    attraction: Tensor
    abscissa: Tensor | None


def find_affine_balls(network: ReluNetwork, z: Tensor, h: Tensor, decay: Decay | None = None) -> AffineBalls:
    """Return the balls around the equilibria that lie next to ``z`` (B, n) for the features ``h`` (B, k) of the map ``network``.

    A ``decay`` that is proved of its flow is that of every ball. Without one, each ball gets a norm of its own.
    """
    ellipsoid = None if decay is None else _ellipsoid(decay)
    parts = [_balls(network, *pair, ellipsoid) for pair in zip(z.split(CHUNK), h.split(CHUNK), strict=True)]
    abscissas = [part.abscissa for part in parts if part.abscissa is not None]
    names = ("radius", "error", "rate", "attraction")
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return AffineBalls(**joined, abscissa=torch.cat(abscissas) if abscissas else None)


def activations(network: ReluNetwork, z: Enclosure, h: Enclosure) -> tuple[Enclosure, Enclosure]:
    """Return what enters the ReLUs, and what leaves them, (B, m), at states ``z`` (B, n) with features ``h`` (B, k)."""
    base = z @ network.state.mT + h @ network.injection.mT + network.bias
    entering = base
    for _ in range(network.depth - 1):
        entering = base + entering.relu() @ network.hidden.mT
    return entering, entering.relu()


def _balls(network: ReluNetwork, z: Tensor, h: Tensor, ellipsoid: "_Ellipsoid | None") -> AffineBalls:
    state = Enclosure.exact(z)
    entering, leaving = activations(network, state, Enclosure.exact(h))
    slopes = Enclosure.exact((entering.centre > 0).double())
    sensitivity = network.state  # (m, n), the same at all images where no layer lies before
    for _ in range(network.depth - 1):
        sensitivity = network.state + network.hidden @ (slopes[..., None] * sensitivity)
    distance = (entering.centre.abs() - entering.radius) / sensitivity.norm() * (1 - 4 * EPS)
    flat = distance.amin(1)  # NaN, which nothing below accepts, where a weight is

    drift = network.flow()
    velocity = (state @ drift.skip.mT + leaving @ drift.output.mT + drift.shift).norm()
    if ellipsoid is None:
        field = drift.skip + drift.output @ (slopes[..., None] * sensitivity)
        error = velocity / _least_stretch(field) * (1 + 4 * EPS)
        abscissa = eigenvalues(field.centre).real.amax(1)
        ellipsoid = _ellipsoids(field, abscissa)
    else:
        # a ||e||_P <= ||f(z) - z||_P for e = z - z* (theory: certificates).
        error = velocity / (ellipsoid.rate * ellipsoid.roundness) * (1 + 8 * EPS)
        abscissa = None
    radius = torch.where(error < flat, (flat - error) * (1 - 4 * EPS), 0.0)
    proved = (ellipsoid.rate > 0) & (radius > 0)
    return AffineBalls(
        radius=radius,
        error=error,
        rate=torch.where(proved, ellipsoid.rate, -torch.inf),
        attraction=torch.where(proved, radius * ellipsoid.roundness * (1 - 8 * EPS), 0.0),
        abscissa=abscissa,
    )


@dataclass(frozen=True)
class _Ellipsoid:
    """A proved ``rate`` in a norm, -inf where none; ``roundness``, at most sqrt(least / largest eigenvalue) of its P. Both (B,) or ()."""

    rate: Tensor
    roundness: Tensor


def _ellipsoid(decay: Decay) -> _Ellipsoid | None:
    """Return the ellipsoid of a proved decay, or None where P's eigenvalues are not bounded from below."""
    least, largest, proved = _bounds(decay.norm)
    rate = torch.tensor(decay.rate, dtype=torch.float64)
    return _Ellipsoid(rate, (least / largest).sqrt() * (1 - 4 * EPS)) if bool(proved) else None


def _ellipsoids(field: Enclosure, abscissa: Tensor) -> _Ellipsoid:
    """Return proved rates (B,) of the linear fields J (B, n, n), nearly their spectral ``abscissa``, in norms of their own."""
    rate = -SHARE * abscissa
    norm = _lyapunov(field.centre, rate)
    P = Enclosure.exact(norm)
    product = P @ field
    falls = (P * Enclosure.exact(-2 * rate[:, None, None]) - product - product.mT).is_positive_definite()
    least, largest, bounded = _bounds(norm)
    proved = falls & bounded & (rate > 0)
    return _Ellipsoid(torch.where(proved, rate, -torch.inf), (least / largest).sqrt() * (1 - 4 * EPS))


def _bounds(norm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return bounds (...,) of the eigenvalues of P (..., n, n) from below and above, and whether they are positive and proved."""
    values = symmetric_eigenvalues(norm)
    least, largest = values[..., 0] * (1 - 1e-6), values[..., -1] * (1 + 1e-6)
    P, one = Enclosure.exact(norm), identity(norm.shape[-1])
    proved = (P - one * Enclosure.exact(least[..., None, None])).is_positive_definite()
    proved &= (one * Enclosure.exact(largest[..., None, None]) - P).is_positive_definite()
    return least, largest, proved & (least > 0)


def _least_stretch(field: Enclosure) -> Tensor:
    """Return a proved lower bound (B,) of the smallest singular value of matrices (B, n, n); 0 where none is proved.

    Where f is affine, an equilibrium lies within ||f(z) - z|| over this of z, if that is within the ball, and no other.
    """
    guess = 0.99 * singular_values(field.centre)[:, -1]
    square = Enclosure.exact(guess[:, None, None]) * Enclosure.exact(guess[:, None, None])
    proved = (field.mT @ field - identity(field.centre.shape[-1]) * square).is_positive_definite()
    return torch.where(proved, guess, 0.0)


def _lyapunov(matrices: Tensor, rates: Tensor) -> Tensor:
    """Return P (B, n, n), of entries up to 1, with J'P + PJ + 2 rate P < 0 for the ``matrices`` J, where there is one."""
    norms = []
    identity = torch.eye(matrices.shape[-1], dtype=torch.float64)
    for matrix, rate in zip(matrices, rates.tolist(), strict=True):
        norm = solved_lyapunov((matrix + rate * identity).mT, -identity)
        norms.append((norm + norm.mT) / 2 if bool(norm.isfinite().all()) else identity)
    stacked = torch.stack(norms)
    return stacked / stacked.abs().amax((1, 2), keepdim=True)
