"""Which settings of a check its claims are about."""

from collections.abc import Sequence

from analysis.user_function.sentences import OF_A_BARRIER, OFF_CENTRE
from stabdeq.errors import ConfigError

OF_RATES = {"alpha": ("decay",), "kappa": ("decrease",)}
BESIDE_A_BARRIER = {"initial": ("initial",), "unsafe": ("unsafe",), "inner_radius": OFF_CENTRE}


def require_used(names: Sequence[str], settings: dict[str, object]) -> None:
    """Raise ConfigError where one of ``settings`` is given that none of the claims ``names`` is about."""
    given = {setting for setting, value in settings.items() if value is not None}
    if "disturbance" in given and "uncertain" not in given:
        raise ConfigError(
            "disturbance is the box of d in dynamics f(z, d): give uncertain in place of dynamics or step"
        )
    of_a_barrier = bool((set(names) | given) & set(OF_A_BARRIER))
    if given & {"sublevel", "from_level"} and set(names) & set(OF_A_BARRIER):
        raise ConfigError("a barrier is judged on a ball or a box: give radius or box, not sublevel or from_level")
    if of_a_barrier and "uncertain" in given:
        raise ConfigError("a barrier is judged along dynamics without disturbances: give f in place of uncertain")
    for setting, of in (OF_RATES | (BESIDE_A_BARRIER if of_a_barrier else {})).items():
        if setting in given and not set(of) & set(names):
            raise ConfigError(
                f"{setting} is for the claim {' or '.join(of)}, and judged are {', '.join(names)}: name it in claims"
            )
