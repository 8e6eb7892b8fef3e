"""The radius of a ball of images: in which norm, and what it may be. Recipes are read by it, so that it imports no torch."""

import math
from typing import Literal

from stabdeq.errors import ConfigError

NormName = Literal["linf", "l2"]


def check_eps(eps: float, norm: NormName = "linf") -> None:
    """Raise ConfigError unless ``eps`` is a radius in pixels of [0, 1]: at most 1 in the l-infinity norm."""
    if isinstance(eps, bool) or not isinstance(eps, int | float):
        raise ConfigError(f"eps = {eps!r}: expected a number from 0 to 1, such as 8 / 255")
    if norm == "linf" and 1 < eps <= 255:
        raise ConfigError(
            f"eps = {eps:g} is above 1, and eps is in pixels of [0, 1]: for {eps:g} of 255 levels give {eps:g}/255"
        )
    if not 0 <= eps <= (1 if norm == "linf" else math.inf) or eps == math.inf:
        bound = "from 0 to 1, in pixels of [0, 1], such as 8/255" if norm == "linf" else "from 0 up, such as 0.3"
        raise ConfigError(f"eps = {eps:g}: expected a number {bound}")
