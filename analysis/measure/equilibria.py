"""Which states are next to an equilibrium of the cell, as far as its Jacobian can be inverted."""

from collections.abc import Callable

import torch
from torch import Tensor

from analysis.measure.arnoldi import products_at
from analysis.measure.newton import Located, locate
from analysis.measure.newton_large import Product, locate_by_products, solved
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
    cell = subject.cell_at(position)
    return locate_by_products(lambda w: cell(w) - w, _forward_at(subject, position), z, subject.generator())


@torch.no_grad()
def stepped(subject: Subject, z: Tensor, position: int) -> Tensor | None:
    """Return where Newton's step leads from ``z`` (n,), a state nearer to the equilibrium; None where it is not found."""
    field = subject.cell_at(position)(z[None])[0] - z
    if subject.dim > DENSE:
        step = solved(_forward_at(subject, position)(z), field)
        return None if step is None else z + step
    matrix = torch.eye(subject.dim, dtype=z.dtype) - subject.jacobian(z, position)
    step, failed = torch.linalg.solve_ex(matrix, field)
    return None if bool(failed) or not bool(step.isfinite().all()) else z + step


def _forward_at(subject: Subject, position: int) -> Callable[[Tensor], Product]:
    """Return w -> (v -> J(w) v), with the features of the found image ``position``."""

    def at(state: Tensor) -> Product:
        products = products_at(subject, state, position)
        return lambda v: torch.from_numpy(products.forward(v.numpy()))

    return at


def are_two(first: Located, other: Located, apart: float) -> bool:
    """Whether the balls around two states ``apart``, each of which holds one equilibrium, are far from each other."""
    return APART * (first.radius + other.radius) <= apart
