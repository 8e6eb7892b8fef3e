"""Does the attack climb, and has it climbed far enough? Gradients that guide, steps and restarts that no longer help."""

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.checks.robustness.indicator import Indicator
from analysis.checks.robustness.statistics import LEVEL, Paired, binomial_tail, can_fire
from analysis.checks.robustness.target import STEPS, Run, Target
from analysis.findings import Finding
from stabdeq.attacks.ascent import loss_gradient, usual_step_size
from stabdeq.attacks.ball import LinfBall
from stabdeq.attacks.losses import cross_entropy

LONGER = 4
RESTARTS = 5

GRADIENTS = Indicator(
    name="gradients",
    claim="On the images that stand, no gradient of the attack is zero or not finite.",
    meaning="The attack was blind there: these images stand because nobody looked (unavailable gradients of Pintor et al. 2022).",
    remedy="look for rounding, saturated outputs and square roots at 0; attack a loss that does not saturate (--attack apgd-t) and "
    "without gradients (--attack square).",
)
GUIDE = Indicator(
    name="guide",
    claim="A step along the gradient raises the loss by more than a random step of the same size and the step opposite to that.",
    meaning="The gradient says nothing about the loss a step away: it is shattered or noisy (unstable predictions of Pintor et al. "
    "2022, increasing loss in their first version).",
    remedy="average gradients over random points near the image or over the model's own randomness (PGD's samples), or attack "
    "without gradients (--attack square).",
)
STEPS_HELP = Indicator(
    name="steps",
    claim=f"{LONGER} times the steps break no more images.",
    meaning="The attack had not arrived: with more steps the robust accuracy is lower (incomplete optimisation of Pintor et al. "
    "2022, break-point angle in their first version).",
    remedy="raise --steps until the accuracy no longer falls.",
)
RESTARTS_HELP = Indicator(
    name="restarts",
    claim=f"The worst of {RESTARTS} other random starts breaks no more images.",
    meaning="What one start finds depends on luck, so the robust accuracy is lower than one start says.",
    remedy="raise --restarts until the accuracy no longer falls.",
)
SILENT_SUCCESS = Indicator(
    name="silent success",
    claim="The attack returns what it finds: it does not pass a misclassified image and come back with one that is right, but for "
    "too few to matter to the accuracy.",
    meaning="Images that the attack did break are counted as robust (silent success of Pintor et al. 2022).",
    remedy="keep the first misclassified or the worst image of the path, as apgd-ce and honest do.",
)


@dataclass(frozen=True, eq=False)
class Effort:
    """The run at the radius of comparison, one with more steps, and others from other starts."""

    once: Run
    longer: Run
    again: tuple[Run, ...]

    def broken_again(self) -> Tensor:
        """(N,) bool: broken from at least one of the other starts."""
        return torch.stack([~run.right for run in self.again]).any(0)

    def standing(self, clean: Tensor) -> Tensor:
        """Return the positions (M,) of the images that are right clean (``clean``, (N,) bool), and that no run broke."""
        return (clean & self.once.right & self.longer.right & ~self.broken_again()).nonzero().squeeze(1)


def exert(target: Target, once: Run) -> Effort:
    """Run the attack at the radius of ``once`` with more steps, and from other starts."""
    longer = target.run(once.eps, LONGER * STEPS, number=1)
    return Effort(once, longer, tuple(target.run(once.eps, number=number) for number in range(2, 2 + RESTARTS)))


def judge(target: Target, effort: Effort) -> list[Finding]:
    """Return the findings on the attack's own gradients, steps and restarts."""
    return [
        _gradients(target, effort.once),
        _guide(target, effort.once.eps),
        _steps(target, effort),
        _restarts(target, effort),
        _silent_success(target, effort.once),
    ]


