"""PGD, projected gradient descent (Madry et al. 2018): I-FGSM from random points of the ball."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stabdeq.attacks.ascent import ascend, schedule
from stabdeq.attacks.ball import Ball, build_ball
from stabdeq.attacks.losses import cross_entropy
from stabdeq.attacks.standing import Standing
from stabdeq.attacks.threat_model import Adversarial, Classifier, check_batch, check_counts, judge
from stabdeq.radius import NormName

L2_STEPS = 50  # where no number is given: the paper's rule is for the l-infinity norm


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Steepest ascent from a random point within ``eps`` (pixels of [0, 1]), uniform in the ball, in the norm ``norm``.

    ``steps`` and ``step_size`` None follow ``schedule``: the paper's in l-infinity. Its ``restarts`` is 1. Of several
    restarts each sample keeps its worst: a misclassified one before another, then the larger loss. For a random model, each
    gradient is the mean over ``samples`` evaluations (expectation over randomness, Athalye et al. 2018).
    The last iterate counts, as the paper has it; ``until_broken`` ends each sample's ascent at its first misclassified one.
    Raises ConfigError for settings out of range.
    """

    eps: float
    steps: int | None = None
    step_size: float | None = None
    restarts: int = 1
    samples: int = 1
    norm: NormName = "linf"
    until_broken: bool = False

    def __post_init__(self) -> None:
        build_ball(self.eps, self.norm)
        schedule(self.eps, self.steps, self.step_size, self.norm)
        check_counts(restarts=self.restarts, samples=self.samples)

    def __call__(self, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        """Attack ``images`` (B, C, H, W) in [0, 1] with true ``labels`` (B,); starts come from ``generator``.

        Raises DataError for images or labels that are not as expected; ConfigError for a model in training
        mode or without gradients.
        """
        check_batch(model, images, labels)
        images = images.detach()
        worst = self._once(model, images, labels, generator)
        if self.restarts == 1:
            return worst
        wrong, loss = judge(model, worst.images, labels)
        for _ in range(self.restarts - 1):
            found = self._once(model, images, labels, generator)
            found_wrong, found_loss = judge(model, found.images, labels)
            worse = (found_wrong & ~wrong) | ((found_wrong == wrong) & (found_loss > loss))
            wrong, loss = wrong | found_wrong, torch.where(worse, found_loss, loss)
            worst = Adversarial(
                torch.where(worse.view(-1, 1, 1, 1), found.images, worst.images),
                worst.nonfinite | found.nonfinite,
                worst.zero | found.zero,
                _either(worst.broken_by, found.broken_by),
            )
        return worst

    def _once(self, model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Adversarial:
        ball = build_ball(self.eps, self.norm)
        start = ball.start(images, generator)
        steps, step_size = schedule(self.eps, self.steps, self.step_size, self.norm)
        if self.until_broken:
            return self._ascend_standing(model, images, labels, start, ball, steps, step_size)
        return ascend(model, images, labels, start, ball=ball, steps=steps, step_size=step_size, samples=self.samples)

    @torch.inference_mode(False)  # tensors made in inference mode could not be part of a gradient
    def _ascend_standing(
        self, model: Classifier, images: Tensor, labels: Tensor, start: Tensor, ball: Ball, steps: int, step_size: float
    ) -> Adversarial:
        standing, attacked = Standing(model, images, labels), ball.project(start, images)
        for _ in range(steps):
            if not len(standing):
                break
            _, gradient, rows = standing.climb(attacked, cross_entropy, evaluations=self.samples)
            images, gradient = images[rows], gradient[rows]
            direction = ball.steepest(torch.where(gradient.isnan(), 0, gradient))
            attacked = ball.project(attacked[rows] + step_size * direction, images)
        return standing.found(attacked)


def _either(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Who was broken by a first or by a second restart."""
    return None if first is None or second is None else torch.maximum(first, second)


def build(*, eps: float, norm: NormName, steps: int | None, restarts: int) -> PGD:
    """Return the attack that the name "pgd" stands for: with the paper's steps, or 50 in l2, where ``steps`` is None."""
    if norm == "l2" and steps is None:
        steps = L2_STEPS
    return PGD(eps=eps, steps=steps, restarts=restarts, norm=norm)
