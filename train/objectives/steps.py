"""The settings of the steps that craft an image, which have usual values in the l-infinity norm alone."""

from collections.abc import Mapping
from typing import Any

from pydantic_core import ArgsKwargs

from stabdeq.errors import ConfigError


def require_l2_steps(values: Any) -> Any:
    """Return ``values``, the settings of an objective; raise ConfigError where the norm is l2 and no radius or step is given."""
    given = values.kwargs if isinstance(values, ArgsKwargs) else values
    if isinstance(given, Mapping) and given.get("norm") == "l2" and not {"eps", "step_size"} <= given.keys():
        raise ConfigError(
            "objective.norm = l2 needs objective.eps and objective.step_size, such as 0.5 and 0.1: the usual ones are "
            "for the l-infinity norm"
        )
    return values
