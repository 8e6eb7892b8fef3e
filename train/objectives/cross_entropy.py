"""Plain training: the cross-entropy on the images as they are."""

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from stabdeq.config import STRICT
from train.objectives.outcome import Outcome

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stabdeq.model import StabilisedDEQ


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CrossEntropy:
    """The cross-entropy on clean images; no settings."""

    name: Literal["cross-entropy"] = "cross-entropy"

    def __call__(
        self,
        model: "StabilisedDEQ",
        images: "Tensor",
        labels: "Tensor",
        *,
        generator: "torch.Generator",
        fraction: float,
    ) -> Outcome:
        """Run the model once."""
        return Outcome(model.predict(images), images.new_zeros(()))
