"""The projection of a vector field onto those that decrease V (paper, Eq. 8; Manek and Kolter 2019)."""

import torch
from torch import Tensor


def project(field: Tensor, gradient: Tensor, value: Tensor, alpha: float) -> Tensor:
    """Return the field nearest to ``field`` with grad V . field <= -alpha V; where grad V = 0, ``field`` itself.

    ``field`` and ``gradient`` = grad V are (B, n), ``value`` = V is (B,). It is the projection onto a half-space:
    field - grad V relu(grad V . field + alpha V) / ||grad V||^2.

    Works on gradients of any size that the dtype can hold: the direction of grad V is computed apart from its length. The
    projection is applied twice: rounding leaves the first result off the half-space by roundoff times ``field``, the second
    by roundoff times the result, which can be far smaller.
    """
    largest = gradient.abs().amax(1, keepdim=True)
    centred = largest == 0
    scaled = gradient / torch.where(centred, 1, largest)
    length = scaled.norm(dim=1, keepdim=True)
    direction = scaled / torch.where(centred, 1, length)
    # V / ||grad V|| by two divisions, since the product largest * length can leave the dtype's range.
    rate = alpha * (value[:, None] / torch.where(centred, 1, length) / torch.where(centred, 1, largest))
    projected = field
    for _ in range(2):
        excess = (direction * projected).sum(1, keepdim=True) + rate
        projected = projected - direction * excess.clamp(min=0)
    return torch.where(centred, field, projected)
