"""What all attacks share: images in [0, 1], a classifier in evaluation mode, and eps in pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stabdeq.data.labels import check_labels
from stabdeq.errors import ConfigError, DataError
from stabdeq.radius import NormName

Classifier = Callable[[Tensor], Tensor]  # images (B, C, H, W) in [0, 1] -> logits (B, classes)

STANDS = -1  # in ``Adversarial.broken_by``


@dataclass(frozen=True, eq=False)
class Adversarial:
    """Attacked images (B, C, H, W), and whose gradient misled the attack at one step or more.

    ``nonfinite`` (B,) bool: it held NaN or infinity; pixels with NaN stayed where they were at that step.
    ``zero`` (B,) bool: it was zero in every pixel, so that the image did not move at that step.
    ``broken_by`` (B,) int64, of an attack that is several runs: the first that the model got wrong, counted from 1; 0 for
    the clean image, -1 where it got all right. None of an attack that is one run, or that attacks all samples in every one.
    """

    images: Tensor
    nonfinite: Tensor
    zero: Tensor
    broken_by: Tensor | None = None


class Run(Protocol):
    """What attacks one batch."""

    def __call__(self, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        """Attack ``images`` (B, C, H, W) in [0, 1] with ``labels`` (B,); only ``generator`` is random."""
        ...


class Attack(Run, Protocol):
    """An attack with its settings."""

    @property
    def eps(self) -> float:
        """The radius of the ball, in pixels of [0, 1]."""
        ...


class BuildAttack(Protocol):
    """What an attack's name stands for: how it is made of the settings that all attacks share."""

    def __call__(self, *, eps: float, norm: NormName, steps: int | None, restarts: int) -> Attack:
        """Return the attack of radius ``eps`` in ``norm``, with its own number of steps where ``steps`` is None.

        Raises ConfigError where a setting is out of range, or means nothing to this attack.
        """
        ...


def refuse_restarts(name: str, restarts: int) -> None:
    """Raise ConfigError unless ``restarts`` is 1, for an attack ``name`` that starts nowhere at random."""
    if restarts != 1:
        raise ConfigError(
            f"restarts = {restarts}: {name} has none, only pgd and the other attacks that start at random: use one of these"
        )


def check_counts(**counts: int) -> None:
    """Raise ConfigError unless all of ``counts`` are whole numbers from 1 up."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(f"{name} = {count!r}: expected a whole number from 1 up")


def check_batch(model: Classifier, images: Tensor, labels: Tensor) -> None:
    """Refuse what would make an attack measure something else than robustness.

    Raises DataError where the images are not floats (B, C, H, W) in [0, 1] with one int64 label each;
    ConfigError where a module of the model is in training mode.
    """
    _check_evaluation_mode(model)
    if images.dim() != 4 or not images.is_floating_point() or not len(images):
        raise DataError(
            f"images of shape {tuple(images.shape)}, {images.dtype}: "
            "expected floats (B, C, H, W) in [0, 1], B >= 1; divide uint8 images by 255"
        )
    outside = int((~((images >= 0) & (images <= 1))).sum())  # NaN counts: it fails both comparisons
    if outside:
        raise DataError(
            f"{outside} of {images.numel()} pixels are NaN or outside [0, 1] "
            f"(from {images.min():g} to {images.max():g}): "
            "attack images before normalisation, and normalise inside the model"
        )
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise DataError(
            f"labels of shape {tuple(labels.shape)}, {labels.dtype}: "
            f"expected int64 ({len(images)},), the class of each image: an attack turns classes, and of tokens and numbers knows none"
        )


def _check_evaluation_mode(model: Classifier) -> None:
    if not isinstance(model, nn.Module):
        return
    for name, module in model.named_modules():
        if module.training:
            part = f"its module {name!r}" if name else "the model"
            raise ConfigError(
                f"{part} is in training mode, where a prediction depends on its batch or on chance: "
                "call model.eval() first"
            )


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raise DataError unless ``logits`` are (B, classes) with classes for all ``labels`` (B,)."""
    if logits.dim() != 2 or len(logits) != len(labels):
        raise DataError(
            f"the model returned {tuple(logits.shape)} for {len(labels)} images: expected logits (B, classes)"
        )
    check_labels(labels, logits.shape[1])


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return which ``logits`` (B, classes) are largest at ``labels`` (B,), (B,) bool; with a NaN, none is."""
    return (logits.argmax(1) == labels) & ~logits.isnan().any(1)


@torch.no_grad()
def judge(model: Classifier, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return which images are misclassified, (B,) bool, and all cross-entropies, (B,): infinite where they are NaN."""
    logits = model(images)
    check_logits(logits, labels)
    loss = cross_entropy(logits, labels, reduction="none")
    return ~is_correct(logits, labels), torch.where(loss.isnan(), torch.inf, loss)
