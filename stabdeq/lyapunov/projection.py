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
    # V / ||grad V|| by two divisions, since the product largest * length can leave the dtype's range; by the length last,
    # since it is at least 1: a quotient on the way is then denormal only where the result is.
    rate = alpha * (value[:, None] / torch.where(centred, 1, largest) / torch.where(centred, 1, length))
    projected = field
    for _ in range(2):
        excess = (direction * projected).sum(1, keepdim=True) + rate
        projected = projected - direction * excess.clamp(min=0)
    # Of a field along grad V only rounding is left, which can point anywhere; the half-space's foot is as near.
    rounding = field.shape[1] * torch.finfo(field.dtype).eps * field.abs().amax(1, keepdim=True)
    projected = torch.where(projected.abs().amax(1, keepdim=True) < rounding, -rate * direction, projected)
    return torch.where(centred, field, projected)
