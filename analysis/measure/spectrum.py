"""The Jacobian of the cell at its equilibria: eigenvalues, with the error that rounding may cause."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from analysis.measure.subject import DENSE, Subject

ROUNDING = 1e-12  # an allowance for the rounding of J itself, of norm about 1
IMAGES = 64
IMAGES_SPARSE = 4


def images_looked_at(subject: Subject) -> int:
    """Return at how many of the equilibria, the first ones, spectra are taken: fewer where the state is large."""
    return min(IMAGES if subject.dim <= DENSE else IMAGES_SPARSE, len(subject.found))


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of J at one equilibrium, and the error that rounding may cause in its spectral abscissa.

    ``abscissa`` is the largest real part of eig(J) - 1, ``error`` a first-order bound of its rounding error: the largest
    eigenvalue condition number times roundoff times ||J||. ``numerical_abscissa`` is that of the numerical range.
    """

    eigenvalues: np.ndarray
    abscissa: float
    error: float
    radius: float
    numerical_abscissa: float


# Where there is no Jacobian, or the iteration for its eigenvalues fails.
UNKNOWN = Spectrum(np.array([]), np.nan, np.inf, np.nan, np.inf)


def spectrum_at(subject: Subject, position: int) -> Spectrum:
    """Return the spectrum of J at the equilibrium ``position``: all eigenvalues, or of a large state the outer ones."""
    if subject.dim > DENSE:
        return _sparse_spectrum(subject, position)
    from scipy.linalg import eig

    jacobian = subject.jacobian(subject.equilibria[position], position).numpy()
    if not np.isfinite(jacobian).all():
        return UNKNOWN
    try:
        values, left, right = cast(tuple[np.ndarray, ...], eig(jacobian, left=True, right=True))
    except np.linalg.LinAlgError:  # the iteration may fail to converge
        return UNKNOWN
    overlap = np.abs((left.conj() * right).sum(0))
    condition = float((1 / np.maximum(overlap, np.finfo(float).tiny)).max())
    error = condition * np.finfo(float).eps * float(np.linalg.norm(jacobian, 2)) * len(jacobian)
    symmetric = float(np.linalg.eigvalsh((jacobian + jacobian.T) / 2)[-1])
    return Spectrum(values, float(values.real.max()) - 1, error, float(np.abs(values).max()), symmetric - 1)


def _sparse_spectrum(subject: Subject, position: int) -> Spectrum:
    """Return the outer eigenvalues by Arnoldi iteration (ARPACK): those of largest magnitude and of largest real part."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, eigsh

    z = subject.equilibria[position][None]
    pull_back = torch.func.vjp(subject.cell_at(position), z)[1]
    # u -> J'u is linear, so its own vector-Jacobian product is v -> J v.
    push_forward = torch.func.vjp(lambda u: pull_back(u)[0], torch.zeros_like(z))[1]

    def transposed(vector: np.ndarray) -> np.ndarray:
        return pull_back(_row(vector))[0].flatten().numpy()

    def product(vector: np.ndarray) -> np.ndarray:
        return push_forward(_row(vector))[0].flatten().numpy()

    def symmetric(vector: np.ndarray) -> np.ndarray:
        return (product(vector) + transposed(vector)) / 2

    forward, backward, middle = (
        LinearOperator((subject.dim, subject.dim), matvec=apply, dtype=np.float64)  # pyrefly: ignore
        for apply in (product, transposed, symmetric)
    )
    start = np.ones(subject.dim)
    if not np.isfinite(product(start) + transposed(start)).all():
        return UNKNOWN
    try:
        largest = cast(np.ndarray, eigs(forward, k=6, which="LM", v0=start, return_eigenvectors=False))
        rightmost, right = cast(tuple[np.ndarray, np.ndarray], eigs(forward, k=6, which="LR", v0=start))
        again, left = cast(tuple[np.ndarray, np.ndarray], eigs(backward, k=6, which="LR", v0=start))
        top = cast(np.ndarray, eigsh(middle, k=1, which="LA", v0=start, return_eigenvectors=False))
    except ArpackNoConvergence:
        return UNKNOWN
    leading = int(rightmost.real.argmax())
    eigenvalue, vector = rightmost[leading], right[:, leading]
    overlap = abs(np.vdot(left[:, int(abs(again - eigenvalue.conjugate()).argmin())].conj(), vector))
    overlap = max(overlap, abs(np.vdot(left[:, int(abs(again - eigenvalue).argmin())].conj(), vector)))
    residual = np.linalg.norm(product(vector.real) + 1j * product(vector.imag) - eigenvalue * vector)
    error = float((residual + ROUNDING) / max(overlap, np.finfo(float).tiny))
    values = np.concatenate([largest, rightmost])
    return Spectrum(values, float(eigenvalue.real) - 1, error, float(abs(largest).max()), float(top[0]) - 1)


def _row(vector: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64)).view(1, -1)


def spectral_radii(subject: Subject, on_image: Callable[[int], None] = lambda count: None) -> Tensor:
    """Return the spectral radius (N,) of the cell's Jacobian at the first equilibria found, NaN at the others.

    ``on_image`` is told the count of each image as it begins.
    """
    radii = torch.full((len(subject.images),), torch.nan, dtype=torch.float64)
    for position in range(images_looked_at(subject)):
        on_image(position + 1)
        radii[subject.found[position]] = spectrum_at(subject, position).radius
    return radii
