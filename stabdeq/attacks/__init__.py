"""Adversarial attacks on any classifier of images in [0, 1], and what a model gets right under them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from stabdeq.attacks.apgd import APGD
from stabdeq.attacks.ascent import paper_steps, schedule
from stabdeq.attacks.ball import NormName
from stabdeq.attacks.clamping_fault import ClampNormalised
from stabdeq.attacks.evaluate import Outcome, evaluate
from stabdeq.attacks.external import ExternalAttack
from stabdeq.attacks.honest import honest
from stabdeq.attacks.ifgsm import IFGSM
from stabdeq.attacks.intermediate import Intermediate, Unrolled
from stabdeq.attacks.pgd import PGD
from stabdeq.attacks.square import Square
from stabdeq.attacks.threat_model import Adversarial, Attack
from stabdeq.attacks.worst import Worst
from stabdeq.errors import ConfigError, closest

__all__ = [
    "APGD",
    "ATTACKS",
    "IFGSM",
    "PGD",
    "Adversarial",
    "Attack",
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
]

_RESTARTING: dict[str, Callable[..., Attack]] = {
    "pgd": PGD,
    "apgd-ce": APGD,
    "apgd-t": partial(APGD, loss="targeted"),
    "square": Square,
    "honest": honest,
}
ATTACKS = ("ifgsm", "intermediate", *_RESTARTING)


def build_attack(
    name: str, *, eps: float, steps: int | None = None, restarts: int = 1, norm: NormName = "linf"
) -> Attack:
    """Return the attack ``name`` with the usual step size, and its own number of steps where ``steps`` is None.

    ``name`` is ``ifgsm``, ``pgd``, ``apgd-ce``, ``apgd-t``, ``square``, ``intermediate`` or ``honest``; ``eps`` is in pixels of
    [0, 1]. Raises ConfigError where the name is unknown or a setting is out of range or does not apply.
    """
    if name not in ATTACKS:
        raise ConfigError(f"unknown attack {name!r}: {closest(name, ATTACKS)}")
    given: dict[str, Any] = {} if steps is None else {"steps": steps}
    if name in _RESTARTING:
        return _RESTARTING[name](eps=eps, norm=norm, restarts=restarts, **given)
    if restarts != 1:
        raise ConfigError(f"restarts = {restarts}: {name} has none, only {', '.join(_RESTARTING)} restart")
    if name == "intermediate":
        return Intermediate(eps=eps, norm=norm, **given)
    if norm != "linf":
        raise ConfigError(f"norm = {norm}: I-FGSM takes signed steps, in the l-infinity norm alone; use pgd")
    return IFGSM(eps=eps, steps=steps)
