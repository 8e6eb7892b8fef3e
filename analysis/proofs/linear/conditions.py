"""Conditions on the state, and all that is known by its interval alone: operations on jets, evaluated where boxes are known."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from analysis.proofs.intervals.interval import Interval
from analysis.proofs.intervals.jets import Jet


@dataclass(frozen=True)
class Numbers:
    """A tensor of real numbers that depend on the state: the result of the step at ``place``, in this ``shape``."""

    place: int
    shape: torch.Size


@dataclass(frozen=True, eq=False)
class Condition:
    """Truths that depend on the state: an operation on jets and truths, given as ``arguments`` to be found on boxes."""

    operation: Callable[..., Any]
    arguments: tuple[Any, ...]
    shape: torch.Size


def reader(condition: Condition) -> tuple[tuple[int, ...], Callable[[list[Interval]], Any]]:
    """Return the steps that a condition depends on, and a function from these steps' ranges (m, B) to what it is."""
    found: dict[int, None] = {}

    def walk(argument: Any) -> None:
        if isinstance(argument, Numbers):
            found[argument.place] = None
        elif isinstance(argument, Condition):
            walk(argument.arguments)
        elif isinstance(argument, list | tuple):
            for one in argument:
                walk(one)
        elif isinstance(argument, dict):
            walk(list(argument.values()))

    walk(condition)
    sources = tuple(found)

    def evaluate(ranges: list[Interval]) -> Any:
        by_place = dict(zip(sources, ranges, strict=True))

        def resolved(argument: Any) -> Any:
            if isinstance(argument, Numbers):
                return Jet.flat(_apart(by_place[argument.place], argument.shape))
            if isinstance(argument, Condition):
                args, options = resolved(argument.arguments)
                return argument.operation(*args, **options)
            if isinstance(argument, list | tuple):
                return type(argument)([resolved(one) for one in argument])
            if isinstance(argument, dict):
                return {name: resolved(one) for name, one in argument.items()}
            return argument

        return resolved(condition)

    return sources, evaluate


def _apart(value: Interval, shape: torch.Size) -> Interval:
    """Return an interval (m, B) as (B, *shape), a little wider: numbers that touch are not taken to be apart.

    At a kink, where they touch, a function has more than one generalised gradient; its box is to tell of all.
    """
    low, high = (bound.mT.reshape(-1, *shape) for bound in (value.low, value.high))
    return Interval(
        torch.nextafter(low, torch.full_like(low, -math.inf)), torch.nextafter(high, torch.full_like(high, math.inf))
    )
