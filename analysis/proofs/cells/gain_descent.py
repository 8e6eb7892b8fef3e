"""The search for multipliers of small gains, in floating point: nothing of it is trusted.

The gain that a multiplier L proves is the root of the largest eigenvalue of X = U' L (S - C'C)^-1 L U, where S = 2L - LM - M'L.
In L and the gain's square the problem is convex, so there is no local minimum to fall into.
"""

import torch
from torch import Tensor

from analysis.proofs.cells.network import Equation
from stabdeq.linear_algebra import Cholesky, cholesky, spectral_norm, symmetric_eigenvectors

STEPS = 50
STEP = 0.2  # of the logarithms of L
VECTORS = 8  # of X, warm from step to step
SHARPNESS = (
    16.0,
    512.0,
)  # powers of X's eigenvalues by which they weigh, first and last: at a minimum several are the largest


def room(equation: Equation, square: Tensor | float, multipliers: Tensor) -> Cholesky:
    """Return the factor of S - C'C for ``multipliers`` (..., m) and ``square`` C'C (..., m, m)."""
    scaled = multipliers[..., None] * equation.weight.centre
    matrix = (scaled + scaled.mT).add_(square).neg_()
    matrix.diagonal(dim1=-2, dim2=-1).add_(2 * multipliers)
    return cholesky(matrix)


def balanced(equation: Equation, outputs: Tensor, injection: Tensor, multiplier: Tensor) -> Tensor:
    """Return ``multiplier`` (m,) times a number (K,) for each of ``outputs`` C (K, k, m), at which its gain is small, (K, m).

    With t L in L's place X is at most t x + t nu / (t - beta), where x = ||U' L S^-1 L U||, nu = ||U' L S^-1 C'||^2 and
    beta = ||C S^-1 C'||, which is least at t = beta + sqrt(nu beta / x).
    """
    factor, _ = room(equation, 0.0, multiplier)
    entering = torch.linalg.solve_triangular(factor, multiplier[:, None] * injection, upper=False)
    leaving = torch.linalg.solve_triangular(factor, outputs.mT, upper=False)
    x, beta = spectral_norm(entering).square(), spectral_norm(leaving).square()
    nu = spectral_norm(entering.mT @ leaving).square()
    # At t = beta itself the matrix would be singular.
    above = torch.where(x > 0, (nu * beta / x).sqrt(), beta).clamp(min=1e-3 * beta)
    return (beta + above)[:, None] * multiplier


def descended(equation: Equation, outputs: Tensor, injection: Tensor, multipliers: Tensor) -> Tensor:
    """Return multipliers (K, m) of no larger gains of ``outputs`` C (K, k, m), by Adam on their logarithms; the best seen are kept.

    The gradient is that of a smooth bound of the largest eigenvalue, over a few of them; ``injection`` U is (m, j).
    """
    square, exponent = outputs.mT @ outputs, multipliers.log()
    best, value = exponent.clone(), torch.full((len(multipliers),), torch.inf, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(injection.shape[1], VECTORS, generator=generator, dtype=torch.float64)
    vectors = vectors.expand(len(multipliers), -1, -1)
    optimiser = torch.optim.Adam([exponent], lr=STEP)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    first, last = SHARPNESS
    # Where each ReLU reads an input of its own, no product is taken.
    U = None if torch.equal(injection, torch.eye(*injection.shape, dtype=torch.float64)) else injection
    for step in range(STEPS):
        L = exponent.exp()
        factor, failed = room(equation, square, L)
        values, vectors = _largest(factor, L[..., None], U, vectors)
        gain = torch.where(failed | values[:, -1].isnan(), torch.inf, values[:, -1])
        better = gain < value
        best, value = torch.where(better[:, None], exponent, best), torch.where(better, gain, value)
        weights = torch.softmax(values.clamp(min=1e-300).log() * first * (last / first) ** (step / STEPS), -1)
        entering = vectors if U is None else U @ vectors
        state = torch.cholesky_solve(L[..., None] * entering, factor)
        slope = 2 * (state * (entering + equation.weight.centre @ state - state) * weights[:, None]).sum(-1)
        # A step that left the feasible set has no gradient to return by.
        exponent.copy_(torch.where((gain < torch.inf)[:, None], exponent, best))
        exponent.grad = torch.where((gain < torch.inf)[:, None], L * slope / gain[:, None].clamp(min=1e-300), 0.0)
        optimiser.step()
        schedule.step()
    return best.exp()


def _largest(factor: Tensor, L: Tensor, U: Tensor | None, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return about the largest eigenvalues (K, q) of X, ascending, and eigenvectors (K, j, q), from ``vectors`` near them.

    ``factor`` is that of S - C'C, ``L`` (K, m, 1), ``U`` (m, j) or None for the identity: Rayleigh and Ritz, on the vectors and two
    powers of X times them.
    """
    basis = [vectors]
    for _ in range(2):
        moved = L * torch.cholesky_solve(L * (basis[-1] if U is None else U @ basis[-1]), factor)
        moved = moved if U is None else U.mT @ moved
        basis.append(moved / moved.norm(dim=1, keepdim=True).clamp(min=1e-300))
    frame = torch.linalg.qr(torch.cat(basis, -1)).Q
    part = torch.linalg.solve_triangular(factor, L * (frame if U is None else U @ frame), upper=False)
    values, turns = symmetric_eigenvectors(part.mT @ part)
    count = min(VECTORS, values.shape[-1])
    return values[..., -count:], (frame @ turns)[..., -count:]
