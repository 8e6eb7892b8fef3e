"""What training minimises: cross-entropy, for anchored models the decay of V along the unprojected field, and a small Jacobian."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from stabdeq.cells import CertifiedCell
from stabdeq.lyapunov import claims
from stabdeq.model import Prediction, StabilisedDEQ
from stabdeq.shared_batch import drawn
from stabdeq.solvers import squared_jacobian_norm
from train.margin import margin_loss
from train.proved_decay import shortfall
from train.recipe import Recipe

GOAL = 1.0  # the rate at which a V whose own is proved is shaped to fall


@dataclass(frozen=True)
class Loss:
    """The total to minimise and its parts, all scalars; ``violations`` is the sampled rate at which raw decay fails.

    ``jacobian`` is the mean of ||df/dz||_F^2 / n, 0 where it is not asked for.
    """

    total: Tensor
    cross_entropy: Tensor
    decay: Tensor
    violations: Tensor
    jacobian: Tensor


def training_loss(
    model: StabilisedDEQ,
    prediction: Prediction,
    labels: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
) -> Loss:
    """Return the loss of one batch; the decay term is taken for anchored models alone, whose V has a centre to decay to.

    With ``recipe.margin`` the cross-entropy is ``margin_loss``.
    """
    if recipe.margin.radius > 0:
        cross_entropy = margin_loss(model, prediction.logits, labels, recipe.margin)
    else:
        cross_entropy = functional.cross_entropy(prediction.logits, labels)
    decay, violations = _decay(model, prediction, recipe, generator)
    jacobian = torch.zeros_like(cross_entropy)
    if recipe.jacobian.weight > 0:
        jacobian = jacobian_term(model, prediction, generator)
    total = cross_entropy + recipe.decay.weight * decay + recipe.jacobian.weight * jacobian
    return Loss(total, cross_entropy.detach(), decay.detach(), violations, jacobian.detach())


def _decay(
    model: StabilisedDEQ, prediction: Prediction, recipe: Recipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the decay term and the rate of violations, 0 where the recipe or the kind asks for none."""
    decay, zero = recipe.decay, prediction.logits.new_zeros(())
    if model.config.stability != "anchored" or decay.weight == 0:
        return zero, zero
    if isinstance(model.cell, CertifiedCell):
        assert model.lyapunov is not None
        short, violations = shortfall(model.lyapunov, model.cell)
        return short + decay_term(model, prediction, decay.radii, generator, goal=GOAL)[0], violations
    return decay_term(model, prediction, decay.radii, generator)


def jacobian_term(model: StabilisedDEQ, prediction: Prediction, generator: torch.Generator) -> Tensor:
    """Return an estimate of the mean of ||df/dz||_F^2 / n at the equilibria, with its whole gradient: they move with the weights.

    In training, the cell's batch statistics are fixed to those there, as in ``decay_term``.
    """
    z, h = prediction.solution.z, prediction.h
    cell = model.cell.decoupled(z.detach(), h.detach())
    return squared_jacobian_norm(lambda z: cell(z, h), z, generator=generator).mean() / z.shape[1]


def decay_term(
    model: StabilisedDEQ,
    prediction: Prediction,
    radii: tuple[float, ...],
    generator: torch.Generator,
    *,
    goal: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the mean of relu(V-dot + alpha V) / V for the unprojected field, and the rate of violations.

    With a ``goal`` in the place of alpha the field is a constant, too: V alone is shaped.

    One state per sample and radius. In training, the cell's batch statistics are fixed to those at the equilibria: the
    field then still vanishes there, and the samples are independent, as in evaluation. The equilibria and features are
    constants here, so the term shapes V and the cell, not where the equilibria lie.
    """
    lyapunov = model.lyapunov
    assert lyapunov is not None
    equilibrium, h = prediction.solution.z.detach(), prediction.h.detach()
    cell = model.cell.decoupled(equilibrium, h)
    # The radii are one batch: on a GPU the time of so small a problem is that of its calls.
    directions = torch.stack([drawn(partial(torch.randn, generator=generator), h.shape) for _ in radii]).to(h)
    lengths = h.new_tensor(radii)[:, None, None] * h.shape[1] ** 0.5
    offset = (lengths * directions / directions.norm(dim=2, keepdim=True)).flatten(0, 1)  # (radii B, n)
    equilibria, injected = (rows.repeat(len(radii), 1) for rows in (equilibrium, h))
    z = equilibria + offset
    with torch.set_grad_enabled(goal is None):
        velocity = cell(z, injected) - z
    value, gradient = lyapunov(offset)
    excess = claims.decay(gradient, velocity, value, lyapunov.alpha if goal is None else goal).excess
    return (excess.clamp(min=0) / value).mean(), (excess.detach() > 0).float().mean()
