"""The Jacobian of the cell at its equilibria: eigenvalues, with the error that rounding may cause."""

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor

from analysis.measure.arnoldi import ROUNDING, UNKNOWN, Spectrum, outer_spectrum
from analysis.measure.subject import DENSE, Subject

__all__ = ["ROUNDING", "UNKNOWN", "Spectrum", "images_looked_at", "spectral_radii", "spectrum_at"]

IMAGES = 64
IMAGES_SPARSE = 4


def images_looked_at(subject: Subject) -> int:
    """Return at how many of the equilibria, the first ones, spectra are taken: fewer where the state is large."""
    return min(IMAGES if subject.dim <= DENSE else IMAGES_SPARSE, len(subject.found))


def spectrum_at(subject: Subject, position: int, z: Tensor | None = None) -> Spectrum:
    """Return the spectrum of J at the equilibrium ``position``: all eigenvalues, or of a large state the outermost.

    Where a state ``z`` (n,) is given, that of J there, with the same features.
    """
    if subject.dim > DENSE:
        return outer_spectrum(subject, position, z)
    from scipy.linalg import eig

    jacobian = subject.jacobian(subject.equilibria[position] if z is None else z, position).numpy()
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


def spectral_radii(subject: Subject, on_image: Callable[[int], None] = lambda count: None) -> Tensor:
    """Return the spectral radius (N,) of the cell's Jacobian at the first equilibria found, NaN at the others.

    ``on_image`` is told the count of each image as it begins.
    """
    radii = torch.full((len(subject.images),), torch.nan, dtype=torch.float64)
    for position in range(images_looked_at(subject)):
        on_image(position + 1)
        radii[subject.found[position]] = spectrum_at(subject, position).radius
    return radii
