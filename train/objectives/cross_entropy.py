"""Plain training: the cross-entropy on the images as they are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stabdeq.model import StabilisedDEQ
from train.objectives.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """The cross-entropy on clean images; no settings."""

    def __call__(
        self, model: StabilisedDEQ, images: Tensor, labels: Tensor, *, generator: torch.Generator, fraction: float
    ) -> Outcome:
        """Run the model once."""
        return Outcome(model.predict(images), images.new_zeros(()))
