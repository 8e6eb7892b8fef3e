"""Accuracy against eps: it must begin at the clean accuracy, fall without a cliff at the start, and end at nothing."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from analysis.checks.robustness.indicator import Indicator
from analysis.checks.robustness.statistics import LEVEL, Paired, binomial_tail, interval
from analysis.checks.robustness.target import Run, Target
from analysis.findings import Finding, Measurement
from stabdeq.percent import percent

# In grey levels: two tiny radii, one twice the other, before those that are in use; at 255 any image is allowed.
TINY = (1 / 16, 1 / 8)
RADII = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

EPS_0 = Indicator(
    name="eps = 0",
    claim="An attack that may change nothing leaves every prediction as it is.",
    meaning="So the attack changes images that it must not change, or the model is random: every row of the table is too low by "
    "something that is not robustness.",
    remedy="compare the attacked images with the clean ones at eps = 0; look for clamping, rounding or normalisation applied twice "
    "or in the wrong order, and for layers in training mode.",
)
FIRST_DROP = Indicator(
    name="first drop",
    claim="Accuracy does not fall off a cliff at the smallest eps and stay flat after it.",
    meaning="Distances to the decision boundary do not bunch within a fraction of a grey level: what breaks there is broken by "
    "handling, not by the attack.",
    remedy="look at the eps = 0 row first; clamp images in pixels of [0, 1], before normalisation.",
)
MONOTONE = Indicator(
    name="monotone",
    claim="A larger ball never leaves more images right than a smaller one.",
    meaning="The larger ball holds all images of the smaller, so the attack missed in the larger what it had found in the smaller.",
    remedy="give the attack more steps or restarts, or another step size, and report for each image the worst over all smaller eps.",
)
UNBOUNDED = Indicator(
    name="unbounded",
    claim="Where any image at all is allowed (eps = 1), no more images stay right than guessing gets.",
    meaning="With any image allowed the true robust accuracy is 0 as soon as the model gives two answers, so the attack, not the "
    "model, fails (unconstrained attack failure of Pintor et al. 2022).",
    remedy="more steps, and steps that can cross the ball; if that does not help, look for masked gradients.",
)


@dataclass(frozen=True, eq=False)
class Curve:
    """Runs of the attack by increasing eps, the first at eps = 0, the last at eps = 1; ``clean`` (N,) bool is right without it."""

    clean: Tensor
    runs: tuple[Run, ...]

    def middle(self) -> Run:
        """Return the run at a radius in use that leaves nearest to half of what is right on clean images.

        There an attack has room to fail and room to succeed. Of two the larger: a masked model is flat.
        """
        half = int(self.clean.sum()) / 2
        return min(reversed(self.runs[1 + len(TINY) : -1]), key=lambda run: abs(int(run.right.sum()) - half))

    def measurements(self) -> list[Measurement]:
        """Return the accuracy at each eps, with its 95 % interval."""
        rows = [("clean", self.clean)] + [(f"eps = {_levels(run.eps)}", run.right) for run in self.runs]
        return [accuracy(name, right) for name, right in rows]

    def series(self) -> dict[str, Any]:
        """Return the curve as plain numbers."""
        counts = [int(run.right.sum()) for run in self.runs]
        bounds = [interval(count, len(self.clean)) for count in counts]
        return {
            "eps": [run.eps for run in self.runs],
            "accuracy": [count / len(self.clean) for count in counts],
            "lower": [low for low, _ in bounds],
            "upper": [high for _, high in bounds],
            "clean": int(self.clean.sum()) / len(self.clean),
        }


def accuracy(name: str, right: Tensor, what: str = "right under the attack") -> Measurement:
    """Return the fraction of ``right`` (N,) bool with its 95 % Clopper-Pearson interval."""
    count = int(right.sum())
    low, high = interval(count, len(right))
    text = f"{name}: {count} of {len(right)} images {'right' if name == 'clean' else what} (95 %: {percent(low, 1)} to {percent(high, 1)})"
    return Measurement(check="robustness", name=f"accuracy, {name}", value=count / len(right), text=text)


def trace(target: Target) -> Curve:
    """Attack at every radius."""
    runs = [target.run(0.0, 1)] + [target.run(level / 255) for level in (*TINY, *RADII, 255.0)]
    return Curve(target.right(target.images), tuple(runs))


def judge(target: Target, curve: Curve) -> list[Finding]:
    """Return the findings on the curve."""
    return [_eps_0(target, curve), _first_drop(target, curve), _monotone(target, curve), _unbounded(target, curve)]


def _eps_0(target: Target, curve: Curve) -> Finding:
    run = curve.runs[0]
    changed = target.predict(run.images) != target.predict(target.images)
    count = int(changed.sum())
    moved = float((run.images - target.images).abs().max())
    return EPS_0.finding(
        count > 0,
        f"At eps = 0, {count} of {len(changed)} predictions differ from the clean ones; no pixel moved by more than {moved:.2g}.",
        samples=len(changed),
        seed=target.subject.seed,
        margin=float(-count),
        witness=_first(target, changed, run),
    )


def _first_drop(target: Target, curve: Curve) -> Finding:
    """Judge whether more images break from 0 to e than from e to 2 e, where margins are spread evenly over so short a range."""
    _, one, two, *_ = curve.runs
    within_one, within_two = curve.clean & ~one.right, one.right & ~two.right
    first, second = int(within_one.sum()), int(within_two.sum())
    seen = (
        f"From clean to eps = {_levels(one.eps)} {first} images break, from there to {_levels(two.eps)} {second} more, where "
        "equal steps should break as many."
    )
    return FIRST_DROP.compared(
        Paired(first, second),
        seen,
        samples=int(curve.clean.sum()),
        seed=target.subject.seed,
        witness=_first(target, within_one, one),
    )


def _monotone(target: Target, curve: Curve) -> Finding:
    pairs = [
        (smaller, larger, Paired.of(larger.right, smaller.right))
        for smaller, larger in zip(curve.runs, curve.runs[1:], strict=False)
    ]
    smaller, larger, paired = min(pairs, key=lambda pair: pair[2].p)
    seen = (
        f"From eps = {_levels(smaller.eps)} to {_levels(larger.eps)}, the worst of {len(pairs)} steps, {paired.first} images come "
        f"right again and {paired.second} break."
    )
    return MONOTONE.compared(
        paired,
        seen,
        samples=len(curve.clean),
        seed=target.subject.seed,
        comparisons=len(pairs),
        witness=_first(target, larger.right & ~smaller.right, smaller),
    )


def _unbounded(target: Target, curve: Curve) -> Finding:
    run = curve.runs[-1]
    with torch.no_grad():
        classes = target(target.images[:1]).shape[1]
    count, right = len(run.right), int(run.right.sum())
    p = binomial_tail(right, count, 1 / classes)
    fired = p <= LEVEL
    seen = f"At eps = 1 {right} of {count} images stay right, where a guess among {classes} gets {count / classes:.3g}: p = {p:.2g}."
    common = {"samples": count, "seed": target.subject.seed}
    if classes**-count > LEVEL:
        return UNBOUNDED.open(
            f"{seen} With {count} images chance explains any outcome: audit more (--images).", **common
        )
    if len(target.predict(target.images).unique()) < 2:
        reason = (
            "The model answers all audited images alike, so that no image within eps = 1 is known to change an answer."
        )
        return UNBOUNDED.open(f"{seen} {reason}", **common)
    return UNBOUNDED.finding(
        fired,
        seen,
        samples=count,
        seed=target.subject.seed,
        margin=p - LEVEL,
        tolerance=LEVEL,
        witness=_missed(target, run) if fired else None,
    )


def _missed(target: Target, run: Run) -> dict[str, Any]:
    """An image that stands, beside an audited image of another prediction: within eps = 1, and the attack missed it."""
    position = int(run.right.nonzero()[0])
    predictions = target.predict(target.images)
    beside = int((predictions != target.labels[position]).nonzero()[0])
    return target.witness(position, run.images[position], run.eps) | {
        "other_image": int(target.subject.indices[beside]),
        "other_prediction": int(predictions[beside]),
        "distance": float((target.images[beside] - target.images[position]).abs().max()),
    }


def _first(target: Target, flags: Tensor, run: Run) -> dict[str, Any] | None:
    """The witness of the first image among ``flags`` (N,), as ``run`` left it."""
    if not bool(flags.any()):
        return None
    position = int(flags.nonzero()[0])
    return target.witness(position, run.images[position], run.eps)


def _levels(eps: float) -> str:
    return "0" if eps == 0 else "1" if eps == 1 else f"{255 * eps:.4g}/255"
