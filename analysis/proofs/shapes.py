"""The shape that tensors are expanded to when they meet; torch.broadcast_shapes imports SymPy for it, which takes half a second."""

from collections.abc import Sequence

import numpy as np
import torch


def common_shape(*shapes: Sequence[int]) -> torch.Size:
    """Return the shape that all ``shapes`` broadcast to; ValueError where they do not.

    >>> common_shape((3, 1), (2,))
    torch.Size([3, 2])
    """
    return torch.Size(np.broadcast_shapes(*map(tuple, shapes)))
