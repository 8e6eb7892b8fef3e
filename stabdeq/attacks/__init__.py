"""Adversarial attacks on any classifier of images in [0, 1], and what a model gets right under them."""

from stabdeq.attacks.ascent import paper_steps, schedule
from stabdeq.attacks.ball import NormName
from stabdeq.attacks.evaluate import Outcome, evaluate
from stabdeq.attacks.ifgsm import IFGSM
from stabdeq.attacks.pgd import PGD
from stabdeq.attacks.threat_model import Adversarial, Attack
from stabdeq.errors import ConfigError, closest

__all__ = [
    "ATTACKS",
    "IFGSM",
    "PGD",
    "Adversarial",
    "Attack",
    "Outcome",
    "build_attack",
    "evaluate",
    "paper_steps",
    "schedule",
]

ATTACKS = ("ifgsm", "pgd")


def build_attack(
    name: str, *, eps: float, steps: int | None = None, restarts: int = 1, norm: NormName = "linf"
) -> IFGSM | PGD:
    """Return the attack ``name`` with the usual step size, and the paper's number of steps where ``steps`` is None.

    Raises ConfigError where the name is unknown or a setting is out of range or does not apply.
    """
    if name == "pgd":
        return PGD(eps=eps, steps=steps, restarts=restarts, norm=norm)
    if name != "ifgsm":
        raise ConfigError(f"unknown attack {name!r}: {closest(name, ATTACKS)}")
    if restarts != 1:
        raise ConfigError(f"restarts = {restarts}: I-FGSM always starts at the image itself, only pgd restarts")
    if norm != "linf":
        raise ConfigError(f"norm = {norm}: I-FGSM takes signed steps, in the l-infinity norm alone; use pgd")
    return IFGSM(eps=eps, steps=steps)
