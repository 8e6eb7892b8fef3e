"""The falsifier: hunts for a violation of a claim by ascent from many starts, smoothed first, and polished at the end."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.evidence.sampling import directions
from analysis.evidence.smoothing import smoothed
from stabdeq.linear_algebra import symmetric_eigenvectors
from stabdeq.lyapunov.claims import Violation

# That a random step fails says less of the step's length than that a gradient step does.
GROW, SHRINK, SHRINK_RANDOM = 1.5, 0.4, 0.9
# From a blur over all that the states reach to nearly the function itself.
WIDTHS = (1.0, 0.3, 0.1, 0.03, 0.01)
WIDE = 0.3
# Parts of the largest curvature that damp a Newton step: from the full step to a short one along the gradient.
DAMPINGS = (0.0, 1e-6, 1e-4, 1e-2, 1.0, 100.0)


@dataclass(frozen=True)
class FalsifierResult:
    """What a hunt found.

    ``state`` (n,) violates most, by ``relative``. ``states`` (B, n) and ``relatives`` (B,) are the best of each start,
    -inf where it was never finite. ``not_finite`` (n,) is a state at which the violation is NaN or infinite, if any was
    met. ``evaluations`` counts evaluated states.
    """

    state: Tensor
    relative: float
    states: Tensor
    relatives: Tensor
    not_finite: Tensor | None
    evaluations: int


def falsify(
    violation: Callable[[Tensor], Violation],
    starts: Tensor,
    project_to_region: Callable[[Tensor], Tensor],
    *,
    first_step: Tensor,
    generator: torch.Generator,
    steps: int = 80,
) -> FalsifierResult:
    """Climb ``violation(states).relative`` from ``starts`` (B, n) and return the best that was seen.

    Each start climbs with a step length of its own, ``first_step`` (B,) at first: along the normalised gradient, and at
    every third step, or where there is no gradient (a plateau, a function without autograd), in a random direction. A
    step that does not rise is taken back and the length cut, so no start ever gets worse.
    """
    states = project_to_region(starts.detach())
    score, gradient = _score_and_gradient(violation, states)
    not_finite = _first_not_finite(states, score)
    length = first_step.clone()
    for step in range(steps):
        random = directions(len(states), states.shape[1], generator)
        is_random = (gradient == 0).all(1) | (step % 3 == 2)
        direction = torch.where(is_random[:, None], random, gradient)
        trial = project_to_region(states + length[:, None] * direction).detach()
        trial_score, trial_gradient = _score_and_gradient(violation, trial)
        if not_finite is None:
            not_finite = _first_not_finite(trial, trial_score)
        trial_score = trial_score.nan_to_num(nan=-torch.inf, posinf=-torch.inf)
        rises = trial_score > score.nan_to_num(nan=-torch.inf, posinf=-torch.inf)
        states = torch.where(rises[:, None], trial, states)
        gradient = torch.where(rises[:, None], trial_gradient, gradient)
        score = torch.where(rises, trial_score, score)
        length = length * torch.where(rises, GROW, torch.where(is_random, SHRINK_RANDOM, SHRINK))
    score = score.nan_to_num(nan=-torch.inf, posinf=-torch.inf)
    best = int(score.argmax())
    return FalsifierResult(
        state=states[best],
        relative=float(score[best]),
        states=states,
        relatives=score,
        not_finite=not_finite,
        evaluations=len(states) * (steps + 1),
    )


def approach(
    violation: Callable[[Tensor], Violation],
    starts: Tensor,
    project_to_region: Callable[[Tensor], Tensor],
    *,
    centre: Tensor,
    first_step: Tensor,
    generator: torch.Generator,
    steps: int = 16,
) -> Tensor:
    """Return where ``starts`` (B, n) arrive that climb the violation smoothed by ever smaller widths.

    What is left when the width has shrunk is near to a needle that the violation itself gives no gradient towards. As long
    as the blur is wide, each start keeps its distance from ``centre`` (n,): what V gains by leading there would outweigh the
    needle. A function that cannot be smoothed leaves the starts where they are.
    """
    distance = (starts - centre).norm(dim=1, keepdim=True)

    def project_to_shell(states: Tensor) -> Tensor:
        offset = states - centre
        return project_to_region(centre + offset * (distance / _or_one(offset.norm(dim=1, keepdim=True))))

    states = starts
    for width in WIDTHS:
        project = project_to_shell if width >= WIDE else project_to_region
        climbed = smoothed(violation, width)
        try:
            states = falsify(climbed, states, project, first_step=first_step, generator=generator, steps=steps).states
        except Exception:
            # The replacements do not fit this function; what it raises by itself is met by its own evaluation.
            return states
    return states


def polish(
    violation: Callable[[Tensor], Violation],
    states: Tensor,
    project_to_region: Callable[[Tensor], Tensor],
    *,
    reach: Tensor,
    steps: int = 8,
) -> Tensor:
    """Return ``states`` (B, n) after damped Newton steps, none longer than ``reach`` (B,); no state gets worse.

    Second derivatives are differences of gradients. Curvature counts by its magnitude, so that a step leads up from a saddle
    as well (Dauphin et al., Identifying and attacking the saddle point problem, 2014).
    """

    def relative(states: Tensor) -> Tensor:
        return violation(states).relative

    dampings = torch.tensor(DAMPINGS, dtype=states.dtype, device=states.device)[:, None, None]
    for _ in range(steps):
        score, gradient = gradients(relative, states)
        curvature, axes = symmetric_eigenvectors(hessians(relative, states, 1e-4 * reach))
        size = curvature.abs()
        slope = (axes.mT @ gradient[:, :, None]).squeeze(2)
        damped = slope / _or_one(size + dampings * size.amax(1, keepdim=True))  # (D, B, n)
        offset = (axes @ damped[..., None]).squeeze(3).nan_to_num(nan=0)  # where second derivatives are not finite
        offset = offset * (reach[:, None] / offset.norm(dim=2, keepdim=True).clamp(min=1e-300)).clamp(max=1)
        trial = project_to_region((states + offset).flatten(0, 1)).detach()
        with torch.no_grad():
            trial_score = relative(trial).nan_to_num(nan=-torch.inf, posinf=-torch.inf)
        trials = torch.cat([states[None], trial.view_as(offset)])
        scores = torch.cat([score[None], trial_score.view(offset.shape[:2])])
        states = trials[scores.argmax(0), torch.arange(len(states), device=states.device)]
    return states


def gradients(function: Callable[[Tensor], Tensor], states: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``function`` (B,) and its gradient (B, n) at ``states``, 0 where there is none."""
    with torch.enable_grad():
        leaf = states.detach().clone().requires_grad_()
        value = function(leaf)
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
    if gradient is None:
        return value.detach(), torch.zeros_like(states)
    return value.detach(), gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def hessians(function: Callable[[Tensor], Tensor], states: Tensor, step: Tensor) -> Tensor:
    """Return the second derivatives (B, n, n) of ``function``, by central differences of its gradient over ``step`` (B,)."""
    moves = step[:, None, None] * torch.eye(states.shape[1], dtype=states.dtype, device=states.device)
    ahead, behind = (
        gradients(function, (states[:, None] + sign * moves).flatten(0, 1))[1].view_as(moves) for sign in (1, -1)
    )
    hessian = (ahead - behind) / (2 * step[:, None, None])
    return (hessian + hessian.mT) / 2


def _score_and_gradient(violation: Callable[[Tensor], Violation], states: Tensor) -> tuple[Tensor, Tensor]:
    """Return the relative violation (B,) and its normalised gradient (B, n), 0 where there is none."""
    score, gradient = gradients(lambda leaf: violation(leaf).relative, states)
    # By the largest entry first: the square of a tiny gradient underflows.
    gradient = gradient / _or_one(gradient.abs().amax(1, keepdim=True))
    return score, gradient / _or_one(gradient.norm(dim=1, keepdim=True))


def _or_one(length: Tensor) -> Tensor:
    return torch.where(length == 0, 1, length)


def _first_not_finite(states: Tensor, score: Tensor) -> Tensor | None:
    bad = (~score.isfinite()).nonzero()
    return states[int(bad[0])] if len(bad) else None
