"""Which settings of a check states on a set {h = 0} take."""

from collections.abc import Sequence

from analysis.user_function.sentences import GLOBAL, OF_A_BARRIER
from stabdeq.errors import ConfigError

# A convex combination leaves the set, growth is of all states, and attraction is shown where the equilibrium is isolated.
NOT_JUDGED = ("proper", "convex", "attraction", GLOBAL, *OF_A_BARRIER)
EXCLUDED = ("uncertain", "initial", "unsafe", "figure", "proof")


def require_judged_on_a_set(names: Sequence[str], settings: dict[str, object]) -> None:
    """Raise ConfigError where ``on`` is among the ``settings``, and a claim is named or another given that it excludes."""
    if settings["on"] is None:
        return
    for name in names:
        if name in NOT_JUDGED:
            raise ConfigError(f"the claim {name!r} is not judged on a set: leave out on, or that claim")
    if settings["sublevel"] == "max":
        raise ConfigError("on excludes sublevel 'max': give sublevel a number")
    if settings["proof"] is not None:
        raise ConfigError("a proof on a set cannot be written to a file yet: leave out proof, or on")
    for other in EXCLUDED:
        if settings[other] is not None:
            raise ConfigError(f"on excludes {other}: give one of both")
    if settings["sublevel"] is not None and settings["radius"] is None and settings["box"] is None:
        raise ConfigError(
            "on needs a box, or a radius, beside sublevel: off the set, V may be low however far from the centre"
        )
