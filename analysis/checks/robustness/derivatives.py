"""Are the gradients right? The model's own against difference quotients of its accurate equilibrium, in float64."""

import torch
from torch import Tensor

from analysis.checks.robustness.indicator import Indicator
from analysis.checks.robustness.statistics import Paired
from analysis.checks.robustness.target import Target
from analysis.findings import Finding
from analysis.measure.subject import TOLERANCE
from stabdeq.attacks.ascent import loss_gradient
from stabdeq.attacks.losses import margin
from stabdeq.solvers import relative_residual

IMAGES = 32
DIRECTIONS = 8
# The length of a step, for all pixels together: it balances rounding, TOLERANCE / step, with curvature, step^2.
STEP = TOLERANCE ** (1 / 3)

DERIVATIVES = Indicator(
    name="derivatives",
    claim="The model's gradient is the slope that difference quotients measure, but for a few points.",
    meaning="The attack climbs another function than the one that is judged: its gradient is detached, truncated, straight-through or "
    "solved too loosely.",
    remedy="look for detach, no_grad, rounding and custom backward passes; tighten the backward solver; set the solver's gradient "
    "to implicit.",
)


def judge(target: Target) -> Finding:
    """Compare slopes in random directions, at points inside [0, 1] near the first images.

    Where a kink lies near the point the two one-sided quotients differ, and any slope as near as they are to one another is
    accepted. A slope g'd in random unit directions d of R^n has the mean square |g|^2 / n, so that of the disagreements
    estimates the gradient's error. That may cost half of the digits that the solver delivers; a single point may do worse,
    where a kink lies between the solver's equilibrium and the accurate one.
    """
    points = _points(target)
    labels = target.labels[: len(points)]
    _, _, gradient = loss_gradient(target, points, labels, margin)
    directions = torch.randn(DIRECTIONS, *points.shape, generator=target.generator(30), dtype=points.dtype)
    directions /= directions.flatten(2).norm(dim=2).view(DIRECTIONS, -1, 1, 1, 1)
    slopes = (directions * gradient).flatten(2).sum(2)  # (DIRECTIONS, B)
    excess, found = _excess(target, points, labels, directions, slopes)
    residual, converged = _residual(target, points)
    judged = (found & converged).nonzero().squeeze(1)
    if not len(judged):
        reason = (
            "No point has an equilibrium, accurate and by the model's own solver, and finite difference quotients: see the "
            "checks equilibrium and convergence."
        )
        return DERIVATIVES.open(reason, samples=len(points), seed=target.subject.seed)

    size, missed = gradient[judged].flatten(1).norm(dim=1), excess[:, judged]
    error = missed.square().mean(0).mul(points[0].numel()).sqrt()
    error = torch.where(error == 0, 0, error / size)
    allowed = max(torch.finfo(points.dtype).eps / 2, float(residual[judged].max())) ** 0.5
    count, worst = int((error > allowed).sum()), int(error.argmax())
    return DERIVATIVES.compared(
        Paired(count, 0),
        f"At {count} of {len(judged)} points the gradient differs from the slopes in {DIRECTIONS} directions, beyond what kinks "
        f"explain, by more than {allowed:.2g} of its length: half of the digits that the solver delivers. The median difference is "
        f"{float(error.median()):.2g}, the largest {float(error.max()):.2g}.",
        samples=len(judged),
        seed=target.subject.seed,
        witness={
            "image": int(target.subject.indices[judged[worst]]),
            "point": points[judged[worst]].flatten().tolist(),
            "gradient_norm": float(size[worst]),
            "slopes": slopes[:, judged[worst]].tolist(),
            "beyond_kinks": missed[:, worst].tolist(),
        },
    )


def _points(target: Target) -> Tensor:
    """The first images, drawn into [0.05, 0.95] and shaken: at exactly 0 and 1 models may have a kink on purpose."""
    images = target.images[:IMAGES]
    noise = torch.rand(images.shape, generator=target.generator(31), dtype=images.dtype)
    return 0.05 + 0.8 * images + 0.1 * noise


@torch.no_grad()
def _excess(
    target: Target, points: Tensor, labels: Tensor, directions: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor]:
    """By how much ``slopes`` (D, B) disagree with what is measured, beyond kinks and rounding; which points can tell, (B,)."""
    here, scale, found = _margin(target, points, labels)
    many = labels.repeat(DIRECTIONS)
    ahead, _, found_ahead = _margin(target, (points + STEP * directions).flatten(0, 1), many)
    behind, _, found_behind = _margin(target, (points - STEP * directions).flatten(0, 1), many)
    forward, backward = (ahead.view_as(slopes) - here) / STEP, (here - behind.view_as(slopes)) / STEP
    noise = TOLERANCE * scale / STEP
    excess = (slopes - (forward + backward) / 2).abs() - (forward - backward).abs() - noise
    all_found = found & found_ahead.view_as(slopes).all(0) & found_behind.view_as(slopes).all(0)
    return excess.clamp(min=0), all_found & excess.isfinite().all(0)


def _margin(target: Target, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The margin (B,) at accurate equilibria, the size of the logits it is a difference of, and which were found."""
    logits, found = target.accurate(x)
    return margin(logits, labels), 1 + logits.abs().amax(1), found


@torch.no_grad()
def _residual(target: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    """The residuals (B,) of the model's own equilibria, measured anew, and which it says have converged, (B,) bool."""
    model = target.subject.model
    h = model.inject(x)
    solution = model.solve(h)
    z = solution.z
    return relative_residual(z.flatten(1), model.cell(z, h).flatten(1)), solution.converged
