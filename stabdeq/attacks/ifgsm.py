"""I-FGSM, the iterated fast gradient sign method (Kurakin et al. 2017), with the paper's settings."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stabdeq.attacks.ascent import STEP_SIZE, ascend, check_ascent, paper_steps
from stabdeq.attacks.threat_model import Adversarial, Classifier, check_batch


@dataclass(frozen=True, kw_only=True)
class IFGSM:
    """Signed gradient ascent from the image itself, within ``eps`` (pixels of [0, 1]) in the l-infinity norm.

    ``steps`` None follows the paper's rule, ``paper_steps(eps)``.
    Raises ConfigError for settings out of range.
    """

    eps: float
    steps: int | None = None
    step_size: float = STEP_SIZE

    def __post_init__(self) -> None:
        check_ascent(self.eps, self.steps, self.step_size)

    def __call__(
        self, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator | None = None
    ) -> Adversarial:
        """Attack ``images`` (B, C, H, W) in [0, 1] with true ``labels`` (B,); ``generator`` is not used.

        Raises DataError for images or labels that are not as expected; ConfigError for a model in training
        mode or without gradients.
        """
        check_batch(model, images, labels)
        images = images.detach()
        steps = paper_steps(self.eps) if self.steps is None else self.steps
        return ascend(model, images, labels, images, eps=self.eps, steps=steps, step_size=self.step_size)
