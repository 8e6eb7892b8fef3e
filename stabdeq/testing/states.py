"""Hypothesis strategies for states: in balls and boxes, at all distances, between levels of V, next to the centre, along trajectories."""

import math
from collections.abc import Sequence

import torch
from hypothesis import strategies
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from stabdeq.constraint import Constraint, distance, onto_set
from stabdeq.errors import ConfigError
from stabdeq.testing.functions import Field, Value, checked_constraint, require_numbers, value_of
from stabdeq.testing.rays import beyond, leaving
from stabdeq.testing.runge_kutta import integrate
from stabdeq.testing.tensors import made_from, ranges_of, require_positive, require_sizes, tensors

# Coordinates below this part of the radius are 0: the square of a smaller one, or its fourth power, may underflow to 0, and a
# strict claim would then fail for no fault of the function. ``states_near_centre`` begins here.
NEAREST = 1e-9
ON = 1e-12  # of the box's size: as far from a set a state may be by rounding


def states_in_ball(
    dim: int, *, radius: float = 1.0, centre: Tensor | None = None, batch: int = 1
) -> SearchStrategy[Tensor]:
    """Return a strategy for states (batch, dim), float64, within ``radius`` of ``centre`` (dim,), by default 0.

    It shrinks towards the centre, to few and round coordinates. Raises ConfigError where an argument is out of range, as
    all strategies here do.
    """
    origin = _centre(dim, centre, batch)
    require_positive("radius", radius)

    def placed(cube: Tensor) -> Tensor:
        # Those in the cube's corners move onto the sphere.
        offset = _without_dust(cube, radius)
        return origin + offset / (offset.norm(dim=1, keepdim=True) / radius).clamp(min=1)

    return made_from(tensors((batch, dim), -radius, radius), placed)


def states_in_box(
    dim: int, low: float | Sequence[float], high: float | Sequence[float], *, batch: int = 1
) -> SearchStrategy[Tensor]:
    """Return a strategy for states (batch, dim), float64, with every coordinate between ``low`` and ``high``.

    Each is a number for all coordinates, or as many as there are.
    """
    require_sizes(dim, batch)
    columns: dict[tuple[float, float], list[int]] = {}
    for column, ends in enumerate(ranges_of(dim, low, high)):
        columns.setdefault(ends, []).append(column)
    drawn = strategies.tuples(*(tensors((batch, len(those)), *ends) for ends, those in columns.items()))

    def placed(parts: tuple[Tensor, ...]) -> Tensor:
        states = torch.empty(batch, dim, dtype=torch.float64)
        for ((lowest, highest), those), part in zip(columns.items(), parts, strict=True):
            states[:, those] = _without_dust(part, highest - lowest) if lowest <= 0 <= highest else part
        return states

    return made_from(drawn, placed)


def states_on_shells(
    dim: int,
    *,
    smallest: float = 1e-6,
    largest: float = 1.0,
    centre: Tensor | None = None,
    batch: int = 1,
) -> SearchStrategy[Tensor]:
    """Return a strategy for states (batch, dim), float64, at log-uniform distances from ``centre`` (dim,)."""
    origin = _centre(dim, centre, batch)
    require_positive("smallest", smallest)
    if not smallest <= largest < math.inf:
        raise ConfigError(f"expected smallest <= largest < inf, got {smallest} and {largest}")

    def placed(drawn: tuple[Tensor, Tensor]) -> Tensor:
        cube, exponents = drawn
        return origin + _directions(cube) * 10**exponents

    exponents = tensors((batch, 1), math.log10(smallest), math.log10(largest))
    return made_from(strategies.tuples(tensors((batch, dim), -1, 1), exponents), placed)


