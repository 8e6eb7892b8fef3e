"""What an objective makes of a batch, and what the trainer asks of one."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stabdeq.model import Prediction, StabilisedDEQ


@dataclass(frozen=True)
class Outcome:
    """One batch's forward passes.

    The cross-entropy of ``prediction`` is minimised, with ``term``, a scalar, added to it. ``beside`` holds the other forward
    passes that the backward pass goes through. ``metrics`` are scalars, for the record; ``crafting_blind`` among them is the
    rate of samples whose gradient, while they were crafted, was zero or not finite at some step.
    """

    prediction: "Prediction"
    term: "Tensor"
    beside: "tuple[Prediction, ...]" = ()
    metrics: "dict[str, Tensor]" = field(default_factory=dict)


class Objective(Protocol):
    """What is asked of a model on a batch; the settings are the fields."""

    def __call__(
        self,
        model: "StabilisedDEQ",
        images: "Tensor",
        labels: "Tensor",
        *,
        generator: "torch.Generator",
        fraction: float,
    ) -> Outcome:
        """Run ``model``, in training mode, on ``images`` (B, C, H, W) in [0, 1] with ``labels`` (B,).

        Only ``generator`` is random; ``fraction`` of the training, from 0 to 1, is behind. The running statistics are updated
        once, by ``prediction``; no gradient of a parameter is touched.
        """
        ...
