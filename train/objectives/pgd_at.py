"""PGD-AT, adversarial training by projected gradient descent (Madry et al. 2018, arXiv 1706.06083)."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from stabdeq.config import STRICT, Count, NonNegative, Positive
from stabdeq.radius import NormName, check_eps
from train.objectives.outcome import Outcome
from train.objectives.steps import require_l2_steps

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stabdeq.model import StabilisedDEQ


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PGDTraining:
    """The cross-entropy on images that PGD found from a random point within ``eps``; clean images are not seen.

    The running statistics are those of the crafted images, which are all that the parameters are trained on. Madry et al.
    craft in training mode; we craft in evaluation mode, as Pang et al. (2021, "Bag of tricks for adversarial training")
    advise: the robustness is comparable, the clean accuracy higher, and each sample is attacked alone.
    The defaults are those of Chu et al. (arXiv 2304.12707, Sec. 5.4). Raises ConfigError for settings out of range.
    """

    name: Literal["pgd-at"] = "pgd-at"
    norm: NormName = "linf"
    eps: NonNegative = 0.031
    steps: Count = 7
    step_size: Positive = 0.00784

    @model_validator(mode="before")
    @classmethod
    def _require_l2_steps(cls, values: Any) -> Any:
        return require_l2_steps(values)

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)

    def __call__(
        self,
        model: "StabilisedDEQ",
        images: "Tensor",
        labels: "Tensor",
        *,
        generator: "torch.Generator",
        fraction: float,
    ) -> Outcome:
        """Attack the images, then run the model once, on what was found."""
        from stabdeq.attacks import PGD
        from train.objectives.modes import evaluating

        attack = PGD(eps=self.eps, steps=self.steps, step_size=self.step_size, norm=self.norm)
        with evaluating(model):
            crafted = attack(model, images, labels, generator=generator)
        prediction = model.predict(crafted.images)
        metrics = {
            "adversarial_accuracy": (prediction.logits.argmax(1) == labels).float().mean(),
            "crafting_blind": (crafted.nonfinite | crafted.zero).float().mean(),
        }
        return Outcome(prediction, images.new_zeros(()), metrics=metrics)
