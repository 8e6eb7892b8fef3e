"""Factorisations of matrices that may hold NaN or infinity, of which LAPACK would hang or crash: they get NaN for an answer.

So does a matrix on which an iteration does not converge, or that is singular where it is to be inverted. Each takes one matrix, or
a batch of them, in which one matrix does not touch the others.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Cholesky(NamedTuple):
    """Lower triangular ``factor`` (..., n, n), the identity where the factorisation ``failed`` (...,) bool."""

    factor: Tensor
    failed: Tensor


class Eigen(NamedTuple):
    """Eigenvalues (..., n) in ascending order, and the eigenvectors of length 1 (..., n, n), in columns."""

    values: Tensor
    vectors: Tensor


def eigenvalues(matrices: Tensor) -> Tensor:
    """Return the eigenvalues (..., n), complex, of square ``matrices`` (..., n, n)."""
    return _each(lambda finite: (torch.linalg.eigvals(finite),), matrices)[0]


def symmetric_eigenvalues(matrices: Tensor) -> Tensor:
    """Return the eigenvalues (..., n), ascending, of symmetric ``matrices`` (..., n, n), of which the lower triangle is read."""
    return _each(lambda finite: (torch.linalg.eigvalsh(finite),), matrices)[0]


def symmetric_eigenvectors(matrices: Tensor) -> Eigen:
    """Return eigenvalues and eigenvectors of symmetric ``matrices`` (..., n, n), of which the lower triangle is read."""
    return Eigen(*_each(lambda finite: tuple(torch.linalg.eigh(finite)), matrices))


def singular_values(matrices: Tensor) -> Tensor:
    """Return the singular values (..., min(n, m)), descending, of ``matrices`` (..., n, m)."""
    return _each(lambda finite: (torch.linalg.svdvals(finite),), matrices)[0]


def spectral_norm(matrices: Tensor) -> Tensor:
    """Return the largest singular value (...,) of ``matrices`` (..., n, m)."""
    return _each(lambda finite: (torch.linalg.matrix_norm(finite, 2),), matrices)[0]


def cholesky(matrices: Tensor) -> Cholesky:
    """Return the Cholesky factors of symmetric ``matrices`` (..., n, n), of which the lower triangle is read.

    A matrix that is not finite, or not found to be positive definite, is one where it failed.
    """
    finite = _are_finite(matrices)
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    # Copies of large matrices take as long as their factorisation: none is made of those that it takes as they are.
    if not bool(finite.all()):
        matrices = torch.where(finite[..., None, None], matrices, identity)
    factor, info = torch.linalg.cholesky_ex(matrices)
    failed = (info != 0) | ~finite
    if bool(failed.any()):
        factor = torch.where(failed[..., None, None], identity, factor)
    return Cholesky(factor, failed)


def solved(matrices: Tensor, right: Tensor) -> Tensor:
    """Return X (..., n, k) with A X = ``right`` (..., n, k), for square ``matrices`` A (..., n, n)."""
    finite = _are_finite(matrices)
    solution, info = torch.linalg.solve_ex(torch.where(finite[..., None, None], matrices, 0), right)
    return torch.where(((info == 0) & finite)[..., None, None], solution, torch.nan)


def least_squares(matrix: Tensor, right: Tensor) -> Tensor:
    """Return the shortest X (m, k) that minimises ||A X - ``right``|| for ``matrix`` A (n, m), of any rank, and right (n, k)."""
    if not bool(matrix.isfinite().all()):
        return matrix.new_full((matrix.shape[1], right.shape[1]), torch.nan)
    finite = torch.where(right.isfinite(), right, 0)
    try:
        solution = torch.linalg.lstsq(matrix, finite, driver="gelsd").solution
    except torch.linalg.LinAlgError:
        return matrix.new_full((matrix.shape[1], right.shape[1]), torch.nan)
    return torch.where(right.isfinite().all(0), solution, torch.nan)


def solved_lyapunov(matrix: Tensor, right: Tensor) -> Tensor:
    """Return X (n, n) with A X + X A' = ``right`` (n, n) for ``matrix`` A (n, n); NaN where two eigenvalues of A add up to 0."""
    from scipy.linalg import LinAlgError, solve_continuous_lyapunov

    nothing = torch.full_like(matrix, torch.nan)
    if not bool(matrix.isfinite().all() & right.isfinite().all()):
        return nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that the matrix was changed, to have a solution
        try:
            return torch.as_tensor(solve_continuous_lyapunov(matrix.numpy(), right.numpy()), dtype=matrix.dtype)
        except (LinAlgError, RuntimeWarning):
            return nothing


def _are_finite(matrices: Tensor) -> Tensor:
    if not matrices.numel():
        return matrices.isfinite().all(-1).all(-1)
    largest, least = matrices.amax((-2, -1)), matrices.amin((-2, -1))  # NaN where any entry is
    return largest.isfinite() & least.isfinite()


def _each(factorise: Callable[[Tensor], tuple[Tensor, ...]], matrices: Tensor) -> tuple[Tensor, ...]:
    """Return what ``factorise`` makes of ``matrices`` (..., n, m), with NaN for those that it cannot take."""
    finite = _are_finite(matrices)
    safe = torch.where(finite[..., None, None], matrices, 0)
    try:
        results = factorise(safe)
    except torch.linalg.LinAlgError:  # one matrix of a batch, of which the others are to be had
        if matrices.dim() > 2:
            parts = [_each(factorise, one) for one in matrices]
            return tuple(torch.stack(each) for each in zip(*parts, strict=True))
        results, finite = factorise(torch.zeros_like(matrices)), torch.zeros_like(finite)
    return tuple(
        torch.where(finite[(..., *[None] * (result.dim() - finite.dim()))], result, torch.nan) for result in results
    )
