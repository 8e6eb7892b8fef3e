"""Plain training: the cross-entropy on the images as they are."""

from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from stabdeq.config import STRICT
from stabdeq.model import StabilisedDEQ
from train.objectives.outcome import Outcome


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CrossEntropy:
    """The cross-entropy on clean images; no settings."""

    name: Literal["cross-entropy"] = "cross-entropy"

    def __call__(
        self, model: StabilisedDEQ, images: Tensor, labels: Tensor, *, generator: torch.Generator, fraction: float
    ) -> Outcome:
        """Run the model once."""
        return Outcome(model.predict(images), images.new_zeros(()))
