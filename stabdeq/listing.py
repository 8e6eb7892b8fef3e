"""What has a name that a command takes: recipes, kinds, checks, attacks, solvers and claims, each with a sentence.

Nothing here imports torch, or a package that brings one of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from stabdeq.registry import ATTACKS, SOLVERS, Registry, located

GroupName = Literal["recipes", "kinds", "checks", "attacks", "solvers", "claims"]

ATTACK_SENTENCES = {
    "ifgsm": "signed gradient steps from the image itself (Kurakin et al. 2017), as in the paper",
    "intermediate": "PGD through the intermediate states of an equilibrium model (Yang, Pang and Liu 2023)",
    "pgd": "gradient steps from random points of the ball (Madry et al. 2018), as in the paper",
    "apgd-ce": "PGD that chooses its own step size, on the cross-entropy (Croce and Hein 2020)",
    "apgd-t": "PGD that chooses its own step size, towards each of the likeliest other classes (Croce and Hein 2020)",
    "square": "a random search that needs no gradients (Andriushchenko et al. 2020)",
    "honest": "all but ifgsm; the worst counts, image by image: the figure to report",
}
SOLVER_SENTENCES = {
    "anderson": "Anderson acceleration over the last steps: the paper's, and the default",
    "broyden": "Broyden's method, from a Jacobian that is built up as it goes",
    "picard": "the plain iteration, which converges where the cell contracts",
    "squarem": "two plain steps and a jump along their line: as cheap as picard, for slow cells without oscillation",
}


@dataclass(frozen=True)
class Row:
    """A ``name`` as a command takes it, or as a report has it, and what it stands for."""

    name: str
    sentence: str


def listed(group: GroupName | None = None) -> dict[GroupName, list[Row]]:
    """Return the rows of each group, or of ``group`` alone."""
    return {name: list(GROUPS[name]()) for name in ([group] if group else GROUPS)}


def _recipes() -> Iterable[Row]:
    sentence = located("train.recipe:recipe_sentence")
    return [Row(name, sentence(name)) for name in located("train.recipe:recipe_names")()]


def _kinds() -> Iterable[Row]:
    return [Row(name, kind.summary) for name, kind in located("stabdeq.config.kinds:KINDS").items()]


def _checks() -> Iterable[Row]:
    checks = located("analysis.findings.catalogue:CHECKS")
    return _registered(checks, lambda name: checks[name].question)


def _attacks() -> Iterable[Row]:
    return _registered(ATTACKS, ATTACK_SENTENCES.__getitem__)


def _solvers() -> Iterable[Row]:
    return _registered(SOLVERS, SOLVER_SENTENCES.__getitem__)


def _registered(registry: Registry, sentence: Callable[[str], str]) -> Iterable[Row]:
    own = set(registry.own_names())
    return [
        Row(name, sentence(name) if name in own else "registered by a package that is installed") for name in registry
    ]


def _claims() -> Iterable[Row]:
    """Return the claims by the check that judges them, and after the audit's those of ``certify`` and ``check``."""
    checks = located("analysis.findings.catalogue:CHECKS")
    judged = {name: checks[name].claims for name in checks.own_names()}
    judged |= {"certify": located("analysis.findings.rows:CERTIFIED")}
    judged |= {"check": located("analysis.findings.rows:OF_A_FUNCTION")}
    return [Row(f"{by}: {claim.name}", claim.holds) for by, claims in judged.items() for claim in claims]


GROUPS: dict[GroupName, Callable[[], Iterable[Row]]] = {
    "recipes": _recipes,
    "kinds": _kinds,
    "checks": _checks,
    "attacks": _attacks,
    "solvers": _solvers,
    "claims": _claims,
}
