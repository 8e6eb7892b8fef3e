"""Which states are next to an equilibrium of the cell, as far as its Jacobian can be inverted."""

import torch
from torch import Tensor

from analysis.measure.arnoldi import products_at
from analysis.measure.newton import Located, locate
from analysis.measure.newton_large import locate_by_products
from analysis.measure.subject import DENSE, Subject

APART = 100  # times the radii of balls: a state, or another ball's, so far away is another one for sure
TOO_LARGE = f"states of more than {DENSE} components, of which Newton's step is not computed"


def located(subject: Subject, z: Tensor, position: int) -> Located:
    """Return the ball around ``z`` (n,) that holds exactly one equilibrium for the features of the found image ``position``."""
    if subject.dim > DENSE:
        return Located(float("inf"), TOO_LARGE)
    cell = subject.cell_at(position)
    return locate(lambda w: cell(w) - w, lambda w: subject.jacobian(w, position), z, subject.generator())


def located_by_products(subject: Subject, z: Tensor, position: int) -> Located:
    """Return the same without a Jacobian where the state is large: fewer states are looked at, and it takes many products."""
    if subject.dim <= DENSE:
        return located(subject, z, position)
    cell, products = subject.cell_at(position), products_at(subject, z, position)
    forward = lambda v: torch.from_numpy(products.forward(v.numpy()))  # noqa: E731
    return locate_by_products(lambda w: cell(w) - w, forward, z, subject.generator())


def are_two(first: Located, other: Located, apart: float) -> bool:
    """Whether the balls around two states ``apart``, each of which holds one equilibrium, are far from each other."""
    return APART * (first.radius + other.radius) <= apart
