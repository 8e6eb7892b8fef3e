"""The signs that refute: what V and the dynamics exactly are at a state, in ball arithmetic, where both can be read."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flint import arb
from torch import Tensor, fx

from analysis.evidence.regions import Ball, Box
from analysis.proofs.balls import JUMPING, Balls, evaluate, exact, sign_of

# Relative lengths of segments across {V = level}: a state that rays find lies to rounding on it.
ACROSS = [2.0**exponent for exponent in (-46, -42, -38, -34)]


@dataclass(frozen=True)
class Certainty:
    """V, and the dynamics where they are given, as graphs of one state (1, n) that can be evaluated in ball arithmetic.

    The dynamics are the velocity, or the next state where they move ``in_steps``; ``constraint`` is h of a set {h = 0}. Each function
    returns the sign of a quantity at ``state`` (n,), float64 numbers that are meant exactly: None where it cannot be told; and the
    quantity about. ``place`` may have another state in its stead, as balls (n,) at the precision set, NaN where there is none.
    """

    value: fx.GraphModule
    motion: fx.GraphModule | None
    in_steps: bool = False
    constraint: fx.GraphModule | None = None
    place: Callable[[Tensor], np.ndarray] = exact

    @property
    def is_continuous(self) -> bool:
        """Whether no operation of the graphs can jump: neither a comparison nor a sign."""
        graphs = [graph for graph in (self.value, self.motion, self.constraint) if graph is not None]
        return not any(node.target in JUMPING for graph in graphs for node in graph.graph.nodes)

    def slope_of_value(self, state: Tensor, ray: Tensor) -> float:
        """Return the derivative of V at ``state`` (n,) along ``ray`` (n,), NaN where there is none."""
        return float(_number(evaluate(self.value, exact(state), exact(ray)), slope=True).mid())

    def of_value(self, state: Tensor) -> tuple[int | None, float]:
        """V(z)."""
        return _certain(lambda: self._value(self.place(state)))

    def of_speed(self, state: Tensor) -> tuple[int | None, float]:
        """||f(z)||^2; in steps, of the way from z to the next state."""
        rest = self.in_steps

        def speed() -> arb:
            z = self.place(state)
            moved = self._moved(z) - z if rest else self._moved(z)
            return _total(moved * moved)  # a power of a ball that holds 0 is not known

        return _certain(speed)

    def of_excess(self, state: Tensor, rate: float) -> tuple[int | None, float]:
        """V-dot + ``rate`` V, V-dot being the derivative of V along f(z), undefined where V has none.

        In steps, V(z+) - (1 - ``rate``) V(z).
        """

        def excess() -> arb:
            z = self.place(state)
            if self.in_steps:
                return self._value(self._moved(z)) - (1 - arb(rate)) * self._value(z)
            along = evaluate(self.value, z, self._moved(z))
            return _number(along, slope=True) + (arb(rate) * _number(along) if rate else arb(0))

        return _certain(excess)

    def of_excess_on_level(self, state: Tensor, centre: Tensor, level: float) -> tuple[int | None, float]:
        """V-dot where V is ``level`` next to ``state``: on a segment, along the ray from ``centre``, that V surely crosses it on."""
        _, about = self.of_excess(state, 0.0)
        for length in ACROSS:

            def at(part: arb) -> np.ndarray:
                return exact(centre) + part * (exact(state) - exact(centre))

            def excess(length: float = length) -> arb:
                z = at(arb(1, length))
                return _number(evaluate(self.value, z, self._moved(z)), slope=True)

            begin, end = (
                sign_of(lambda part=part: self._value(at(arb(part))) - arb(level)) for part in (1 - length, 1 + length)
            )
            if begin is not None and begin <= 0 and end == 1 and (sign := sign_of(excess)) is not None:
                return sign, about
        return None, about

    def is_between(self, state: Tensor, lower: float, level: float) -> bool:
        """Return whether surely ``lower`` <= V <= ``level``."""
        if lower > -math.inf and sign_of(lambda: self._value(self.place(state)) - arb(lower)) not in (0, 1):
            return False
        return level == math.inf or sign_of(lambda: self._value(self.place(state)) - arb(level)) in (-1, 0)

    def of_leaving(self, state: Tensor, base: Ball | Box, level: float) -> tuple[int | None, float]:
        """By how much the next state is beyond ``base``, or V beyond ``level`` there: the largest of these."""

        def beyond() -> list[arb]:
            after = self._moved(self.place(state))
            offset = after - exact(base.centre)
            if isinstance(base, Ball):
                found = [_total(offset * offset) - arb(base.radius) ** 2]
            else:
                found = [*(after - exact(base.high)).tolist(), *(exact(base.low) - after).tolist()]
            return found + ([] if level == math.inf else [self._value(after) - arb(level)])

        signs = [_certain(lambda place=place: beyond()[place]) for place in range(len(beyond()))]
        if any(sign is not None and sign > 0 for sign, _ in signs):
            return 1, max(number for sign, number in signs if sign is not None and sign > 0)
        is_open = any(sign is None for sign, _ in signs)
        return None if is_open else max(sign for sign, _ in signs if sign is not None), max(n for _, n in signs)

    def of_bulge(self, pair: Tensor) -> tuple[int | None, float]:
        """V((a + b) / 2) - (V(a) + V(b)) / 2 for the two states of ``pair`` (2 n,)."""
        a, b = (exact(state) for state in pair.chunk(2))
        return _certain(lambda: self._value((a + b) / 2) - (self._value(a) + self._value(b)) / 2)

    def _moved(self, z: np.ndarray) -> np.ndarray:
        assert self.motion is not None
        return evaluate(self.motion, z).value

    def _value(self, z: np.ndarray) -> arb:
        return _number(evaluate(self.value, z))


def _certain(number: Callable[[], arb]) -> tuple[int | None, float]:
    sign = sign_of(number)
    return sign, float(number().mid())


def _number(balls: Balls, *, slope: bool = False) -> arb:
    """Return the one number of ``balls``, or its derivative."""
    array = balls.slope if slope else balls.value
    return arb(0) if array is None else array.reshape(-1)[0]


def _total(numbers: np.ndarray) -> arb:
    return sum(numbers.reshape(-1), start=arb(0))
