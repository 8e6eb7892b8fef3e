"""The signs that refute: what V and the dynamics exactly are at a state, in ball arithmetic, where both can be read."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flint import arb
from torch import Tensor, fx

from analysis.proofs.balls import JUMPING, Balls, evaluate, exact, sign_of


@dataclass(frozen=True)
class Certainty:
    """V, and the dynamics where they are given, as graphs of one state (1, n) that can be evaluated in ball arithmetic.

    Each function returns the sign of a quantity at ``state`` (n,), float64 numbers that are meant exactly: None where it cannot be
    told; and the quantity about.
    """

    value: fx.GraphModule
    velocity: fx.GraphModule | None

    @property
    def is_continuous(self) -> bool:
        """Whether no operation of either graph can jump: neither a comparison nor a sign."""
        graphs = [graph for graph in (self.value, self.velocity) if graph is not None]
        return not any(node.target in JUMPING for graph in graphs for node in graph.graph.nodes)

    def slope_of_value(self, state: Tensor, ray: Tensor) -> float:
        """Return the derivative of V at ``state`` (n,) along ``ray`` (n,), NaN where there is none."""
        return float(_number(evaluate(self.value, exact(state), exact(ray)), slope=True).mid())

    def of_value(self, state: Tensor) -> tuple[int | None, float]:
        """V(z)."""
        return _certain(lambda: self._value(exact(state)))

    def of_speed(self, state: Tensor) -> tuple[int | None, float]:
        """||f(z)||^2."""
        assert self.velocity is not None
        velocity = self.velocity
        return _certain(lambda: _total(evaluate(velocity, exact(state)).value ** 2))

    def of_excess(self, state: Tensor, alpha: float) -> tuple[int | None, float]:
        """V-dot + ``alpha`` V, V-dot being the derivative of V along f(z); undefined where V has no derivative."""
        assert self.velocity is not None
        velocity = self.velocity

        def excess() -> arb:
            z = exact(state)
            along = evaluate(self.value, z, evaluate(velocity, z).value)
            return _number(along, slope=True) + (arb(alpha) * _number(along) if alpha else arb(0))

        return _certain(excess)

    def of_bulge(self, pair: Tensor) -> tuple[int | None, float]:
        """V((a + b) / 2) - (V(a) + V(b)) / 2 for the two states of ``pair`` (2 n,)."""
        a, b = (exact(state) for state in pair.chunk(2))
        return _certain(lambda: self._value((a + b) / 2) - (self._value(a) + self._value(b)) / 2)

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
