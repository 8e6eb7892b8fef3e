"""Systems on a set {h = 0} with a known truth: a damped pendulum as (sin, cos, speed), and a flow on the sphere."""

import torch
from torch import Tensor


def circle(z: Tensor) -> Tensor:
    """h of the pendulum's states."""
    return z[:, 0] ** 2 + z[:, 1] ** 2 - 1


def pendulum(z: Tensor) -> Tensor:
    """theta'' = -sin theta - theta', which keeps the circle."""
    s, c, w = z.unbind(1)
    return torch.stack([c * w, -s * w, -s - w], 1)


def energy(z: Tensor) -> Tensor:
    """Falls but where the speed is 0; below 0 off the circle."""
    _, c, w = z.unbind(1)
    return 1 - c + w**2 / 2


def crossed(z: Tensor) -> Tensor:
    """V-dot = -(1 - c / 4) w^2 - s w / 4 - s^2 / 4: a Lyapunov function on the circle, but for the upright state; none off it."""
    return energy(z) + z[:, 0] * z[:, 2] / 4


def leaving(z: Tensor) -> Tensor:
    """Dh f = s^2 / 5."""
    return pendulum(z) + torch.stack([z[:, 0] / 10, 0 * z[:, 0], 0 * z[:, 0]], 1)


def sphere(z: Tensor) -> Tensor:
    return z.square().sum(1) - 1


def to_the_pole(z: Tensor) -> Tensor:
    """The gradient flow of z3 on the sphere: Dh f = -2 z3 h."""
    return torch.eye(3, dtype=z.dtype)[2] - z[:, 2:] * z


def depth(z: Tensor) -> Tensor:
    """V-dot = -(1 - z3^2) = -(1 + z3) V on the sphere: it decays by 0.5 where z3 >= -0.5, and not by more."""
    return 1 - z[:, 2]


def nowhere(z: Tensor) -> Tensor:
    return z.square().sum(1) + 1


def apart(z: Tensor) -> Tensor:
    """Two components that are not 0 together, and halfway between have a step of length 0."""
    return torch.stack([circle(z) - 1e-3, circle(z) + 1e-3], 1)


def alone(z: Tensor) -> Tensor:
    """0 at (0, 1, 0) alone."""
    s, c, w = z.unbind(1)
    return torch.stack([s + s**3, c - 1, w], 1)


def root(z: Tensor) -> Tensor:
    return z[:, 0].abs().sqrt() - z[:, 1]


def nothing(z: Tensor) -> Tensor:
    return z[:, :0]


def in_float32(z: Tensor) -> Tensor:
    return circle(z).float()


def truths(z: Tensor) -> Tensor:
    return circle(z) == 0


def not_a_number(z: Tensor) -> Tensor:
    return circle(z) + torch.nan


def cube(z: Tensor) -> Tensor:
    return z[:, :, None]


def of_arrays(z: object) -> object:
    import numpy

    array = numpy.asarray(z)
    return array[:, 0] ** 2 + array[:, 1] ** 2 - 1
