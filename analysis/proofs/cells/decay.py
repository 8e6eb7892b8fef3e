"""Exponential decay of the differences between trajectories, and contraction of a map, in a norm ||x||_P^2 = x'P x.

For z' = A z + D w + d, w = relu(N w + B z + c), increments obey dw' L (N dw + B dz - dw) >= 0 for every diagonal L >= 0, so ::

    [[-(A'P + PA) - 2 a P, -(PD + B'L)], [*, 2L - LN - N'L]] > 0  and  P > 0

imply ||z(t) - z~(t)||_P <= exp(-a t) ||z(0) - z~(0)||_P for every two trajectories under one input: for a > 0 there is one
equilibrium, and V = (z - z*)'P(z - z*) is a global Lyapunov function of rate 2 a. For the map z -> A z + D w + d, ::

    [[r^2 P - A'PA, -(A'PD + B'L)], [*, 2L - LN - N'L - D'PD]] > 0

implies that it contracts by r in that norm (theory: certificates).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.proofs.cells.network import ReluNetwork, random_slopes
from analysis.proofs.cells.rate_descent import Kind, descended, smallest_theta
from analysis.proofs.matrices.enclosure import Enclosure, block, diagonal
from analysis.proofs.matrices.semidefinite import repaired, run_solver
from stabdeq.linear_algebra import eigenvalues, solved_lyapunov

NEEDED: dict[Kind, float] = {"flow": 0.0, "map": 1.0}  # theta is better the smaller it is, and must be below
LINEAR_SHARE = 0.99  # of the spectral abscissa: nearer to it, P grows thin
LEAST_NORM = 1e-3  # of P; its largest eigenvalue is at most 1
ROUNDS = 2  # solver calls, each asked for more than the last one gave
ROOM = (1e-6, 1e-4, 1e-2, 0.1)  # parts of a rate that are given up, in turn, until the proof has room enough


@dataclass(frozen=True)
class Decay:
    """A proved rate: a > 0 of a flow, or r < 1 of a map; in the norm of ``norm`` P (n, n), by ``multiplier`` L (m,)."""

    rate: float
    norm: Tensor
    multiplier: Tensor


@dataclass(frozen=True)
class Shortfall:
    """No proof. ``best`` is the rate that was found, ``limit`` the rate that, to rounding, no P and L at all could better.

    ``is_hopeless``: not even the limit would do.
    """

    best: float
    limit: float
    is_hopeless: bool


def inequality(network: ReluNetwork, norm: Tensor, multiplier: Tensor, theta: float, kind: Kind) -> Enclosure:
    """Return the matrix that must be positive definite, (n + m, n + m); ``theta`` is -2 a of a flow, r^2 of a map."""
    P, L = Enclosure.exact(norm), Enclosure.exact(multiplier[:, None])
    A, B, D, N = network.skip, network.state, network.output, network.hidden
    LB, LN = L * B, L * N
    corner = diagonal(2 * multiplier) - LN - LN.mT
    if kind == "flow":
        PA = P @ A
        first, mixed = P * theta - PA - PA.mT, -(P @ D + LB.mT)
    else:
        first, mixed = P * theta - A.mT @ P @ A, -(A.mT @ P @ D + LB.mT)
        corner = corner - D.mT @ P @ D
    return block([[first, mixed], [mixed.mT, corner]])


def proves_decay(network: ReluNetwork, norm: Tensor, multiplier: Tensor, rate: float) -> bool:
    """Whether P = ``norm`` (n, n) and L (m,) prove that trajectories approach at ``rate`` a; False says nothing."""
    return _proves(network, norm, multiplier, -2 * rate, "flow")


def proves_contraction(network: ReluNetwork, norm: Tensor, multiplier: Tensor, rate: float) -> bool:
    """Whether P = ``norm`` (n, n) and L (m,) prove that the map contracts by ``rate`` r; False says nothing."""
    # The square is rounded down: what is proved for a smaller square holds for the rate.
    return rate > 0 and _proves(network, norm, multiplier, np.nextafter(rate * rate, 0.0), "map")


def _proves(network: ReluNetwork, norm: Tensor, multiplier: Tensor, theta: float, kind: Kind) -> bool:
    return bool(
        torch.equal(norm, norm.mT)
        and (multiplier >= 0).all()
        & Enclosure.exact(norm).is_positive_definite()
        & inequality(network, norm, multiplier, theta, kind).is_positive_definite()
    )


def find_decay(
    network: ReluNetwork, contraction: Decay | Shortfall | None = None, multiplier: Tensor | None = None
) -> Decay | Shortfall:
    """Return the fastest decay of the flow z' = ``network`` that is found and proved.

    A ``contraction`` by r of the map f proves a rate of 1 - r for f(z) - z, in its norm and by its multiplier over r, since
    2 dz'P df <= r dz'P dz + df'P df / r. It is a proposal, and so is a diagonal P = L, the ``multiplier`` (m,), where a cell's
    make gives one.
    """
    starts = _starts(network, multiplier)
    if isinstance(contraction, Decay):
        starts.append((contraction.norm, contraction.multiplier / contraction.rate))
    return _find(network, "flow", starts)


def find_contraction(network: ReluNetwork, multiplier: Tensor | None = None) -> Decay | Shortfall:
    """Return the strongest contraction of the map ``network`` that is found and proved; ``multiplier`` as in ``find_decay``."""
    return _find(network, "map", _starts(network, multiplier))


def _starts(network: ReluNetwork, multiplier: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    m, n = network.state.centre.shape
    one = torch.eye(n, dtype=torch.float64), torch.ones(m, dtype=torch.float64)
    if multiplier is None or m != n:
        return [one]
    return [one, (torch.diag(multiplier / multiplier.max()), multiplier / multiplier.max())]


def _find(network: ReluNetwork, kind: Kind, starts: list[tuple[Tensor, Tensor]]) -> Decay | Shortfall:
    """Return the best proof that is found: near the best of ``starts`` where that proves anything, else by a solver's P and L."""
    needed = NEEDED[kind]
    theta, start = min(((smallest_theta(network, *start, kind), start) for start in starts), key=lambda pair: pair[0])
    # Of a linear flow the Lyapunov equation gives all but the best rate, from anywhere.
    if theta < needed and len(network.bias.centre):
        for proposal in (descended(network, *start, kind), start):
            decay = _proved(network, proposal, kind)
            if decay is not None:
                return decay
    return _search(network, kind, theta, start)


