"""Rivals that know less than the attack, or look elsewhere: what they break and the attack could not, it missed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.checks.robustness import surrogates
from analysis.checks.robustness.effort import Effort
from analysis.checks.robustness.indicator import Indicator
from analysis.checks.robustness.statistics import Paired
from analysis.checks.robustness.target import STEPS, Target, pgd
from analysis.findings import Finding
from stabdeq.attacks import IFGSM, Square
from stabdeq.attacks.ball import LinfBall
from stabdeq.attacks.threat_model import Classifier
from stabdeq.errors import ConfigError

POINTS = 100
QUERIES = 500

MASKED = (
    "The model is weaker than the attack says: its gradients lead away from mistakes that are there (masked gradients)."
)

SINGLE_STEP = Indicator(
    name="single step",
    claim="One step of length eps breaks no image that stands against the iterated attack.",
    meaning="An iterated attack that loses to its own first step does not climb: its gradients or its steps are at fault.",
    remedy="look at the step size (2.5 eps / steps is usual) and at the indicators guide and derivatives.",
)
RANDOM_POINTS = Indicator(
    name="random points",
    claim=f"{POINTS} random points of the ball break no image that stands against the attack.",
    meaning=MASKED,
    remedy="report the worst over attacks, one of them without gradients (--attack honest).",
)
SQUARE = Indicator(
    name="no gradients",
    claim=f"Square, {QUERIES} queries without any gradient, breaks no image that stands against the attack.",
    meaning=MASKED,
    remedy="report the worst over attacks (--attack honest), and find what masks the gradients: rounding, saturation, randomness.",
)
ANOTHER_LOSS = Indicator(
    name="another loss",
    claim="The same attack on logits scaled to their own spread breaks no image that stands.",
    meaning="The cross-entropy is saturated: its gradient is rounding, and the attack climbs noise.",
    remedy="attack the difference of logits (--attack apgd-t), which no scaling of the logits masks.",
)
ANOTHER_GRADIENT = Indicator(
    name="another gradient",
    claim=f"The attack with gradients through {surrogates.UNROLLED} unrolled steps of the cell breaks no image that stands.",
    meaning="The implicit gradient misleads: the model's robustness rests on how it is differentiated.",
    remedy="report --attack intermediate as well, and solve the backward pass more accurately.",
)
TWIN = Indicator(
    name="transfer from its twin",
    claim="Images that fool the same weights without the stability module break none that stands against the attack.",
    meaning="The stability module does not make the model robust, it hides its gradient.",
    remedy="attack the twin and judge the images with the model, and report the worst.",
)
STRANGER = Indicator(
    name="transfer from a stranger",
    claim="Images that fool a small network, trained on the model's answers, break none that stands against the attack.",
    meaning=MASKED,
    remedy="report the worst over attacks with transferred images among them (--attack honest, and a surrogate of your own).",
)

# What takes images (B, C, H, W), labels (B,) and randomness, and returns attacked images.
Find = Callable[[Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, eq=False)
class Contest:
    """What the rivals found: a finding each, and which of all images (N,) bool stand against all."""

    findings: list[Finding]
    standing: Tensor


def contest(target: Target, effort: Effort, clean: Tensor) -> Contest:
    """Let every rival attack what stands, beside one more run of the attack, which is what chance would bring."""
    eps = effort.once.eps
    standing = effort.standing(clean)
    left = torch.zeros_like(clean)
    left[standing] = True
    repeated = target.run(eps, number=10).right[standing]
    findings = []
    for number, (indicator, find) in enumerate(_rivals(target, eps).items(), start=11):
        try:
            images = _found(find, target, standing, target.generator(number))
        except ConfigError as error:
            findings.append(indicator.open(f"{error}.", samples=len(standing), seed=target.subject.seed))
            continue
        broken = ~target.right(images, standing) if len(standing) else left[:0]
        left[standing[broken]] = False
        paired = Paired.of(broken, ~repeated)
        new = (broken & repeated).nonzero().squeeze(1)
        findings.append(
            indicator.compared(
                paired,
                f"Of {len(standing)} images that stand at eps = {255 * eps:.4g}/255 after {len(effort.again) + 2} runs it breaks "
                f"{paired.first} alone, and one more run of the attack {paired.second} alone.",
                samples=len(standing),
                seed=target.subject.seed,
                witness=target.witness(int(standing[new[0]]), images[new[0]], eps) if len(new) else None,
            )
        )
    left[standing[~repeated]] = False
    return Contest(findings, left)


def _found(find: Find, target: Target, standing: Tensor, generator: torch.Generator) -> Tensor:
    images = target.images[standing]
    return find(images, target.labels[standing], generator) if len(standing) else images


def _rivals(target: Target, eps: float) -> dict[Indicator, Find]:
    """Every rival as what finds images; those that need a surrogate attack it by PGD."""
    by_surrogate: dict[Indicator, Classifier | None] = {
        ANOTHER_LOSS: surrogates.rescaled(target),
        ANOTHER_GRADIENT: surrogates.unrolled(target),
        TWIN: surrogates.twin(target),
        STRANGER: surrogates.stranger(target, eps),
    }
    finds: dict[Indicator, Find] = {
        SINGLE_STEP: lambda images, labels, _: IFGSM(eps=eps, steps=1, step_size=eps)(target, images, labels).images,
        RANDOM_POINTS: lambda images, labels, generator: _random_points(target, eps, images, labels, generator),
        SQUARE: lambda images, labels, generator: (
            Square(eps=eps, steps=QUERIES)(target, images, labels, generator=generator).images
        ),
    }
    return finds | {
        indicator: _transferred(surrogate, eps) for indicator, surrogate in by_surrogate.items() if surrogate
    }


def _transferred(surrogate: Classifier, eps: float) -> Find:
    return lambda images, labels, generator: pgd(eps, STEPS)(surrogate, images, labels, generator=generator).images


@torch.no_grad()
def _random_points(target: Target, eps: float, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """The first point that breaks each image, half of the points uniform in the ball and half its corners."""
    ball, found = LinfBall(eps), images.clone()
    standing = torch.ones_like(labels, dtype=torch.bool)
    for point in range(POINTS):
        moved = ball.start(images, generator)
        if point % 2:
            moved = images + eps * (moved - images).sign()
        moved = ball.project(moved, images)
        wrong = standing & (target.predict(moved) != labels)
        found[wrong] = moved[wrong]
        standing &= ~wrong
    return found
