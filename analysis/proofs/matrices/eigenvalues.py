"""Eigenvalues in floating point, of matrices that may hold what is no number."""

import torch
from torch import Tensor


def eigenvalues(matrices: Tensor) -> Tensor:
    """Return the eigenvalues (..., n) of ``matrices`` (..., n, n); all are infinite of one that is not finite.

    LAPACK is asked about finite matrices alone, since it may crash on others.
    """
    finite = matrices.isfinite().all(-1).all(-1)[..., None]
    values = torch.linalg.eigvals(torch.where(finite[..., None], matrices, 0.0))
    return torch.where(finite, values, torch.inf)
