"""Which settings of a check a barrier takes."""

from collections.abc import Sequence

from analysis.user_function.sentences import OF_A_BARRIER, OFF_CENTRE
from stabdeq.errors import ConfigError


def require_used(names: Sequence[str], settings: dict[str, object]) -> None:
    """Raise ConfigError where a barrier is judged, and one of ``settings`` is given that the claims are not about."""
    given = {setting for setting, value in settings.items() if value is not None}
    if not (set(names) | given) & set(OF_A_BARRIER):
        return
    if given & {"sublevel", "from_level"} and set(names) & set(OF_A_BARRIER):
        raise ConfigError("a barrier is judged on a ball or a box: give radius or box, not sublevel or from_level")
    if "uncertain" in given:
        raise ConfigError("a barrier is judged along dynamics without disturbances: give f in place of uncertain")
    used = {
        "initial": ("initial",),
        "unsafe": ("unsafe",),
        "alpha": ("decay",),
        "kappa": ("decrease",),
        "inner_radius": OFF_CENTRE,
    }
    for setting, of in used.items():
        if setting in given and not set(of) & set(names):
            raise ConfigError(
                f"{setting} is for the claim {' or '.join(of)}, and judged are {', '.join(names)}: name it in claims"
            )
