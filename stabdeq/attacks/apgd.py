"""APGD, PGD that chooses its own step size (Croce and Hein 2020, arXiv 2003.01690), on three losses."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from stabdeq.attacks.ball import Ball, build_ball
from stabdeq.attacks.losses import Loss, cross_entropy, dlr, logit_difference, other_class, targeted_dlr
from stabdeq.attacks.standing import Rows, Standing
from stabdeq.attacks.threat_model import Adversarial, Classifier, Run, check_batch, check_counts
from stabdeq.attacks.worst import attack_standing
from stabdeq.errors import ConfigError, closest
from stabdeq.radius import NormName

LossName = Literal["ce", "dlr", "targeted"]
LOSSES: dict[str, Loss] = {"ce": cross_entropy, "dlr": dlr}
STEPS = 100
MOMENTUM = 0.75  # the share of the new step; the rest repeats the last one
RISES = 0.75  # share of the steps up to a checkpoint that must have raised the loss


class _Point(NamedTuple):
    """Where the ascent is, or was at its best."""

    images: Tensor  # (K, C, H, W)
    value: Tensor  # (K,), of the loss
    gradient: Tensor  # (K, C, H, W)


class _Ascent(NamedTuple):
    """Where the samples that stand are on their way, a row for each."""

    images: Tensor  # (K, C, H, W), the clean ones
    targets: tuple[Tensor, ...]  # (K,) each, what the loss reads beside logits and labels
    point: _Point
    previous: Tensor  # (K, C, H, W), the point before
    best: _Point
    size: Tensor  # (K,), of the next step
    rises: Tensor  # (K,), steps that raised the loss since the last checkpoint
    halved: Tensor  # (K,) bool, at the last checkpoint
    value_at_checkpoint: Tensor  # (K,), of the best point

    @classmethod
    def start(cls, images: Tensor, targets: tuple[Tensor, ...], point: _Point, size: float) -> "_Ascent":
        return cls(
            images=images,
            targets=targets,
            point=point,
            previous=point.images,
            best=point,
            size=torch.full_like(point.value, size),
            rises=torch.zeros_like(point.value, dtype=torch.int64),
            halved=torch.zeros_like(point.value, dtype=torch.bool),
            value_at_checkpoint=point.value,
        )

    def move(self, ball: Ball, *, share: float) -> Tensor:
        """Return the next images: ``share`` of a step, and the rest of the last one repeated."""
        here = self.point.images
        direction = ball.steepest(torch.where(self.point.gradient.isnan(), 0, self.point.gradient))
        moved = ball.project(here + _wide(self.size) * direction, self.images)
        moved = here + share * (moved - here) + (1 - share) * (here - self.previous)
        return ball.project(moved, self.images)

    def reach(self, point: _Point) -> "_Ascent":
        return self._replace(
            point=point,
            previous=self.point.images,
            best=_choose(point.value > self.best.value, point, self.best),
            rises=self.rises + (point.value > self.point.value),
        )

    def look_back(self, steps: int) -> "_Ascent":
        """After ``steps`` since the last checkpoint, halve the step where it no longer helps, and go on from the best point."""
        stalled = ~self.halved & (self.best.value == self.value_at_checkpoint)
        halved = (self.rises < RISES * steps) | stalled
        return self._replace(
            point=_choose(halved, self.best, self.point),
            previous=torch.where(_wide(halved), self.best.images, self.previous),
            size=torch.where(halved, self.size / 2, self.size),
            rises=torch.zeros_like(self.rises),
            halved=halved,
            value_at_checkpoint=self.best.value,
        )


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
        return self._run(loss, model, images, labels, targets, generator=generator)

    def _run(
        self,
        loss: Callable[..., Tensor],
        model: Classifier,
        images: Tensor,
        labels: Tensor,
        *targets: Tensor,
        generator: torch.Generator,
    ) -> Adversarial:
        """One run of Algorithm 1; it returns each sample's first misclassified point, or else the one of largest loss.

        ``loss`` takes logits, labels, and the ``targets`` (B,) where there are any.
        """
        ball, standing = build_ball(self.eps, self.norm), Standing(model, images, labels)
        start = ball.project(ball.start(images, generator), images)
        value, gradient, rows = standing.climb(start, _towards(loss, targets))
        ascent = _select(_Ascent.start(images, targets, _Point(start, value, gradient), 2 * self.eps), rows)
        checkpoints = [0, *step_checkpoints(self.steps)]
        for step in range(1, self.steps + 1):
            if not len(standing):
                break
            moved = ascent.move(ball, share=1 if step == 1 else MOMENTUM)
            value, gradient, rows = standing.climb(moved, _towards(loss, ascent.targets))
            ascent = ascent.reach(_Point(moved, value, gradient))
            if step in checkpoints:
                ascent = ascent.look_back(step - checkpoints[checkpoints.index(step) - 1])
            ascent = _select(ascent, rows)
        return standing.found(ascent.best.images)


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


def _towards(loss: Callable[..., Tensor], targets: tuple[Tensor, ...]) -> Loss:
    return lambda logits, labels: loss(logits, labels, *targets)


def _select(values: Any, rows: Rows) -> Any:
    """The ``rows`` of a tensor, or of all tensors in a tuple."""
    if isinstance(values, Tensor):
        return values[rows]
    selected = [_select(value, rows) for value in values]
    return type(values)(*selected) if hasattr(values, "_fields") else tuple(selected)


def _choose(which: Tensor, these: _Point, others: _Point) -> _Point:
    """The samples of ``these`` where ``which`` (B,), else those of ``others``."""
    return _Point(
        torch.where(_wide(which), these.images, others.images),
        torch.where(which, these.value, others.value),
        torch.where(_wide(which), these.gradient, others.gradient),
    )


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
