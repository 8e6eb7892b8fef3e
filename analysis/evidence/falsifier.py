"""The falsifier: hunts for a violation of a claim by gradient ascent from many starts."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.evidence.sampling import directions
from stabdeq.claims import Violation

# That a random step fails says less of the step's length than that a gradient step does.
GROW, SHRINK, SHRINK_RANDOM = 1.5, 0.4, 0.9


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


def _score_and_gradient(violation: Callable[[Tensor], Violation], states: Tensor) -> tuple[Tensor, Tensor]:
    """Return the relative violation (B,) and its normalised gradient (B, n), 0 where there is none."""
    with torch.enable_grad():
        leaf = states.detach().clone().requires_grad_()
        score = violation(leaf).relative
        gradient = None
        if score.requires_grad:
            (gradient,) = torch.autograd.grad(score.sum(), leaf, allow_unused=True)
    if gradient is None:
        return score.detach(), torch.zeros_like(states)
    gradient = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    # By the largest entry first: the square of a tiny gradient underflows.
    gradient = gradient / _or_one(gradient.abs().amax(1, keepdim=True))
    return score.detach(), gradient / _or_one(gradient.norm(dim=1, keepdim=True))


def _or_one(length: Tensor) -> Tensor:
    return torch.where(length == 0, 1, length)


def _first_not_finite(states: Tensor, score: Tensor) -> Tensor | None:
    bad = (~score.isfinite()).nonzero()
    return states[int(bad[0])] if len(bad) else None
