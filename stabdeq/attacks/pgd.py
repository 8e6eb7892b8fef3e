"""PGD, projected gradient descent (Madry et al. 2018): I-FGSM from random points of the ball."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from stabdeq.attacks.ascent import STEP_SIZE, ascend, check_ascent, paper_steps
from stabdeq.attacks.threat_model import Adversarial, Classifier, check_batch, check_logits, is_correct
from stabdeq.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Signed gradient ascent from x + U[-eps, eps], within ``eps`` (pixels of [0, 1]) in the l-infinity norm.

    ``steps`` None follows the paper's rule, ``paper_steps(eps)``; the paper's ``restarts`` is 1. Of several
    restarts each sample keeps its worst: a misclassified one before another, then the larger loss.
    Raises ConfigError for settings out of range.
    """

    eps: float
    steps: int | None = None
    step_size: float = STEP_SIZE
    restarts: int = 1

    def __post_init__(self) -> None:
        check_ascent(self.eps, self.steps, self.step_size)
        if isinstance(self.restarts, bool) or not isinstance(self.restarts, int) or self.restarts < 1:
            raise ConfigError(f"restarts = {self.restarts!r}: expected a whole number from 1 up")

    def __call__(self, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        """Attack ``images`` (B, C, H, W) in [0, 1] with true ``labels`` (B,); starts come from ``generator``.

        Raises DataError for images or labels that are not as expected; ConfigError for a model in training
        mode or without gradients.
        """
        check_batch(model, images, labels)
        images = images.detach()
        worst = self._once(model, images, labels, generator)
        if self.restarts == 1:
            return worst
        wrong, loss = _judge(model, worst.images, labels)
        for _ in range(self.restarts - 1):
            found = self._once(model, images, labels, generator)
            found_wrong, found_loss = _judge(model, found.images, labels)
            worse = (found_wrong & ~wrong) | ((found_wrong == wrong) & (found_loss > loss))
            wrong, loss = wrong | found_wrong, torch.where(worse, found_loss, loss)
            worst = Adversarial(
                torch.where(worse.view(-1, 1, 1, 1), found.images, worst.images),
                worst.nonfinite | found.nonfinite,
                worst.zero | found.zero,
            )
        return worst

    def _once(self, model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Adversarial:
        # Drawn where the generator lives, so that one on the CPU gives all devices the same starts.
        noise = torch.empty(images.shape, dtype=images.dtype, device=generator.device)
        start = images + noise.uniform_(-self.eps, self.eps, generator=generator).to(images.device)
        steps = paper_steps(self.eps) if self.steps is None else self.steps
        return ascend(model, images, labels, start, eps=self.eps, steps=steps, step_size=self.step_size)


@torch.no_grad()
def _judge(model: Classifier, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which images are misclassified, (B,) bool, and all losses, (B,): infinite where they are NaN."""
    logits = model(images)
    check_logits(logits, labels)
    loss = cross_entropy(logits, labels, reduction="none")
    return ~is_correct(logits, labels), torch.where(loss.isnan(), torch.inf, loss)
