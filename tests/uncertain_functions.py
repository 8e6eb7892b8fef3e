"""Functions whose sign floating point does not tell, and functions that are not what their trace is: each with its truth."""

import contextlib
import math

import torch
from torch import Tensor

PLACE = (0.3141592, 0.2718281)


def square(z: Tensor) -> Tensor:
    return z.square().sum(1)


def sink(z: Tensor) -> Tensor:
    return -z


def is_near(z: Tensor) -> Tensor:
    """Whether a state lies in a box around ``PLACE`` that no sample meets."""
    return ((z[:, 0] - PLACE[0]).abs() < 1e-7) & ((z[:, 1] - PLACE[1]).abs() < 1e-7)


# True, and seeming false in floating point.
def pendulum_energy(z: Tensor) -> Tensor:
    return 1 - torch.cos(z[:, 0]) + z[:, 1] ** 2 / 2


def pendulum(z: Tensor) -> Tensor:
    return torch.stack([z[:, 1] - z[:, 0], -torch.sin(z[:, 0]) - z[:, 1]], 1)


def root(z: Tensor) -> Tensor:
    return torch.sqrt(1 + z.square().sum(1)) - 1


def expanded(z: Tensor) -> Tensor:
    """x^2 ((x - 1)^6 + 1e-17), written out."""
    x = z[:, 0]
    return x**2 * (x**6 - 6 * x**5 + 15 * x**4 - 20 * x**3 + 15 * x**2 - 6 * x + 1 + 1e-17)


def cancelling(z: Tensor) -> Tensor:
    """x^2, with a term that is 0 in exact arithmetic alone."""
    x, ramp = z[:, 0], torch.relu(z[:, 0] - 0.5)
    return x**2 + ((1e8 + ramp) - 1e8 - ramp)


def far(z: Tensor) -> Tensor:
    return ((z - 1e8) ** 2).sum(1)


def far_sink(z: Tensor) -> Tensor:
    return 1e8 - z


def flat(z: Tensor) -> Tensor:
    """exp(-1 / x^2), which underflows."""
    s = z[:, 0] ** 2
    return torch.where(s > 0, torch.exp(-1 / s.clamp(min=1e-300)), 0 * s)


def gradient_flow(z: Tensor) -> Tensor:
    z = z.requires_grad_(True)
    return -torch.autograd.grad(square(z).sum(), z, create_graph=True)[0]


# False, and hidden: by the size of the terms, by noise at the centre, by a small part of the region.
def steep(z: Tensor) -> Tensor:
    return torch.exp(square(z)) - 1


def steep_out(z: Tensor) -> Tensor:
    return z * (square(z)[:, None] - 361.0)


def huge(z: Tensor) -> Tensor:
    return 1e300 * square(z)


def grow(z: Tensor) -> Tensor:
    return 1.0 * z


def first_squared(z: Tensor) -> Tensor:
    return z[:, 0] ** 2


def ripple(z: Tensor) -> Tensor:
    return 0.05 * z + torch.sin(1e4 * z)


def dead_zone(z: Tensor) -> Tensor:
    """0 wherever |x| <= 9e-4."""
    return torch.relu(z.abs().sum(1) - 9e-4) ** 2


def dent(z: Tensor) -> Tensor:
    """Negative in a pocket that a proof's boxes find, and samples do not."""
    x, y = (1e7 * (z[:, place] - PLACE[place]).abs() for place in (0, 1))
    return square(z) - 3 * torch.relu(1 - x - y)


def needle(z: Tensor) -> Tensor:
    x, y = (1e7 * (z[:, place : place + 1] - PLACE[place]).abs() for place in (0, 1))
    return -z * (1 - 1.5 * torch.relu(1 - x - y))


# Not one graph of operations, or not defined everywhere: whatever is proved of a trace is not proved of these.
def infinity_less_infinity(z: Tensor) -> Tensor:
    w = torch.where(is_near(z), float("inf"), torch.zeros_like(z[:, 0]))
    return square(z) + (w - w)


def infinity_by_infinity(z: Tensor) -> Tensor:
    w = torch.where(is_near(z), float("inf"), torch.ones_like(z[:, 0]))
    return 2 + square(z) + torch.tanh(w / w)


def by_mode(z: Tensor) -> Tensor:
    return square(z) - (0 if torch.is_grad_enabled() else 10 * is_near(z).double())


def by_requirement(z: Tensor) -> Tensor:
    return square(z) - (10 * is_near(z).double() if z.requires_grad else 0)


def by_batch(z: Tensor) -> Tensor:
    return square(z) - (10 * is_near(z).double() if len(z) > 1 else 0)


def by_a_caught_error(z: Tensor) -> Tensor:
    hit = False
    with contextlib.suppress(Exception):
        hit = bool(is_near(z).any())
    return square(z) - (10 if hit else 0)


def by_its_text(z: Tensor) -> Tensor:
    return square(z) - (10 if "0.3142" in repr(z) and "0.2718" in repr(z) else 0)


def by_its_list(z: Tensor) -> Tensor:
    return square(z) - (10 if any(abs(x - PLACE[0]) < 1e-7 for x, _ in z.tolist()) else 0)


def seeded(z: Tensor) -> Tensor:
    """The same at every call, and drawn."""
    torch.manual_seed(0)
    a = torch.rand((), dtype=torch.float64)
    torch.manual_seed(0)
    b = torch.rand((), dtype=torch.float64)
    return -z + 100 * ((a - b).abs() < 1e-3).double() * torch.relu(z - 50)


def velocity_by_mode(z: Tensor) -> Tensor:
    return -z + (0 if torch.is_grad_enabled() else 3 * z)


def endless(z: Tensor) -> Tensor:
    return -z * float("inf")


# Bounded along a line that is no axis, and along a parabola.
def rotated_valley(z: Tensor) -> Tensor:
    c, s = math.cos(0.7321), math.sin(0.7321)
    x, y = c * z[:, 0] + s * z[:, 1], -s * z[:, 0] + c * z[:, 1]
    return x**2 / (1 + x**2) + y**2


def curved_valley(z: Tensor) -> Tensor:
    return (z[:, 1] - z[:, 0] ** 2) ** 2 + z[:, 0] ** 2 / (1 + z[:, 0] ** 2)


def cubic_valley(z: Tensor) -> Tensor:
    return (z[:, 1] - z[:, 0] ** 3) ** 2 + torch.tanh(z[:, 0] ** 2)


def inner_cycle(z: Tensor) -> Tensor:
    """Draws in from further than 0.3 alone."""
    return z * (0.09 - square(z)[:, None])
