"""A fault that inflates what attacks seem to do, made on purpose: images clamped to [0, 1] after they were normalised."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stabdeq.attacks.threat_model import Adversarial, Attack, Classifier


@dataclass(frozen=True, kw_only=True)
class ClampNormalised:
    """What ``attack`` finds, clamped to [0, 1] after normalisation by ``mean`` and ``std`` (one for each channel).

    An attack that takes normalised images for pixels does this. It loses every pixel below the mean or more than one ``std``
    above it, at eps = 0 too, and so leaves the ball: what the model then gets wrong says nothing of its robustness.
    """

    attack: Attack
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def eps(self) -> float:
        """The radius of the ball that the attack was given, and that its images leave."""
        return self.attack.eps

    def __call__(self, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        """Attack ``images`` (B, C, H, W) in [0, 1] with true ``labels`` (B,), then clamp what was found."""
        found = self.attack(model, images, labels, generator=generator)
        mean, std = (found.images.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        clamped = ((found.images - mean) / std).clamp(0, 1) * std + mean
        return replace(found, images=clamped, broken_by=None)  # who broke the image before says nothing of this one
