"""The states of a ball or a box at which a function B is 0, found between states at which it has different signs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.evidence.falsifier import falsify
from analysis.evidence.regions import Ball, Box
from stabdeq.lyapunov.claims import Violation

# A segment halved so often is as short as the spacing of its numbers.
HALVINGS = 53
DRAWN, CLIMBS = 4096, 32
ANCHORS = 256
NEAR = 1e-9  # what B still is by rounding, of its slope times the radius
BATCH = 2**20  # numbers in a table of distances
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ZeroSet:
    """The states of ``base`` with B = 0.

    ``value`` maps states (B, n) to B (B,), ``gradient`` to its gradient (B, n). ``below`` (k, n) are states with B <= 0, ``above`` (m, n)
    ones with B > 0: on the segment from one to the other B is 0 somewhere, if it does not jump. ``size`` is a typical |B|. States
    within ``inner`` of the centre do not belong to it.
    """

    base: Ball | Box
    value: Function
    gradient: Function
    below: Tensor
    above: Tensor
    size: float
    inner: float = 0.0
    drawn: str = "on segments from states drawn uniformly by volume to states where B has the other sign,"

    @property
    def centre(self) -> Tensor:
        return self.base.centre

    @property
    def radius(self) -> float:
        return self.base.radius

    @property
    def words(self) -> str:
        return f"the states with B = 0 of {self.base.words}"

    @property
    def is_curved(self) -> bool:
        return True

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        states = self.base.sample(count, generator)
        value = self._value(states)
        above, below = (side[_drawn(count, len(side), generator)] for side in (self.above, self.below))
        return self._between(states, torch.where((value > 0)[:, None], below, above), value)

    def shells(self, count: int, generator: torch.Generator) -> Tensor:
        return self.project(self.base.shells(count, generator))

    @torch.no_grad()
    def project(self, states: Tensor) -> Tensor:
        """Return the states (B, n) moved to where B is 0: across the nearest zero by its slope, else towards the nearest anchor."""
        states = self.base.project(states.detach())
        value, gradient = self.value(states), self.gradient(states)
        square = gradient.square().sum(1, keepdim=True)
        step = gradient * (value[:, None] / torch.where(square == 0, 1, square))
        # Twice as far as the tangent says, for B may bend.
        across = self.base.project(states - 2 * step.nan_to_num(0, 0, 0))
        missed = (self._value(across) > 0) == (value > 0)
        across[missed] = self._nearest(states[missed], value[missed])
        return self._between(states, across, value)

    def contains(self, states: Tensor) -> Tensor:
        with torch.no_grad():
            value, steepness = self.value(states), self.gradient(states).norm(dim=1)
        rounding = NEAR * self.radius * steepness + 1e-12 * self.size
        distance = (states - self.centre).norm(dim=1)
        return self.base.contains(states) & (value.abs() <= rounding) & (distance >= self.inner)

    def _value(self, states: Tensor) -> Tensor:
        with torch.no_grad():
            return self.value(states)

    def _nearest(self, states: Tensor, value: Tensor) -> Tensor:
        """Return for each state (B, n) the nearest anchor of the other sign."""
        found = states.clone()
        for is_above, anchors in ((False, self.above), (True, self.below)):
            rows = ((value > 0) == is_above).nonzero().squeeze(1)
            for part in rows.split(max(1, BATCH // len(anchors))):
                found[part] = anchors[torch.cdist(states[part], anchors).argmin(1)]
        return found

    def _between(self, states: Tensor, others: Tensor, value: Tensor) -> Tensor:
        """Return a state (B, n) of each segment from ``states``, where B is ``value``, to ``others`` at which B is 0 to rounding."""
        is_above = (value > 0)[:, None]
        low, high = torch.where(is_above, others, states), torch.where(is_above, states, others)
        for _ in range(HALVINGS):
            middle = low + (high - low) / 2
            outside = (self._value(middle) > 0)[:, None]
            low, high = torch.where(outside, low, middle), torch.where(outside, middle, high)
        nearer = (self._value(high).abs() < self._value(low).abs())[:, None]
        found = torch.where(nearer, high, low)
        return torch.where((value == 0)[:, None], states, found)


def find_zero_set(
    base: Ball | Box,
    value: Function,
    gradient: Function,
    size: float,
    *,
    inner: float = 0.0,
    seed: int = 0,
) -> ZeroSet | tuple[Tensor, float]:
    """Return the states of ``base`` with B = 0; the state (n,) nearest to one, and B there, where B has one sign at all that are tried.

    These are 4096 drawn ones, and those that climbs from the highest and from the lowest of them reach.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = base.sample(DRAWN, generator)
    ends = [extreme(base, value, drawn, sign, generator) for sign in (-1, 1)]
    states = torch.cat([*ends, drawn])
    with torch.no_grad():
        found = value(states)
    below, above = states[found <= 0][:ANCHORS], states[found > 0][:ANCHORS]
    if len(below) and len(above):
        return ZeroSet(base, value, gradient, below, above, size, inner)
    nearest = int(found.abs().nan_to_num(torch.inf).argmin())
    return states[nearest], float(found[nearest])


def extreme(base: Ball | Box, value: Function, drawn: Tensor, sign: int, generator: torch.Generator) -> Tensor:
    """Return where climbs of ``sign`` * ``value`` from the best of the states ``drawn`` (B, n) end, (32, n), the best first."""
    with torch.no_grad():
        starts = drawn[(sign * value(drawn)).nan_to_num(-torch.inf).argsort(descending=True)[:CLIMBS]]

    def height(states: Tensor) -> Violation:
        found = sign * value(states)
        return Violation(found, torch.ones_like(found))

    first_step = torch.full_like(starts[:, 0], base.radius / 8)
    climbed = falsify(height, starts, base.project, first_step=first_step, generator=generator)
    return climbed.states[climbed.relatives.argsort(descending=True)]


def _drawn(count: int, among: int, generator: torch.Generator) -> Tensor:
    return torch.randint(among, (count,), generator=generator)
