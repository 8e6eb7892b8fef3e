"""I-FGSM, the iterated fast gradient sign method (Kurakin et al. 2017), with the paper's settings."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stabdeq.attacks.ascent import ascend, schedule
from stabdeq.attacks.ball import LinfBall
from stabdeq.attacks.threat_model import Adversarial, Classifier, check_batch, refuse_restarts
from stabdeq.errors import ConfigError
from stabdeq.radius import NormName


@dataclass(frozen=True, kw_only=True)
class IFGSM:
    """Signed gradient ascent from the image itself, within ``eps`` (pixels of [0, 1]) in the l-infinity norm.

    ``steps`` and ``step_size`` None follow the paper: ``paper_steps(eps)`` steps of 1/255.
    Raises ConfigError for settings out of range.
    """

    eps: float
    steps: int | None = None
    step_size: float | None = None

    def __post_init__(self) -> None:
        schedule(self.eps, self.steps, self.step_size, "linf")

    def __call__(
        self, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator | None = None
    ) -> Adversarial:
        """Attack ``images`` (B, C, H, W) in [0, 1] with true ``labels`` (B,); ``generator`` is not used.

        Raises DataError for images or labels that are not as expected; ConfigError for a model in training
        mode or without gradients.
        """
        check_batch(model, images, labels)
        images = images.detach()
        steps, step_size = schedule(self.eps, self.steps, self.step_size, "linf")
        return ascend(model, images, labels, images, ball=LinfBall(self.eps), steps=steps, step_size=step_size)


def build(*, eps: float, norm: NormName, steps: int | None, restarts: int) -> IFGSM:
    """Return the attack that the name "ifgsm" stands for: in the l-infinity norm alone, from the image itself."""
    refuse_restarts("ifgsm", restarts)
    if norm != "linf":
        raise ConfigError(f"norm = {norm}: I-FGSM takes signed steps, in the l-infinity norm alone; use pgd")
    return IFGSM(eps=eps, steps=steps)
