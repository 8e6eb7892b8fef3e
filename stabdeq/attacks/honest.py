"""The standard set of attacks whose worst, sample by sample, is the figure to report."""

from stabdeq.attacks.apgd import APGD
from stabdeq.attacks.ascent import usual_step_size
from stabdeq.attacks.intermediate import Intermediate
from stabdeq.attacks.pgd import PGD
from stabdeq.attacks.square import Square
from stabdeq.attacks.threat_model import Attack, check_counts
from stabdeq.attacks.worst import Worst
from stabdeq.radius import NormName

STEPS = 100


def honest(
    *, eps: float, steps: int = STEPS, restarts: int = 1, norm: NormName = "linf", equilibrium: bool = True
) -> Worst:
    """Return PGD, APGD-CE, APGD-T, Square with ten queries for each step, and a fifth of the steps on intermediate states.

    ``steps`` are those of PGD and APGD; PGD and APGD-CE start ``restarts`` times. A sample is broken where any image on the way
    is misclassified. The intermediate states are left out where
    the model is not an ``equilibrium`` model. Raises ConfigError for settings out of range.
    """
    check_counts(steps=steps, restarts=restarts)
    attacks: dict[str, Attack] = {
        "pgd": PGD(
            eps=eps,
            steps=steps,
            step_size=usual_step_size(eps, steps),
            restarts=restarts,
            norm=norm,
            until_broken=True,
        ),
        "apgd-ce": APGD(eps=eps, steps=steps, restarts=restarts, norm=norm),
        "apgd-t": APGD(eps=eps, steps=steps, norm=norm, loss="targeted"),
        "square": Square(eps=eps, steps=10 * steps, norm=norm),
    }
    if equilibrium:
        attacks["intermediate"] = Intermediate(eps=eps, steps=max(steps // 5, 1), norm=norm)
    return Worst(attacks)


def build(*, eps: float, norm: NormName, steps: int | None, restarts: int) -> Worst:
    """Return the set that the name "honest" stands for."""
    return honest(eps=eps, steps=STEPS if steps is None else steps, restarts=restarts, norm=norm)
