"""The outermost eigenvalues of the cell's Jacobian at a large state, from its products with vectors alone.

Arnoldi's and Lanczos' methods (Lehoucq, Sorensen and Yang, ARPACK users' guide, 1998) show eigenvalues, and never that there are
no others: what they find is told with its residuals, and that the rest is not known.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from analysis.measure.subject import Subject

ROUNDING = 1e-12  # an allowance for the rounding of J itself, of norm about 1
WANTED = 6  # eigenvalues of each kind
RELATIVE = 1e-13  # to which ARPACK finds an eigenvalue
VECTORS = 40  # of the basis: more of them need fewer products, and more memory
RESTARTS = 300  # of ARPACK, after which those that were found by then are all


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of J at one equilibrium, and the error that rounding may cause in its spectral abscissa.

    ``abscissa`` is the largest real part of eig(J) - 1, ``error`` a first-order bound of its error: the eigenvalue's condition
    number times what rounding, or the residual of its pair, may do. ``numerical_abscissa`` is that of the numerical range.
    ``residuals`` holds ||J v - lambda v|| of each pair, ||v|| = 1, where the spectrum is known in part alone, and else nothing:
    all of these are then of what was found, and the true abscissas and radius may be larger.
    """

    eigenvalues: np.ndarray
    abscissa: float
    error: float
    radius: float
    numerical_abscissa: float
    residuals: np.ndarray = field(default_factory=lambda: np.array([]))

    @property
    def is_partial(self) -> bool:
        """Whether there may be eigenvalues that were not found."""
        return len(self.residuals) > 0


# Where there is no Jacobian, or the iteration for its eigenvalues fails.
UNKNOWN = Spectrum(np.array([]), np.nan, np.inf, np.nan, np.inf)


class Products(NamedTuple):
    """v -> J v and v -> J'v on vectors (n,), real."""

    forward: Callable[[np.ndarray], np.ndarray]
    backward: Callable[[np.ndarray], np.ndarray]

    def symmetric(self, vector: np.ndarray) -> np.ndarray:
        return (self.forward(vector) + self.backward(vector)) / 2


class _Pairs(NamedTuple):
    """Eigenvalues (k,) and unit eigenvectors (n, k), complex, as found."""

    values: np.ndarray
    vectors: np.ndarray


def outer_spectrum(subject: Subject, position: int, z: Tensor | None = None) -> Spectrum:
    """Return the outermost eigenvalues of J at the equilibrium ``position``: of largest magnitude and of largest real part.

    Where a state ``z`` (n,) is given, those of J there, with the same features and from another start.
    """
    products = products_at(subject, subject.equilibria[position] if z is None else z, position)
    generator = subject.generator()
    starts = [torch.randn(subject.dim, generator=generator, dtype=torch.float64).numpy() for _ in range(2)]
    start = starts[0 if z is None else 1]
    first = products.forward(start)
    if not np.isfinite(first + products.backward(start)).all():
        return UNKNOWN
    if not first.any():  # a random vector is in the kernel of no other matrix
        return Spectrum(np.zeros(1), -1.0, ROUNDING, 0.0, -1.0, residuals=np.zeros(1))
    largest, rightmost = (_eigenpairs(products.forward, start, which) for which in ("LM", "LR"))
    left, top = _eigenpairs(products.backward, start, "LR"), _largest_symmetric(products, start)
    if not len(largest.values) or not len(rightmost.values):
        return UNKNOWN
    leading = int(rightmost.values.real.argmax())
    eigenvalue, vector = rightmost.values[leading], rightmost.vectors[:, leading]
    pairs = _Pairs(*(np.concatenate([a, b], -1) for a, b in zip(largest, rightmost, strict=True)))
    residuals = _residuals(products, pairs)
    residual = residuals[len(largest.values) + leading]
    error = float((residual + ROUNDING) / max(_overlap(left, eigenvalue, vector), np.finfo(float).tiny))
    return Spectrum(
        pairs.values,
        float(eigenvalue.real) - 1,
        error,
        float(abs(pairs.values).max()),
        top - 1,
        residuals=residuals,
    )


def products_at(subject: Subject, z: Tensor, position: int) -> Products:
    """Return the products with the Jacobian at ``z`` (n,), with the features of the found image ``position``."""
    pull_back = torch.func.vjp(subject.cell_at(position), z[None])[1]
    # u -> J'u is linear, so its own vector-Jacobian product is v -> J v.
    push_forward = torch.func.vjp(lambda u: pull_back(u)[0], torch.zeros_like(z[None]))[1]
    return Products(
        lambda vector: push_forward(_row(vector))[0].flatten().numpy(),
        lambda vector: pull_back(_row(vector))[0].flatten().numpy(),
    )


def _row(vector: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64)).view(1, -1)


def _eigenpairs(product: Callable[[np.ndarray], np.ndarray], start: np.ndarray, which: str) -> _Pairs:
    """Return the pairs that were found, those of largest magnitude ("LM") or real part ("LR"): fewer than wanted, or none, may be."""
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigs

    operator = LinearOperator((len(start), len(start)), matvec=product, dtype=np.float64)  # pyrefly: ignore
    try:
        basis = min(VECTORS, len(start))
        found = eigs(operator, k=WANTED, which=which, v0=start, ncv=basis, tol=RELATIVE, maxiter=RESTARTS)
    except ArpackNoConvergence as error:
        found = error.eigenvalues, error.eigenvectors
    except ArpackError:
        return _Pairs(np.array([]), np.zeros((len(start), 0)))
    return _Pairs(*found)  # pyrefly: ignore


def _largest_symmetric(products: Products, start: np.ndarray) -> float:
    """Return the largest eigenvalue found of (J + J') / 2, infinite where none was."""
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    operator = LinearOperator((len(start), len(start)), matvec=products.symmetric, dtype=np.float64)  # pyrefly: ignore
    try:
        found = eigsh(operator, k=1, which="LA", v0=start, maxiter=RESTARTS, return_eigenvectors=False)
    except ArpackError:
        return np.inf
    return float(found[0])  # pyrefly: ignore


def _residuals(products: Products, pairs: _Pairs) -> np.ndarray:
    """Return ||J v - lambda v|| (k,) of the ``pairs``, from products taken anew."""
    return np.array(
        [
            np.linalg.norm(products.forward(vector.real) + 1j * products.forward(vector.imag) - value * vector)
            for value, vector in zip(pairs.values, pairs.vectors.T, strict=True)
        ]
    )


def _overlap(left: _Pairs, eigenvalue: complex, vector: np.ndarray) -> float:
    """Return |u'v| for the eigenvector v of ``eigenvalue`` and the ``left`` eigenvector u of the same; 0 where none was found."""
    if not len(left.values):
        return 0.0
    nearest = [int(abs(left.values - value).argmin()) for value in (eigenvalue, eigenvalue.conjugate())]
    overlaps = [abs(np.vdot(left.vectors[:, index].conj(), vector)) for index in nearest]
    overlaps += [abs(np.vdot(left.vectors[:, index], vector)) for index in nearest]
    return float(max(overlaps))
