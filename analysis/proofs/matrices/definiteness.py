"""Proofs that a matrix is positive definite, by a floating-point computation whose rounding is accounted for."""

import torch
from torch import Tensor

from stabdeq.linear_algebra import cholesky


def proves_positive_definite(matrices: Tensor, error: Tensor | float = 0.0) -> Tensor:
    """Return (...,) bool: whether all symmetric matrices within ``error`` of ``matrices`` (..., n, n) are positive definite.

    ``error`` bounds each entry's error, (..., n, n) or one number. False says nothing. A Cholesky factorisation that runs to
    completion in floating point proves that the matrix plus a small multiple of its trace is positive definite (Rump,
    "Verification of positive definiteness", BIT 46, 2006), so the matrix is tried less that multiple and less the norm of the
    error. Raises ValueError where the matrices are not exactly symmetric, float64 and finite.
    """
    if matrices.dtype != torch.float64 or not torch.equal(matrices, matrices.mT) or not bool(matrices.isfinite().all()):
        raise ValueError("expected finite float64 matrices that equal their transposes")
    n = matrices.shape[-1]
    diagonal = matrices.diagonal(dim1=-2, dim2=-1)
    roundoff = torch.finfo(torch.float64).eps
    radius = torch.as_tensor(error, dtype=torch.float64).expand_as(matrices).abs()
    # The factor 2 covers the rounding of the sums and of the difference below; the last term covers underflow.
    shift = 2 * (n + 2) * roundoff * diagonal.abs().sum(-1) + n * n * 1e-300
    # A symmetric perturbation moves eigenvalues by no more than its largest row sum.
    shift = shift + (1 + 2 * n * roundoff) * radius.sum(-1).amax(-1)
    lowered = matrices - torch.diag_embed(shift[..., None].expand_as(diagonal))
    return ~cholesky(lowered).failed & shift.isfinite() & (diagonal > 0).all(-1)
