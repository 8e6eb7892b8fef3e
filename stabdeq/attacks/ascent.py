"""Steepest ascent of the cross-entropy within a ball: the steps of I-FGSM and PGD, how many and how long."""

import math

import torch
from torch import Tensor

from stabdeq.attacks.ball import Ball
from stabdeq.attacks.losses import Loss, cross_entropy
from stabdeq.attacks.threat_model import Adversarial, Classifier, check_logits
from stabdeq.errors import ConfigError
from stabdeq.radius import NormName, check_eps

STEP_SIZE = 1 / 255  # Chu et al., Sec. 5.2.2


def paper_steps(eps: float) -> int:
    """Return the paper's number of steps, floor(min(255 eps + 4, 1.25 * 255 eps)).

    Source: Kurakin et al. 2017; Chu et al., arXiv 2304.12707, Sec. 5.2.2.

    >>> [paper_steps(level / 255) for level in (0, 2, 4, 6, 8, 20)]
    [0, 2, 5, 7, 10, 24]
    """
    levels = 255 * eps
    margin = 1e-9  # for an eps that was itself rounded
    return math.floor(min(levels + 4, 1.25 * levels) + margin)


def usual_step_size(eps: float, steps: int) -> float:
    """Return 2.5 ``eps`` / ``steps``, by which steps reach the boundary from any start and still turn there (Madry et al. 2018).

    At ``eps`` = 0, where no step leads anywhere, it is the paper's 1/255: a step size is positive.
    """
    return 2.5 * eps / steps or STEP_SIZE


def schedule(eps: float, steps: int | None, step_size: float | None, norm: NormName) -> tuple[int, float]:
    """Return how many steps to take and how long each is; where one is None, the paper's choice or, in l2, the usual one.

    The paper, in the l-infinity norm, takes ``paper_steps`` of 1/255. In l2 they are of ``usual_step_size``. Raises ConfigError
    where a setting is out of range.
    """
    check_eps(eps, norm)
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ConfigError(f"steps = {steps!r}: expected a whole number from 1 up, or None for the paper's rule")
    if step_size is not None and not (math.isfinite(step_size) and step_size > 0):
        raise ConfigError(f"step size {step_size!r}: expected a positive number of pixels of [0, 1], such as 1/255")
    if norm == "l2":
        if steps is None:
            raise ConfigError("the paper's rule for the number of steps is for the l-infinity norm: in l2 say how many")
        return steps, usual_step_size(eps, steps) if step_size is None else step_size
    if steps is None and eps > 0 and paper_steps(eps) == 0:
        raise ConfigError(f"the paper's rule takes no step at all at eps = {eps:g}, below 0.8/255: say how many steps")
    return paper_steps(eps) if steps is None else steps, STEP_SIZE if step_size is None else step_size


def ascend(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    *,
    ball: Ball,
    steps: int,
    step_size: float,
    samples: int = 1,
    loss: Loss = cross_entropy,
) -> Adversarial:
    """Take steepest steps from ``start`` (B, C, H, W) up the ``loss`` for ``labels`` (B,).

    After every step the images are projected to the ``ball`` around ``images`` and to [0, 1].
    Each gradient is the mean over ``samples`` evaluations of the model. The last images count, as the paper has it.
    """
    attacked = ball.project(start, images)
    nonfinite = torch.zeros_like(labels, dtype=torch.bool)
    zero = torch.zeros_like(nonfinite)
    for _ in range(steps):
        _, _, gradient = loss_gradient(model, attacked, labels, loss, samples=samples)
        not_finite, flat = gradient_faults(gradient)
        nonfinite, zero = nonfinite | not_finite, zero | flat
        direction = ball.steepest(torch.where(gradient.isnan(), 0, gradient))
        attacked = ball.project(attacked + step_size * direction, images)
    return Adversarial(attacked, nonfinite, zero)


def loss_gradient(
    model: Classifier, images: Tensor, labels: Tensor, loss: Loss, *, samples: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logits (B, classes), each sample's loss (B,), and its gradient for the image (B, C, H, W), not divided by B.

    Loss and gradient are means over ``samples`` evaluations of the model, the logits those of the last one. No parameter's
    ``.grad`` is touched. Raises DataError for logits that do not fit the labels, ConfigError for a model without gradients.
    """
    no_gradient = ConfigError(
        "the model's logits do not depend on the images through differentiable operations: "
        "take detach, no_grad and inference_mode out of it"
    )
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.clone().requires_grad_()
        evaluations = [_logits(model, leaf, labels) for _ in range(samples)]
        value = torch.stack([loss(logits, labels) for logits in evaluations]).mean(0)
        if not value.requires_grad:
            raise no_gradient
        (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
    if gradient is None:
        raise no_gradient
    return evaluations[-1].detach(), value.detach(), gradient


def gradient_faults(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return whose ``gradient`` (B, C, H, W) is not finite, and whose is zero in every pixel, both (B,) bool."""
    largest = gradient.flatten(1).abs().amax(1)  # NaN where there is one
    return ~largest.isfinite(), largest == 0


def _logits(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    logits = model(images)
    check_logits(logits, labels)
    return logits
