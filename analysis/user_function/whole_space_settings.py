"""Which settings of a check a claim about the whole space takes."""

from collections.abc import Sequence

from analysis.user_function.sentences import GLOBAL
from stabdeq.errors import ConfigError

EXCLUDED = ("sublevel", "from_level", "inner_radius")


def require_whole_space(names: Sequence[str], settings: dict[str, object]) -> None:
    """Raise ConfigError where the claim of the whole space is named, and one of ``settings`` is given that leaves states out."""
    given = [setting for setting in EXCLUDED if settings[setting] is not None]
    if GLOBAL in names and given:
        raise ConfigError(f"the claim {GLOBAL!r} is of all states: leave out {' and '.join(given)}, or that claim")