def _gradients(target: Target, run: Run) -> Finding:
    blind = run.blind & run.right
    count, standing = int(blind.sum()), int(run.right.sum())
    return GRADIENTS.finding(
        count > 0,
        f"The gradient was zero in every pixel, or not finite, at some step for {count} of the {standing} images that stand at "
        f"eps = {255 * run.eps:.4g}/255.",
        samples=standing,
        seed=target.subject.seed,
        margin=float(-count),
        witness=target.witness(int(blind.nonzero()[0]), run.images[blind][0], run.eps) if count else None,
    )


def _guide(target: Target, eps: float) -> Finding:
    """Judge one step of a signed gradient against one of random signs and its opposite, all from the clean image.

    Without any guidance each of the three is as likely as the others to raise the loss most. A step is as long as PGD's.
    """
    images, labels, ball, size = target.images, target.labels, LinfBall(eps), usual_step_size(eps, STEPS)
    _, _, gradient = loss_gradient(target, images, labels, cross_entropy)
    random = torch.randn(images.shape, generator=target.generator(8), dtype=images.dtype)
    with torch.no_grad():
        climbed, there, back = (
            cross_entropy(target(ball.project(images + size * direction.sign(), images)), labels)
            for direction in (gradient, random, -random)
        )
    wandered = torch.maximum(there, back)
    better, count = int((climbed > wandered).sum()), len(labels)
    p = binomial_tail(better, count, 1 / 3)
    seen = (
        f"One step of {255 * size:.3g}/255 along the gradient's signs raises the loss by more than one of random signs and its opposite "
        f"on {better} of {count} images, where chance gives a third (p = {p:.2g}); the indicator fires where chance does as well."
    )
    if not can_fire(count):
        return GUIDE.open(f"{seen} Audit more images (--images).", samples=count, seed=target.subject.seed)
    worse = (climbed <= wandered).nonzero().squeeze(1)
    position = int(worse[0]) if len(worse) else 0
    witness = {
        "image": int(target.subject.indices[position]),
        "step": size,
        "loss_gradient_step": float(climbed[position]),
        "loss_random_step": float(wandered[position]),
    }
    return GUIDE.finding(
        p > LEVEL,
        seen,
        samples=count,
        seed=target.subject.seed,
        margin=LEVEL - p,
        tolerance=LEVEL,
        witness=witness,
    )


def _steps(target: Target, effort: Effort) -> Finding:
    once, longer = effort.once, effort.longer
    paired = Paired.of(~longer.right, ~once.right)
    return STEPS_HELP.compared(
        paired,
        f"{LONGER * STEPS} steps break {paired.first} images that {STEPS} do not, and {paired.second} the other way round.",
        samples=len(once.right),
        seed=target.subject.seed,
        right=int(once.right.sum()),
        witness=_new(target, once, longer),
    )


def _restarts(target: Target, effort: Effort) -> Finding:
    paired = Paired.of(effort.broken_again(), ~effort.once.right)
    found = [_new(target, effort.once, run) for run in effort.again]
    return RESTARTS_HELP.compared(
        paired,
        f"The worst of {RESTARTS} other starts breaks {paired.first} images that the first does not, and {paired.second} the other "
        "way round.",
        samples=len(effort.once.right),
        seed=target.subject.seed,
        right=int(effort.once.right.sum()),
        witness=next((witness for witness in found if witness), None),
    )


def _silent_success(target: Target, run: Run) -> Finding:
    silent = run.passed & run.right
    count = int(silent.sum())
    return SILENT_SUCCESS.compared(
        Paired(count, 0),
        f"{count} images were misclassified at some step and are right at the end.",
        samples=len(silent),
        seed=target.subject.seed,
        right=int(run.right.sum()),
        witness=target.witness(int(silent.nonzero()[0]), run.images[silent][0], run.eps) if count else None,
    )


def _new(target: Target, run: Run, other: Run) -> dict | None:
    """The witness of an image that ``other`` broke and ``run`` did not."""
    new = run.right & ~other.right
    if not bool(new.any()):
        return None
    position = int(new.nonzero()[0])
    return target.witness(position, other.images[position], other.eps)
