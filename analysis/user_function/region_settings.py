"""The states that ``stabdeq.check`` judges, from its arguments: a ball or a box, and the part of it between levels of V."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from analysis.evidence.regions import Ball, Box, Region
from analysis.evidence.sublevel import Sublevel
from analysis.user_function.function import ForeignFunction
from analysis.user_function.levels import sublevel_radius
from stabdeq.errors import ConfigError

DEFAULT_RADIUS = 1.0


def coordinates(centre: float | Sequence[float], dim: int) -> list[float]:
    """Return the ``dim`` coordinates of the centre, given as that many numbers, or as one that stands for all."""
    numbers = [float(centre)] if isinstance(centre, int | float) else [float(number) for number in centre]
    if not all(abs(number) < float("inf") for number in numbers):
        raise ConfigError(f"centre: expected finite numbers, got {numbers}")
    if len(numbers) not in (1, dim):
        raise ConfigError(f"centre: expected 1 or {dim} numbers, got {len(numbers)}")
    return numbers if len(numbers) == dim else numbers * dim


def sides(box: tuple[float, float] | Sequence[tuple[float, float]] | None) -> list[list[float]] | None:
    """Return a box as pairs of low and high, one for all coordinates or one for each; None of None."""
    return None if box is None else torch.as_tensor(box, dtype=torch.float64).reshape(-1, 2).tolist()


def ball_or_box(
    centre: Tensor, radius: float | None, box: tuple[float, float] | Sequence[tuple[float, float]] | None
) -> Ball | Box:
    """Return the ball of ``radius``, by default 1, around the ``centre`` (n,), or the ``box`` of a pair for all or for each coordinate."""
    if box is None:
        return Ball(centre, radius if radius is not None else DEFAULT_RADIUS)
    pairs = torch.tensor(sides(box), dtype=torch.float64)
    if len(pairs) not in (1, len(centre)):
        raise ConfigError(f"box: expected 1 or {len(centre)} pairs of low and high, got {len(pairs)}")
    low, high = pairs.expand(len(centre), 2).clone().unbind(1)
    if not bool(((low <= centre) & (centre <= high) & (low < high) & (high - low).isfinite()).all()):
        raise ConfigError(f"box: expected low < high, finite, with the centre between them, got {pairs.tolist()}")
    return Box(centre, low, high)


def region_between(
    base: Ball | Box,
    is_default: bool,
    level: float | None,
    lower: float | None,
    value: ForeignFunction,
    *,
    sought: bool,
) -> Region:
    """Return the part of ``base`` between the levels of V; where the base is but a default, as far as {V <= ``level``} reaches.

    Where the level is ``sought`` besides, so is a base that holds any of its states.
    """
    if level is None and lower is None:
        return base
    if level is not None and is_default:
        base = Ball(base.centre, sublevel_radius(value, base.centre, level))
    region = Sublevel(base, value, math.inf if level is None else level, -math.inf if lower is None else lower)
    at_centre = float(value(base.centre[None]).detach())
    if lower is not None and not at_centre < lower:
        raise ConfigError(
            f"from_level must exceed V at the centre, {at_centre:g}, so that what is left out surrounds the centre; got {lower:g}"
        )
    if lower is not None and not (sought and is_default) and not _holds_states(region):
        raise ConfigError(f"no state was found of {region.words}: give a smaller from_level or a larger region")
    return region


def _holds_states(region: Sublevel) -> bool:
    """Return whether one of 256 states drawn from the region belongs to it."""
    return bool(region.contains(region.sample(256, torch.Generator().manual_seed(0))).any())
