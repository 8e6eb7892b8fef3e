"""IBP, training for what interval bounds prove (Gowal et al. 2018, arXiv 1810.12715)."""

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from stabdeq.config import STRICT, NonNegative, UpToOne
from stabdeq.radius import check_eps
from train.objectives.outcome import Outcome

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stabdeq.model import StabilisedDEQ


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IntervalTraining:
    """k CE(clean) + (1 - k) CE(worst), where "worst" are the logits that bounds allow within ``eps``, l-infinity.

    Over the first half of training k falls from 1 to ``kappa`` and the radius grows from 0 to ``eps``, both linearly: bounds
    are useless at first. The models that have such bounds have no BatchNorm. Raises ConfigError for settings out of range.
    """

    name: Literal["ibp"] = "ibp"
    eps: NonNegative = 0.031
    kappa: UpToOne = 0.5

    def __post_init__(self) -> None:
        check_eps(self.eps)

    def __call__(
        self,
        model: "StabilisedDEQ",
        images: "Tensor",
        labels: "Tensor",
        *,
        generator: "torch.Generator",
        fraction: float,
    ) -> Outcome:
        """Run the model once, and its bounds once. Raises ConfigError for a model that has none."""
        from torch.nn import functional

        from stabdeq.bounds import worst_logits

        ramp = min(1.0, 2 * fraction)
        prediction = model.predict(images)
        worst = worst_logits(model, images, labels, ramp * self.eps)
        worst_loss = functional.cross_entropy(worst, labels)
        # Added to the clean cross-entropy, whose weight it so brings down to k.
        term = ramp * (1 - self.kappa) * (worst_loss - functional.cross_entropy(prediction.logits, labels))
        metrics = {
            "worst_cross_entropy": worst_loss.detach(),
            "bounded_accuracy": (worst.argmax(1) == labels).float().mean(),
            "eps": worst_loss.new_tensor(ramp * self.eps),
        }
        return Outcome(prediction, term, metrics=metrics)
