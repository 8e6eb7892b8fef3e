"""Several attacks one after another, each on the samples that still stand; the worst, sample by sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stabdeq.attacks.threat_model import STANDS, Adversarial, Attack, Classifier, Run, check_batch, judge
from stabdeq.errors import ConfigError


@dataclass(frozen=True)
class Worst:
    """The named ``attacks`` in order; each attacks only what the ones before it could not break.

    ``broken_by`` of the result counts them from 1. Raises ConfigError where there is none or their eps differ.
    """

    attacks: Mapping[str, Attack]

    def __post_init__(self) -> None:
        radii = {name: attack.eps for name, attack in self.attacks.items()}
        if len(set(radii.values())) != 1:
            raise ConfigError(f"the worst over attacks needs one attack or more, all with the same eps, not {radii}")

    @property
    def eps(self) -> float:
        """The radius of the ball, in pixels of [0, 1]."""
        return next(iter(self.attacks.values())).eps

    def __call__(self, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        """Attack ``images`` (B, C, H, W) in [0, 1] with true ``labels`` (B,).

        Raises DataError for images or labels that are not as expected; ConfigError for a model in training mode.
        """
        return attack_standing(list(self.attacks.values()), model, images, labels, generator=generator)


@torch.inference_mode(False)  # tensors made in inference mode could not be part of a gradient
@torch.no_grad()
def attack_standing(
    runs: Sequence[Run], model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator
) -> Adversarial:
    """Run all ``runs`` in order, each on the images (B, C, H, W) that ``model`` still classifies as ``labels`` (B,).

    The first is the clean image. A sample keeps the image that broke it, or else the one of largest cross-entropy.
    Each run draws from a generator of its own, so that further runs leave the earlier ones as they were.

    Raises DataError for images or labels that are not as expected; ConfigError for a model in training mode.
    """
    check_batch(model, images, labels)
    images = images.detach()
    worst = images.clone()
    wrong, loss = judge(model, images, labels)
    broken_by = torch.where(wrong, 0, STANDS)
    nonfinite, zero = torch.zeros_like(wrong), torch.zeros_like(wrong)
    for index, run in enumerate(runs, start=1):
        draws = _fresh(generator)
        standing = (~wrong).nonzero().squeeze(1)
        if not len(standing):
            break
        found = run(model, images[standing], labels[standing], generator=draws)
        found_wrong, found_loss = judge(model, found.images, labels[standing])
        if found.broken_by is not None:
            found_wrong |= found.broken_by != STANDS  # a random model may be right the second time
        worse = found_wrong | (found_loss > loss[standing])
        worst[standing[worse]] = found.images[worse]
        loss[standing[worse]] = found_loss[worse]
        wrong[standing] = found_wrong
        broken_by[standing[found_wrong]] = index
        nonfinite[standing] |= found.nonfinite
        zero[standing] |= found.zero
    return Adversarial(worst, nonfinite, zero, broken_by)


def _fresh(generator: torch.Generator) -> torch.Generator:
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator(generator.device).manual_seed(seed)
