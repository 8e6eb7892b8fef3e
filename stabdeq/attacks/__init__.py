"""Adversarial attacks on any classifier of images in [0, 1], and what a model gets right under them."""

from stabdeq.attacks.apgd import APGD
from stabdeq.attacks.ascent import paper_steps, schedule, usual_step_size
from stabdeq.attacks.clamping_fault import ClampNormalised
from stabdeq.attacks.evaluate import Outcome, evaluate
from stabdeq.attacks.external import ExternalAttack
from stabdeq.attacks.honest import honest
from stabdeq.attacks.ifgsm import IFGSM
from stabdeq.attacks.intermediate import Intermediate, Unrolled
from stabdeq.attacks.pgd import PGD
from stabdeq.attacks.square import Square
from stabdeq.attacks.threat_model import Adversarial, Attack, BuildAttack
from stabdeq.attacks.worst import Worst
from stabdeq.radius import NormName
from stabdeq.registry import ATTACKS

__all__ = [
    "APGD",
    "IFGSM",
    "PGD",
    "Adversarial",
    "Attack",
    "BuildAttack",
    "ClampNormalised",
    "ExternalAttack",
    "Intermediate",
    "Outcome",
    "Square",
    "Unrolled",
    "Worst",
    "build_attack",
    "evaluate",
    "honest",
    "paper_steps",
    "schedule",
    "usual_step_size",
]


def build_attack(
    name: str, *, eps: float, steps: int | None = None, restarts: int = 1, norm: NormName = "linf"
) -> Attack:
    """Return the attack ``name`` with the usual step size, and its own number of steps where ``steps`` is None.

    ``name`` is ``ifgsm``, ``pgd``, ``apgd-ce``, ``apgd-t``, ``square``, ``intermediate``, ``honest``, or one that is registered;
    ``eps`` is in pixels of [0, 1]. Raises ConfigError where the name is unknown or a setting is out of range or does not apply.
    """
    return ATTACKS[name](eps=eps, norm=norm, steps=steps, restarts=restarts)
