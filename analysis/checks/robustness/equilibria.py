"""Do attacked images have equilibria, and are the model's answers those of its equilibria?"""

import torch

from analysis.checks.robustness.indicator import Indicator
from analysis.checks.robustness.statistics import Paired
from analysis.checks.robustness.target import Run, Target
from analysis.findings import Finding
from analysis.measure.subject import TOLERANCE

SOLVER = Indicator(
    name="solver",
    claim=f"Solved to a residual of {TOLERANCE:g}, attacked images get the answer that the model's own solver gives, but for too few to "
    "matter to the accuracy.",
    meaning="The measured accuracy is that of an unfinished iteration: more iterations change the answers.",
    remedy="tighten the solver's tolerance and raise max_evaluations until the accuracy no longer changes, then attack again.",
)
CONVERGED = Indicator(
    name="attacked equilibria",
    claim="The model's own solver finds the equilibria of attacked images, but for too few to matter to the accuracy.",
    meaning="The attack succeeds or fails on states that are no equilibria, and implicit gradients are wrong there.",
    remedy="raise max_evaluations or use another solver, and count an image without an equilibrium as broken.",
)


@torch.no_grad()
def judge(target: Target, run: Run) -> list[Finding]:
    """Return the findings on the attacked images of ``run``."""
    return [_solver(target, run), _converged(target, run)]


def _solver(target: Target, run: Run) -> Finding:
    logits, found = target.accurate(run.images)
    changed = found & (logits.argmax(1) != target.predict(run.images))
    right = int((found & (logits.argmax(1) == target.labels)).sum())
    own = int((found & run.right).sum())
    count = int(changed.sum())
    seen = (
        f"Of {int(found.sum())} attacked images with an accurate equilibrium {count} get another answer there: {right} are right, "
        f"with the model's own solver {own}."
    )
    witness = None
    if count:
        position = int(changed.nonzero()[0])
        witness = target.witness(position, run.images[position], run.eps)
        witness["prediction_accurate"] = int(logits[position].argmax())
    return SOLVER.compared(
        Paired(count, 0), seen, samples=int(found.sum()), seed=target.subject.seed, right=own, witness=witness
    )


def _converged(target: Target, run: Run) -> Finding:
    model = target.subject.model
    lost, lost_clean = (~model.solve(model.inject(images)).converged for images in (run.images, target.images))
    count = int(lost.sum())
    seen = (
        f"At eps = {255 * run.eps:.4g}/255 the model's own solver does not converge on {count} of {len(lost)} attacked images, and "
        f"on {int(lost_clean.sum())} clean ones."
    )
    return CONVERGED.compared(
        Paired(count, 0),
        seen,
        samples=len(lost),
        seed=target.subject.seed,
        right=int(run.right.sum()),
        witness=target.witness(int(lost.nonzero()[0]), run.images[lost][0], run.eps) if count else None,
    )
