"""What a model gets right, sample by sample, on clean images and under an attack."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stabdeq.attacks.threat_model import STANDS, Attack, Classifier, check_batch, check_logits, is_correct
from stabdeq.data import Split, batches, to_unit
from stabdeq.data.labels import check_labels
from stabdeq.errors import ConfigError, DataError
from stabdeq.shard import WHOLE, Shard

Progress = Callable[[int, int], None]  # (samples done, of these right under attack)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Per-sample outcomes, each (N,) bool on the CPU, in the order of the samples.

    ``robust_correct`` is the prediction on the attacked image alone, as the paper counts it, and of an attack that is several
    runs asks that none of them found the model wrong, which ``broken_by`` (N,) int64 or None tells (see ``Adversarial``);
    ``worst_correct`` asks for the clean image too, which is a point of the ball like any other.
    ``nonfinite`` and ``zero`` say whose gradients misled the attack (see ``Adversarial``).
    ``clean_converged`` and ``robust_converged`` say whose equilibrium was found, and are None where the model
    has no ``predict`` that returns a ``solution``.
    """

    clean_correct: Tensor
    robust_correct: Tensor
    nonfinite: Tensor
    zero: Tensor
    clean_converged: Tensor | None
    robust_converged: Tensor | None
    broken_by: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence["Outcome"]) -> "Outcome":
        """Return the outcomes of all samples of ``parts`` in order, of none where there are none.

        Raises ConfigError where what may be None is so in some of the parts alone.
        """
        if not parts:
            none = torch.zeros(0, dtype=torch.bool)
            return cls(none, none, none, none, None, None)
        return cls(
            torch.cat([part.clean_correct for part in parts]),
            torch.cat([part.robust_correct for part in parts]),
            torch.cat([part.nonfinite for part in parts]),
            torch.cat([part.zero for part in parts]),
            _join([part.clean_converged for part in parts]),
            _join([part.robust_converged for part in parts]),
            _join([part.broken_by for part in parts]),
        )

    @property
    def worst_correct(self) -> Tensor:
        """(N,) bool: right on the clean and on the attacked image."""
        return self.clean_correct & self.robust_correct

    @property
    def clean_unconverged(self) -> float | None:
        """The fraction of clean images whose equilibrium was not found, or None."""
        return None if self.clean_converged is None else fraction(~self.clean_converged)

    @property
    def robust_unconverged(self) -> float | None:
        """The fraction of attacked images whose equilibrium was not found, or None."""
        return None if self.robust_converged is None else fraction(~self.robust_converged)


def fraction(flags: Tensor) -> float:
    """Return the fraction of true values in ``flags`` (N,) bool."""
    return int(flags.sum()) / len(flags)


def evaluate(
    attack: Attack,
    model: Classifier,
    split: Split,
    *,
    seed: int,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    shard: Shard = WHOLE,
    progress: Progress | None = None,
) -> Outcome:
    """Attack every sample of ``split`` and return what ``model``, which is on ``device``, gets right.

    The images are uint8, or floats in [0, 1].
    Each batch has its own random numbers, drawn from ``seed``: more restarts keep the starts of fewer, and
    the starts depend on ``batch_size``. A ``shard`` attacks but its own of the batches, each as all would.
    ``progress`` is called after every batch.

    Raises DataError where the split is empty or does not fit the model, or where the model returns nothing
    but NaN; ConfigError for a model in training mode or a batch size below 1.
    """
    if len(split) == 0:
        raise DataError("there are no samples to attack: give at least one")
    if split.images.is_floating_point():
        check_batch(model, split.images, split.labels)  # all of them, before the first is attacked
    seeds = torch.Generator().manual_seed(seed)
    seeded = [(batch, int(torch.randint(2**62, (), generator=seeds))) for batch in batches(split, batch_size)]
    parts: list[Outcome] = []
    done = right = 0
    for (pixels, labels), own_seed in shard.of(seeded):
        images, labels = pixels.to(device), labels.to(device)
        images = images if images.is_floating_point() else to_unit(images)
        generator = torch.Generator().manual_seed(own_seed)
        parts.append(_evaluate_batch(attack, model, images, labels, generator, every_label=split.labels))
        done += len(labels)
        right += int(parts[-1].robust_correct.sum())
        if progress is not None:
            progress(done, right)
    return Outcome.joined(parts)


def _evaluate_batch(
    attack: Attack,
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    *,
    every_label: Tensor,
) -> Outcome:
    check_batch(model, images, labels)
    clean_logits, clean_converged = _predict(model, images)
    check_logits(clean_logits, labels)
    check_labels(every_label, clean_logits.shape[1])  # those of later batches too, before anything is attacked
    if bool(clean_logits.isnan().all()):
        raise DataError("the model returns nothing but NaN on clean images: look at its weights and normalisation")
    adversarial = attack(model, images, labels, generator=generator)
    robust_logits, robust_converged = _predict(model, adversarial.images)
    robust_correct = is_correct(robust_logits, labels)
    if adversarial.broken_by is not None:
        # A random model may be right the second time, and rounding may turn a tie in a batch of another size.
        robust_correct &= adversarial.broken_by == STANDS
    return Outcome(
        is_correct(clean_logits, labels).cpu(),
        robust_correct.cpu(),
        adversarial.nonfinite.cpu(),
        adversarial.zero.cpu(),
        clean_converged,
        robust_converged,
        None if adversarial.broken_by is None else adversarial.broken_by.cpu(),
    )


@torch.no_grad()
def _predict(model: Classifier, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits (B, classes), and which equilibria converged, (B,) bool on the CPU, where the model tells."""
    predict = getattr(model, "predict", None)
    prediction = None if predict is None else predict(images)
    solution = getattr(prediction, "solution", None)
    if prediction is None or solution is None:
        return model(images), None
    logits = prediction.logits if hasattr(prediction, "logits") else model(images)
    return logits, solution.converged.cpu()


def _join(parts: list[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    if known and len(known) < len(parts):
        raise ConfigError(
            "the model returned a solution, or the attack told its runs, for some batches and not for others: do so always"
        )
    return torch.cat(known) if known else None