def states_between_levels(
    V: Value, dim: int, low: float, high: float, *, centre: Tensor | None = None, batch: int = 1
) -> SearchStrategy[Tensor]:
    """Return a strategy for states (batch, dim), float64, with ``low`` <= V <= ``high``, on rays from ``centre`` (dim,).

    A level is drawn, and found on the ray by bisection; states for which that fails are not drawn, as where V never exceeds
    ``low`` on the ray. It shrinks to the lowest level. V is (B, n) -> (B,). Raises ConfigError where V(c) > ``low``.
    """
    origin = _centre(dim, centre, batch)
    at_centre = float(value_of(V, origin[None]))
    if not at_centre <= low < high < math.inf:
        raise ConfigError(f"expected V at the centre, {at_centre:g}, <= low < high < inf, got {low:g} and {high:g}")

    def placed(drawn: tuple[Tensor, Tensor]) -> Tensor:
        cube, fraction = drawn
        level = low + fraction[:, 0] * (high - low)
        return leaving(V, beyond(V, origin + _directions(cube), origin, high), origin, level)

    def is_between(states: Tensor) -> bool:
        value = value_of(V, states)
        return bool(((low <= value) & (value <= high)).all())

    drawn = strategies.tuples(tensors((batch, dim), -1, 1), tensors((batch, 1), 0, 1))
    return made_from(drawn, placed).filter(is_between)


def states_on_set(
    h: Constraint, dim: int, low: float | Sequence[float], high: float | Sequence[float], *, batch: int = 1
) -> SearchStrategy[Tensor]:
    """Return a strategy for states (batch, dim), float64, with h = 0 to rounding and every coordinate between ``low`` and ``high``.

    h is (B, dim) -> (B,) or (B, k), differentiable by autograd, such as sin^2 + cos^2 - 1. States of the box are drawn and moved along its
    slope; those that do not arrive, or leave the box, are not drawn. Raises ConfigError, where states are drawn too, where h is no such
    function, or NaN at a state of the box.
    """
    ends = torch.tensor(ranges_of(dim, low, high), dtype=torch.float64)
    size = float(ends.abs().amax(1).norm())
    checked = checked_constraint(h)

    def moved(states: Tensor) -> Tensor:
        require_numbers(h, checked, states)
        return onto_set(checked, states)

    def is_on(states: Tensor) -> bool:
        inside = ((states >= ends[:, 0]) & (states <= ends[:, 1])).all()
        return bool(inside & (distance(checked, states) <= ON * size).all())

    return made_from(states_in_box(dim, low, high, batch=batch), moved).filter(is_on)


def states_near_centre(
    dim: int, *, radius: float = 1.0, centre: Tensor | None = None, batch: int = 1
) -> SearchStrategy[Tensor]:
    """Return a strategy for states between a billionth and a thousandth of ``radius`` from ``centre``, (batch, dim)."""
    require_positive("radius", radius)
    smallest, largest = NEAREST * radius, 1e-3 * radius
    return states_on_shells(dim, smallest=smallest, largest=largest, centre=centre, batch=batch)


def states_along_trajectories(
    F: Field, starts: SearchStrategy[Tensor], *, time: float = 1.0, steps: int = 64
) -> SearchStrategy[Tensor]:
    """Return a strategy for the states (B, n) that z' = F(z) reaches from ``starts`` (B, n) by some moment until ``time``.

    ``steps`` Runge-Kutta steps lead to ``time``, and a number of them is taken. It shrinks towards the start. Trajectories
    that leave the finite numbers are not drawn.
    """
    require_positive("time", time)
    require_sizes(steps)
    drawn = strategies.tuples(starts, strategies.integers(0, steps))
    reached = made_from(drawn, lambda start: integrate(F, start[0], time / steps, start[1]))
    return reached.filter(lambda states: bool(states.isfinite().all()))


def _directions(cube: Tensor) -> Tensor:
    """Return unit vectors (B, n) along the rows of ``cube`` (B, n)."""
    first = torch.zeros_like(cube)
    first[:, 0] = 1
    length = cube.norm(dim=1, keepdim=True)
    # Too short a vector to have a direction in all its digits gives way to the first axis.
    return torch.where(length < 1e-3, first, cube / length.clamp(min=1e-3))


def _without_dust(states: Tensor, size: float) -> Tensor:
    return torch.where(states.abs() < NEAREST * size, 0, states)


def _centre(dim: int, centre: Tensor | None, batch: int) -> Tensor:
    require_sizes(dim, batch)
    if centre is None:
        return torch.zeros(dim, dtype=torch.float64)
    if tuple(centre.shape) != (dim,) or not bool(centre.isfinite().all()):
        raise ConfigError(f"expected a finite centre of shape ({dim},), got shape {tuple(centre.shape)}")
    return centre.double()
