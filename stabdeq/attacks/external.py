"""An attack from another library, such as AutoAttack, run in the place of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stabdeq.attacks.ball import build_ball
from stabdeq.attacks.threat_model import Adversarial, Classifier, check_batch
from stabdeq.errors import DataError
from stabdeq.radius import NormName


@dataclass(frozen=True, kw_only=True)
class ExternalAttack:
    """The attack that ``build(model)`` returns, by its ``run_standard_evaluation(images, labels, bs=...)``.

    ``eps`` and ``norm`` are the ball that it was built for, and that its images are checked to lie in.

        ExternalAttack(build=lambda model: AutoAttack(model, norm="Linf", eps=8 / 255), eps=8 / 255)

    Raises ConfigError for settings out of range.
    """

    build: Callable[[Classifier], Any]
    eps: float
    norm: NormName = "linf"

    def __post_init__(self) -> None:
        build_ball(self.eps, self.norm)

    def __call__(self, model: Classifier, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        """Attack ``images`` (B, C, H, W) in [0, 1] with true ``labels`` (B,).

        It draws from PyTorch's global generator, seeded from ``generator`` and set back afterwards, unless it seeds itself.
        Raises DataError for images or labels that are not as expected, and where the attack leaves the ball or [0, 1].
        """
        check_batch(model, images, labels)
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        devices = [images.device] if images.is_cuda else []
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            found = self.build(model).run_standard_evaluation(images.clone(), labels.clone(), bs=len(images))
        self._check(found, images)
        blind = torch.zeros_like(labels, dtype=torch.bool)  # it does not tell
        return Adversarial(found.detach(), blind, blind)

    def _check(self, found: Any, images: Tensor) -> None:
        if not isinstance(found, Tensor) or found.shape != images.shape:
            came = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise DataError(f"the external attack returned {came}: expected images of shape {tuple(images.shape)}")
        change = (found - images).double().flatten(1)
        distance = float(torch.linalg.vector_norm(change, ord=torch.inf if self.norm == "linf" else 2, dim=1).max())
        rounding = 1e-6  # float32 pixels
        if not (distance <= self.eps * (1 + rounding) + rounding and found.min() >= 0 and found.max() <= 1):
            raise DataError(
                f"the external attack moved an image by {distance:g} in {self.norm}, to pixels from {found.min():g} to "
                f"{found.max():g}: expected at most eps = {self.eps:g} within [0, 1]; is it built for the same ball?"
            )
