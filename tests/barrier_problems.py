"""Barriers with a known truth: B, sets {g <= 0}, and dynamics."""

import numpy as np
import torch
from torch import Tensor


def circle(z: Tensor) -> Tensor:
    """B, 0 on the unit circle."""
    return z.square().sum(1) - 1


def outside_circle(z: Tensor) -> Tensor:
    return -circle(z)


def inner_disc(z: Tensor) -> Tensor:
    """The initial set |z| <= 1/2."""
    return z.square().sum(1) - 0.25


def far_out(z: Tensor) -> Tensor:
    """The unsafe set |z| >= 3/2."""
    return 2.25 - z.square().sum(1)


def spiral_in(z: Tensor) -> Tensor:
    """Rotation with damping: B-dot = -2 |z|^2."""
    x, y = z.unbind(1)
    return torch.stack([y - x, -x - y], 1)


def spiral_out(z: Tensor) -> Tensor:
    x, y = z.unbind(1)
    return torch.stack([y + x, -x + y], 1)


def rotation(z: Tensor) -> Tensor:
    """B-dot = 0 everywhere."""
    x, y = z.unbind(1)
    return torch.stack([y, -x], 1)


def prajna_flow(z: Tensor) -> Tensor:
    """The system of Prajna and Jadbabaie 2004, section 3."""
    x, y = z.unbind(1)
    return torch.stack([y, -x + x**3 / 3 - y], 1)


def prajna_barrier(z: Tensor) -> Tensor:
    """Their barrier of degree four."""
    x, y = z.unbind(1)
    return -13 + 7 * x**2 + 16 * y**2 - 6 * x**2 * y**2 - 7 / 6 * x**4 - 3 * x * y**3 + 12 * x * y - 4 * x**3 * y


def prajna_initial(z: Tensor) -> Tensor:
    x, y = z.unbind(1)
    return (x - 1.5) ** 2 + y**2 - 0.25


def prajna_unsafe(z: Tensor) -> Tensor:
    x, y = z.unbind(1)
    return (x + 1) ** 2 + (y + 1) ** 2 - 0.16


def corner_box(z: Tensor) -> Tensor:
    """The unsafe set [1.1, 2] x [1.1, 2], of a function with kinks."""
    return ((z - 1.55).abs() - 0.45).amax(1)


def array_circle(z: np.ndarray) -> np.ndarray:
    return (np.asarray(z) ** 2).sum(1) - 1


def array_disc(z: np.ndarray) -> np.ndarray:
    return (np.asarray(z) ** 2).sum(1) - 0.25


def array_spiral_out(z: np.ndarray) -> np.ndarray:
    z = np.asarray(z)
    return np.stack([z[:, 1] + z[:, 0], z[:, 1] - z[:, 0]], 1)


def truths(z: Tensor) -> Tensor:
    return z.square().sum(1) <= 0.25


def nowhere(z: Tensor) -> Tensor:
    """The empty set, written with the wrong sign, say."""
    return z.square().sum(1) + 1


def bubble(z: Tensor) -> Tensor:
    """B, 0 on the unit circle and on a circle of radius 1e-3 around (1.5, 0) that sampled states hardly meet."""
    near = (z - torch.tensor([1.5, 0.0], dtype=torch.float64)).square().sum(1)
    return torch.minimum(circle(z), 100 * (near - 1e-6))


def ramp(z: Tensor) -> Tensor:
    """B, 0 all over the unit disc."""
    return circle(z).clamp(min=0)


def jumping(z: Tensor) -> Tensor:
    """B, whose sign changes without a state where it is 0."""
    return torch.where(circle(z) > 0, 1.0, -1.0).to(z.dtype)


def not_a_number(z: Tensor) -> Tensor:
    return circle(z) + torch.nan
