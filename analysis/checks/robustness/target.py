"""The classifier under attack, the attack whose worth is asked, and the runs of it that the indicators read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from analysis.measure.subject import Subject, solve_accurately
from stabdeq.attacks import PGD, Attack, usual_step_size
from stabdeq.attacks.threat_model import Classifier, is_correct

STEPS = 20

BuildAttack = Callable[[float, int], Attack]  # radius in pixels of [0, 1], steps -> the attack


def pgd(eps: float, steps: int) -> Attack:
    """Return the attack whose worth is asked where no other is given: l-infinity PGD, with steps of ``usual_step_size``."""
    return PGD(eps=eps, steps=steps, step_size=usual_step_size(eps, steps))


@dataclass(frozen=True, eq=False)
class Target:
    """The model of ``subject`` as a classifier x -> readout(solve(inject(x)).z), and the ``attack`` on it."""

    subject: Subject
    attack: BuildAttack = pgd

    @property
    def images(self) -> Tensor:
        """(N, C, H, W), the audited images."""
        return self.subject.images

    @property
    def labels(self) -> Tensor:
        """(N,), their labels."""
        return self.subject.labels

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of images ``x`` (B, C, H, W), by the model's own solver."""
        model = self.subject.model
        return model.readout(model.solve(model.inject(x)).z)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Return the predicted classes (B,)."""
        return self(x).argmax(1)

    @torch.no_grad()
    def right(self, x: Tensor, which: Tensor | None = None) -> Tensor:
        """Return which images ``x`` (B, C, H, W), of the samples ``which`` (B,), are classified right, (B,) bool."""
        return is_correct(self(x), self.labels if which is None else self.labels[which])

    @torch.no_grad()
    def accurate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits at equilibria solved to the audit's tolerance, and which of these were found, (B,) bool."""
        model = self.subject.model
        h = model.inject(x)
        solution = solve_accurately(lambda z: model.cell(z, h), torch.zeros_like(model.solve(h).z))
        return model.readout(solution.z), solution.converged

    def generator(self, number: int) -> torch.Generator:
        """Return the randomness of the run ``number``, from the audit's seed: none shares another's."""
        drawn = torch.randint(2**62, (number + 1,), generator=self.subject.generator())
        return torch.Generator().manual_seed(int(drawn[-1]))

    def run(self, eps: float, steps: int = STEPS, *, number: int = 0) -> "Run":
        """Attack all images once."""
        recorded = Recorded(self, self.labels)
        found = self.attack(eps, steps)(recorded, self.images, self.labels, generator=self.generator(number))
        return Run(
            eps=eps,
            images=found.images,
            right=self.right(found.images),
            blind=found.nonfinite | found.zero,
            passed=recorded.wrong,
        )

    def witness(self, position: int, attacked: Tensor, eps: float) -> dict[str, Any]:
        """Return what it takes to replay the image at ``position``: the attacked image (C, H, W), and what it is taken for."""
        return {
            "image": int(self.subject.indices[position]),
            "label": int(self.labels[position]),
            "prediction_clean": int(self.predict(self.images[position][None])),
            "prediction_attacked": int(self.predict(attacked[None])),
            "eps": eps,
            "attacked_image": attacked.flatten().tolist(),
        }


@dataclass(frozen=True, eq=False)
class Run:
    """One run of the attack: its images (N, C, H, W), which of them are classified right, whose gradient was zero or not finite
    at some step, and who was wrong at some step, all (N,) bool."""

    eps: float
    images: Tensor
    right: Tensor
    blind: Tensor
    passed: Tensor


@dataclass(eq=False)
class Recorded:
    """A classifier that notes which samples it was seen to get wrong, in calls with all of them."""

    classifier: Classifier
    labels: Tensor
    wrong: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.wrong = torch.zeros_like(self.labels, dtype=torch.bool)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of ``x`` (B, C, H, W)."""
        logits = self.classifier(x)
        if len(x) == len(self.labels):
            self.wrong |= ~is_correct(logits.detach(), self.labels)
        return logits