def _search(network: ReluNetwork, kind: Kind, best: float, found: tuple[Tensor, Tensor]) -> Decay | Shortfall:
    """Return the best proof by P and L of a solver, and ``found``, of theta ``best``."""
    needed, limit = NEEDED[kind], _limit(network, kind)
    for _ in range(ROUNDS):
        target = (limit + best) / 2 if best < needed else needed
        # No multipliers can pass the limit; near it they are found slowly, and help little.
        if not limit < needed or best - limit < 0.02 * (needed - limit):
            break
        proposal = _propose(network, target, kind)
        theta = torch.inf if proposal is None else smallest_theta(network, *proposal, kind)
        if proposal is None or not theta < best:
            break
        best, found = theta, proposal
    decay = _proved(network, found, kind)
    return Shortfall(_rate(best, kind), _rate(limit, kind), limit >= needed) if decay is None else decay


def _proved(network: ReluNetwork, proposal: tuple[Tensor, Tensor], kind: Kind) -> Decay | None:
    """Return the proof by P and L of all but a small part of their rate, or None."""
    needed, best = NEEDED[kind], smallest_theta(network, *proposal, kind)
    for room in ROOM if best < needed else ():
        theta = best + room * (needed - best)
        is_better = theta < needed and (kind == "flow" or _rate(theta, kind) < 1)  # as rounded, too
        if is_better and _proves(network, *proposal, theta, kind):
            return Decay(_rate(theta, kind), *proposal)
    return None


def _rate(theta: float, kind: Kind) -> float:
    """Return a = -theta / 2 or r = sqrt(theta), the latter rounded up."""
    return -theta / 2 if kind == "flow" else float(np.nextafter(np.sqrt(theta), np.inf))


def _limit(network: ReluNetwork, kind: Kind) -> float:
    """Return a theta that no P and L can better: each pattern of slopes 0 and 1 is a linear system that they must cover.

    NaN where the eigenvalues of one were not computed, such as of weights that are not finite.
    """
    values = eigenvalues(network.jacobians(random_slopes(len(network.bias.centre))))
    return 2 * float(values.real.max()) if kind == "flow" else float(values.abs().max()) ** 2


def _propose(network: ReluNetwork, theta: float, kind: Kind) -> tuple[Tensor, Tensor] | None:
    """Return P and L that a solver proposes for ``theta``, or None; nothing of them is trusted."""
    import cvxpy

    A, B, D, N = (getattr(network, part).centre.numpy() for part in ("skip", "state", "output", "hidden"))
    m, n = B.shape
    if not m:
        return _propose_linear(A)
    norm, entries, room = cvxpy.Variable((n, n), symmetric=True), cvxpy.Variable(m, nonneg=True), cvxpy.Variable()
    multiplier = cvxpy.diag(entries)
    corner = 2 * multiplier - multiplier @ N - N.T @ multiplier
    if kind == "flow":
        first, mixed = theta * norm - norm @ A - A.T @ norm, -(norm @ D + B.T @ multiplier)
    else:
        first, mixed = theta * norm - A.T @ norm @ A, -(A.T @ norm @ D + B.T @ multiplier)
        corner = corner - D.T @ norm @ D
    matrix = cvxpy.bmat([[first, mixed], [mixed.T, corner]])
    bounds = [norm << np.eye(n), norm >> LEAST_NORM * np.eye(n)]
    problem = cvxpy.Problem(cvxpy.Maximize(room), [(matrix + matrix.T) / 2 >> room * np.eye(n + m), *bounds])
    run_solver(problem)
    multipliers = repaired(entries.value)
    if multipliers is None or norm.value is None or not np.isfinite(norm.value).all():
        return None
    symmetric = torch.from_numpy(norm.value + norm.value.T) / 2
    return symmetric, multipliers


def _propose_linear(A: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return P for z' = A z, whose spectral abscissa is negative, from a Lyapunov equation at a rate close to it."""
    matrix, one = torch.from_numpy(A), torch.eye(len(A), dtype=torch.float64)
    rate = -LINEAR_SHARE * eigenvalues(matrix).real.max()
    norm = solved_lyapunov((matrix + rate * one).mT, -one)
    return (norm + norm.mT) / 2, torch.zeros(0, dtype=torch.float64)
