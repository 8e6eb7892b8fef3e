"""APGD, PGD that chooses its own step size (Croce and Hein 2020, arXiv 2003.01690), on three losses."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from stabdeq.attacks.ascent import gradient_faults, loss_gradient
from stabdeq.attacks.ball import NormName, build_ball
from stabdeq.attacks.losses import Loss, cross_entropy, dlr, logit_difference, other_class, targeted_dlr
from stabdeq.attacks.threat_model import Adversarial, Classifier, Run, check_batch, check_counts, is_correct
from stabdeq.attacks.worst import attack_standing
from stabdeq.errors import ConfigError, closest

LossName = Literal["ce", "dlr", "targeted"]
LOSSES: dict[str, Loss] = {"ce": cross_entropy, "dlr": dlr}
STEPS = 100
MOMENTUM = 0.75  # the share of the new step; the rest repeats the last one
RISES = 0.75  # share of the steps up to a checkpoint that must have raised the loss


class _Point(NamedTuple):
    """Where the ascent is, or was at its best."""

    images: Tensor  # (B, C, H, W)
    value: Tensor  # (B,), of the loss
    gradient: Tensor  # (B, C, H, W)


@dataclass(frozen=True, kw_only=True)
class APGD:
    """Ascent with momentum within ``eps`` (pixels of [0, 1]), whose step is halved wherever it no longer helps.

    ``loss`` is the cross-entropy "ce", "dlr", or "targeted": DLR towards each of the ``targets`` most likely other classes in
    turn (APGD-T); of a model with 2 or 3 classes, for which that ratio is not defined, the difference of the two logits alone.
    Every run starts at a random point, and attacks only the samples that no earlier run broke.
    Raises ConfigError for settings out of range.
    """

    eps: float
    steps: int = STEPS
    restarts: int = 1
    norm: NormName = "linf"
    loss: LossName = "ce"
    targets: int = 9

    def __post_init__(self) -> None:
        build_ball(self.eps, self.norm)
        check_counts(steps=self.steps, restarts=self.restarts, targets=self.targets)
        names = (*LOSSES, "targeted")
        if self.loss not in names:
            raise ConfigError(f"unknown loss {self.loss!r}: {closest(self.loss, names)}")

    def __call__(self, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        """Attack ``images`` (B, C, H, W) in [0, 1] with true ``labels`` (B,); starts come from ``generator``.

        Raises DataError for images or labels that are not as expected; ConfigError for a model in training mode, without
        gradients, or with too few classes for the loss.
        """
        check_batch(model, images, labels)
        if self.loss == "targeted":
            with torch.no_grad():
                classes = model(images[:1].detach()).shape[1]
            if classes < 2:
                raise ConfigError(
                    f"the model has {classes} class, so there is no other to attack towards: expected 2 or more"
                )
            runs: list[Run] = [partial(self._towards, rank) for rank in range(1, min(self.targets, classes - 1) + 1)]
        else:
            runs = [partial(self._run, LOSSES[self.loss])]
        return attack_standing(runs * self.restarts, model, images, labels, generator=generator)

    def _towards(
        self, rank: int, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator
    ) -> Adversarial:
        with torch.no_grad():
            logits = model(images)
            targets = other_class(logits, labels, rank)
        loss = targeted_dlr if logits.shape[1] >= 4 else logit_difference
        return self._run(partial(loss, targets=targets), model, images, labels, generator=generator)

    def _run(
        self, loss: Loss, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator
    ) -> Adversarial:
        """One run of Algorithm 1; it returns each sample's first misclassified point, or else the one of largest loss."""
        ball = build_ball(self.eps, self.norm)
        start = ball.project(ball.start(images, generator), images)
        point, wrong = _evaluate(model, start, labels, loss)
        best, previous = point, start
        broken, broken_images = wrong, start
        nonfinite, zero = gradient_faults(point.gradient)

        size = torch.full_like(point.value, 2 * self.eps)
        checkpoints = [0, *step_checkpoints(self.steps)]
        rises, halved, value_at_checkpoint = torch.zeros_like(labels), torch.zeros_like(wrong), best.value
        for step in range(1, self.steps + 1):
            if bool(broken.all()):
                break
            direction = ball.steepest(torch.where(point.gradient.isnan(), 0, point.gradient))
            moved = ball.project(point.images + _wide(size) * direction, images)
            share = 1 if step == 1 else MOMENTUM
            moved = point.images + share * (moved - point.images) + (1 - share) * (point.images - previous)
            last, previous = point, point.images
            point, wrong = _evaluate(model, ball.project(moved, images), labels, loss)

            broken_images = torch.where(_wide(broken), broken_images, point.images)
            broken = broken | wrong
            not_finite, flat = gradient_faults(point.gradient)
            nonfinite, zero = nonfinite | not_finite, zero | flat
            best = _choose(point.value > best.value, point, best)
            rises += point.value > last.value

            if step in checkpoints:
                since = step - checkpoints[checkpoints.index(step) - 1]
                halved = (rises < RISES * since) | (~halved & (best.value == value_at_checkpoint))
                size = torch.where(halved, size / 2, size)
                point = _choose(halved, best, point)
                previous = torch.where(_wide(halved), best.images, previous)
                value_at_checkpoint = best.value
                rises.zero_()
        return Adversarial(torch.where(_wide(broken), broken_images, best.images), nonfinite, zero)


def build(*, eps: float, norm: NormName, steps: int | None, restarts: int) -> APGD:
    """Return the attack that the name "apgd-ce" stands for, on the cross-entropy."""
    return APGD(eps=eps, norm=norm, steps=STEPS if steps is None else steps, restarts=restarts)


def build_targeted(*, eps: float, norm: NormName, steps: int | None, restarts: int) -> APGD:
    """Return the attack that the name "apgd-t" stands for, on DLR towards other classes."""
    return APGD(eps=eps, norm=norm, steps=STEPS if steps is None else steps, restarts=restarts, loss="targeted")


def step_checkpoints(steps: int) -> list[int]:
    """Return the steps after which APGD looks whether to halve the step size (Croce and Hein 2020, Sec. 3.1).

    >>> step_checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    before, now, found = 0.0, 0.22, []
    while now <= 1:
        found.append(math.ceil(round(now * steps, 6)))
        before, now = now, now + max(now - before - 0.03, 0.06)
    return sorted(set(found))


def _evaluate(model: Classifier, images: Tensor, labels: Tensor, loss: Loss) -> tuple[_Point, Tensor]:
    """The point at ``images``, and which of them are misclassified, (B,) bool."""
    logits, value, gradient = loss_gradient(model, images, labels, loss)
    return _Point(images, value, gradient), ~is_correct(logits, labels)


def _choose(which: Tensor, these: _Point, others: _Point) -> _Point:
    """The samples of ``these`` where ``which`` (B,), else those of ``others``."""
    return _Point(
        torch.where(_wide(which), these.images, others.images),
        torch.where(which, these.value, others.value),
        torch.where(_wide(which), these.gradient, others.gradient),
    )


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
