"""The samples that a run has not broken yet: it asks for these alone, and each leaves at its first mistake."""

import torch
from torch import Tensor

from stabdeq.attacks.ascent import gradient_faults, loss_gradient
from stabdeq.attacks.followed import Followed
from stabdeq.attacks.losses import Loss, margin
from stabdeq.attacks.threat_model import STANDS, Adversarial, Classifier, check_logits, is_correct

Rows = Tensor | slice  # indices (K,), or all

# Share of the logits' spread: a mistake that is no nearer to a followed model is none to the model itself. The largest difference
# of the two that was seen is a quarter of it.
NEAR = 0.01


class Standing:
    """Those of a batch (B, C, H, W) that ``model`` got right so far, and what a run found of all of it.

    ``samples`` (K,) are their places in the batch. Logits and gradients are those of a ``Followed`` model where it can be
    followed; that a sample is broken only the model itself says.
    """

    def __init__(self, model: Classifier, images: Tensor, labels: Tensor) -> None:
        self._model = model
        self._followed = Followed.of(model)
        self._labels = labels
        self.samples = torch.arange(len(labels), device=labels.device)
        self._images = images.clone()
        self._nonfinite, self._zero = (
            torch.zeros_like(labels, dtype=torch.bool),
            torch.zeros_like(labels, dtype=torch.bool),
        )
        self._broken_by = torch.full_like(labels, STANDS)
        # The nearest that each was to a mistake of the followed model, where the model itself was right.
        self._nearest = images.new_full(labels.shape, -NEAR)

    def __len__(self) -> int:
        return len(self.samples)

    def climb(self, images: Tensor, loss: Loss, *, evaluations: int = 1) -> tuple[Tensor, Tensor, Rows]:
        """Return the ``loss`` (K,) at ``images`` (K, C, H, W), its gradient, and the rows that stand there; the others leave.

        Loss and gradient are means over ``evaluations`` of the model, and those of all K.
        """
        logits, value, gradient = loss_gradient(
            self._followed or self._model, images, self._labels, loss, samples=evaluations
        )
        nonfinite, zero = gradient_faults(gradient)
        self._nonfinite[self.samples] |= nonfinite
        self._zero[self.samples] |= zero
        return value, gradient, self._part(images, logits)

    @torch.no_grad()
    def margins(self, images: Tensor) -> tuple[Tensor, Rows]:
        """Return the margins (K,) at ``images`` (K, C, H, W), and the rows that stand there; the others leave."""
        logits = (self._followed or self._model)(images)
        check_logits(logits, self._labels)
        return margin(logits, self._labels), self._part(images, logits)

    def found(self, images: Tensor) -> Adversarial:
        """Return what was found of all of the batch: ``images`` (K, C, H, W) of those that stand."""
        self._images[self.samples] = images
        return Adversarial(self._images, self._nonfinite, self._zero, self._broken_by)

    def _part(self, images: Tensor, logits: Tensor) -> Rows:
        wrong = ~is_correct(logits, self._labels) if self._followed is None else self._misjudged(images, logits)
        if not bool(wrong.any()):
            return slice(None)
        broken = self.samples[wrong]
        self._images[broken] = images[wrong]
        self._broken_by[broken] = 1
        stays = (~wrong).nonzero().squeeze(1)
        self.samples, self._labels, self._nearest = self.samples[stays], self._labels[stays], self._nearest[stays]
        if self._followed is not None:
            self._followed.keep(stays)
        return stays

    @torch.no_grad()
    def _misjudged(self, images: Tensor, logits: Tensor) -> Tensor:
        """Which ``images`` the model itself gets wrong, (K,) bool, of those whose ``logits`` came nearer to it than ever."""
        spread = (logits.amax(1) - logits.amin(1)).clamp(min=torch.finfo(logits.dtype).tiny)
        nearness = margin(logits, self._labels) / spread
        nearer = (~(nearness <= self._nearest)).nonzero().squeeze(1)  # NaN too
        wrong = torch.zeros_like(self._labels, dtype=torch.bool)
        if len(nearer):
            wrong[nearer] = ~is_correct(self._model(images[nearer]), self._labels[nearer])
            self._nearest[nearer] = nearness[nearer]
        return wrong
