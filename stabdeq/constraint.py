"""The set {h = 0} of a function h of the state: the way to it along h's slope."""

from collections.abc import Callable

import torch
from torch import Tensor

from stabdeq.linear_algebra import solved

Constraint = Callable[[Tensor], Tensor]  # h: (B, n) -> (B,) or (B, k), all of its numbers 0 on the set
STEPS = 16
# Newton steps square what is left: after one as short as this, relative to the state, nothing is.
LAST = 1e-9
# Of the trace of J J', where it is singular, as components of h that say the same leave it.
DAMPED = 1e-15


def slopes(h: Constraint, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return h (B, k) at ``states`` (B, n), and its Jacobian (B, k, n) by automatic differentiation, 0 where it has none."""
    with torch.enable_grad():
        leaf = states.detach().clone().requires_grad_()
        value = columns(h(leaf))
        rows = [
            torch.autograd.grad(one.sum(), leaf, retain_graph=True, materialize_grads=True)[0]
            if one.requires_grad
            else torch.zeros_like(leaf)
            for one in value.unbind(1)
        ]
    return value.detach(), torch.stack(rows, 1)


def shortest_step(jacobian: Tensor) -> Tensor:
    """Return the matrices (B, n, k) that take h to the shortest step d with J d = h, for the ``jacobian`` J (B, k, n); NaN where J is."""
    gram = jacobian @ jacobian.mT
    size = gram.diagonal(dim1=1, dim2=2)
    if gram.shape[1] == 1:  # by far the most sets
        return jacobian.mT / torch.where(gram == 0, 1, gram)
    unit = torch.eye(gram.shape[1], dtype=gram.dtype).expand_as(gram)
    gram = gram + torch.diag_embed((size == 0).to(gram.dtype))
    inverse = solved(gram, unit)
    if bool(inverse.isnan().any()):
        damped = solved(gram + DAMPED * size.sum(1)[:, None, None] * unit, unit)
        inverse = torch.where(inverse.isnan(), damped, inverse)
    return jacobian.mT @ inverse


def distance(h: Constraint, states: Tensor) -> Tensor:
    """Return (B,): how long the shortest Newton step from ``states`` (B, n) to {h = 0} is, infinite where h has no slope and is not 0."""
    value, jacobian = slopes(h, states)
    step = (shortest_step(jacobian) @ value[:, :, None]).squeeze(2).norm(dim=1)
    stuck = ((value != 0) & (jacobian == 0).all(2)).any(1)
    return step.nan_to_num(torch.inf).masked_fill(stuck, torch.inf)


def onto_set(h: Constraint, states: Tensor) -> Tensor:
    """Return ``states`` (B, n), float64, after Newton steps onto {h = 0}, each the shortest one; where h has no slope they stay.

    At most 16 steps are made, until all are so short that the next would be below rounding: whether a state has arrived is for the
    caller to see.
    """
    for _ in range(STEPS):
        value, jacobian = slopes(h, states)
        step = (shortest_step(jacobian) @ value[:, :, None]).squeeze(2).nan_to_num(0, 0, 0)
        states = states.detach() - step
        if bool((step.norm(dim=1) <= LAST * states.norm(dim=1)).all()):
            break
    return states


def columns(value: Tensor) -> Tensor:
    """Return what h gives, (B,) or (B, k), as (B, k)."""
    return value[:, None] if value.dim() == 1 else value
