"""TRADES, which trades accuracy off against robustness (Zhang et al. 2019, arXiv 1901.08573)."""

from functools import partial
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

    from stabdeq.attacks.threat_model import Adversarial
    from stabdeq.model import StabilisedDEQ

START_NOISE = 0.001  # the divergence has no slope at the image itself


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Trades:
    """CE(f(x), y) + beta KL(f(x) || f(x')), where x' within ``eps`` of x makes the divergence large.

    x' is crafted in evaluation mode, and both forward passes are then made in training mode, each by its own batch's
    statistics, as in the authors' code; the gradient flows through both sides of the divergence. The running statistics are
    updated by the clean batch alone (their code updates them by all its passes): it is the one whose accuracy is asked for.
    The defaults are those of Chu et al. (arXiv 2304.12707, Sec. 5.4). Raises ConfigError for settings out of range.
    """

    name: Literal["trades"] = "trades"
    norm: NormName = "linf"
    eps: NonNegative = 0.031
    steps: Count = 10
    step_size: Positive = 0.007
    beta: NonNegative = 6.0

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
        """Craft x', then run the model on x and on x'."""
        from train.objectives.modes import evaluating, predict_beside

        with evaluating(model):
            crafted = self._craft(model, images, labels, generator)
        prediction = model.predict(images)
        adversarial = predict_beside(model, crafted.images)
        term = self.beta * divergence(adversarial.logits, prediction.logits).mean()
        metrics = {
            "robust_loss": term.detach(),
            "adversarial_accuracy": (adversarial.logits.argmax(1) == labels).float().mean(),
            "adversarial_unconverged": (~adversarial.solution.converged).float().mean(),
            "crafting_blind": (crafted.nonfinite | crafted.zero).float().mean(),
        }
        return Outcome(prediction, term, (adversarial,), metrics)

    def _craft(
        self, model: "StabilisedDEQ", images: "Tensor", labels: "Tensor", generator: "torch.Generator"
    ) -> "Adversarial":
        import torch

        from stabdeq.attacks.ascent import ascend
        from stabdeq.attacks.ball import build_ball
        from stabdeq.shared_batch import drawn

        ball = build_ball(self.eps, self.norm)
        with torch.no_grad():
            clean = model(images)
        return ascend(
            model,
            images,
            labels,
            images + START_NOISE * drawn(partial(torch.randn, generator=generator), images.shape).to(images),
            ball=ball,
            steps=self.steps,
            step_size=self.step_size,
            loss=lambda logits, _: divergence(logits, clean),
        )


def divergence(logits: "Tensor", clean: "Tensor") -> "Tensor":
    """Return KL(p || q), (B,), of the probabilities p with logits ``clean`` and q with ``logits``, both (B, classes)."""
    from torch.nn import functional

    q, p = logits.log_softmax(1), clean.log_softmax(1)
    return functional.kl_div(q, p, reduction="none", log_target=True).sum(1)
