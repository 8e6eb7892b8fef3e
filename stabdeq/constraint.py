"""The set {h = 0} of a function h of the state: the way to it along h's slope."""

from collections.abc import Callable

import torch
from torch import Tensor

from stabdeq.linear_algebra import solved

Constraint = Callable[[Tensor], Tensor]  # h: (B, n) -> (B,) or (B, k), all of its numbers 0 on the set
STEPS = 16
# Newton steps square what is left: after one as short as this, relative to the state, nothing is.
LAST = 1e-9
# Added to the diagonal of J J' where it is singular, as components of h that say the same leave it; the largest number of each row is 1.
DAMPED = 1e-13
SINGULAR = 1e-6  # the error of an inverse, beyond which it is none


def slopes(h: Constraint, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return h (B, k) at ``states`` (B, n), and its Jacobian (B, k, n) by automatic differentiation, 0 where it has none.

    Both can be differentiated where ``states`` can.
    """
    keeps = states.requires_grad and torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = states if keeps else states.detach().clone().requires_grad_()
        value = columns(h(leaf))
        rows = [
            torch.autograd.grad(one.sum(), leaf, create_graph=keeps, retain_graph=True, materialize_grads=True)[0]
            if one.requires_grad
            else torch.zeros_like(leaf)
            for one in value.unbind(1)
        ]
    return value if keeps else value.detach(), torch.stack(rows, 1)


def shortest_step(jacobian: Tensor) -> Tensor:
    """Return the matrices (B, n, k) that take h to the shortest step d with J d = h, for the ``jacobian`` J (B, k, n); NaN where J is."""
    largest = jacobian.abs().amax(2, keepdim=True)
    size = torch.where(largest == 0, 1, largest)
    rows = jacobian / size  # whose squares neither overflow nor underflow
    gram = rows @ rows.mT + torch.diag_embed((largest == 0).squeeze(2).to(rows.dtype))
    if gram.shape[1] == 1:  # by far the most sets
        return rows.mT / gram / size
    unit = torch.eye(gram.shape[1], dtype=gram.dtype).expand_as(gram)
    inverse = solved(gram, unit)
    is_none = ~((gram @ inverse - unit).abs().amax((1, 2), keepdim=True) <= SINGULAR)
    if bool(is_none.any()):
        inverse = torch.where(is_none, solved(gram + DAMPED * unit, unit), inverse)
    return rows.mT @ inverse / size.mT


def distance(h: Constraint, states: Tensor) -> Tensor:
    """Return (B,): how long the shortest Newton step from ``states`` (B, n) to {h = 0} is, infinite where h has no slope and is not 0.

    What the step leaves of a component, as of two that are not 0 together, counts as the way that its slope would need.
    """
    value, jacobian = slopes(h, states)
    step = shortest_step(jacobian) @ value[:, :, None]
    left = (value - (jacobian @ step).squeeze(2)).abs()
    away = torch.where(left == 0, 0, left / jacobian.abs().amax(2)).amax(1)
    found = (step.squeeze(2).norm(dim=1) + away).nan_to_num(torch.inf)
    return found.masked_fill((value == 0).all(1), 0)


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
