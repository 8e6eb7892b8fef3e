"""Where does a function jump? Kinks and steep slopes are no jumps: what jumps differs as much however near two states are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.evidence.noise import NOISE_MARGIN, rounding_noise
from analysis.evidence.regions import Pairs, Region
from analysis.findings import short
from analysis.user_function.function import ForeignFunction

SEGMENTS, CELLS, SUSPECTS = 128, 64, 2
# Each round divides a cell in 8: 64 * 8^12 parts of a segment are near the spacing of float64, 64 * 8^4 near that of float32.
PARTS, ROUNDS = 8, {torch.float64: 12, torch.float32: 4}
# A function may compute in float32 unseen: its rounding makes steps of these sizes and less.
OF_THE_CELL, OF_THE_VALUE = 1e-3, 1e-6


@dataclass(frozen=True)
class Jump:
    """A jump of the function ``name`` at ``state`` (n,), from ``before`` (m,) to ``after`` (m,)."""

    name: str
    state: Tensor
    before: Tensor
    after: Tensor

    @property
    def words(self) -> str:
        """The jump as a clause."""
        before, after = (short(side.tolist() if len(side) > 1 else side.item()) for side in (self.before, self.after))
        return f"{self.name} jumps from {before} to {after} at the state {short(self.state.tolist())}"


def find_jump(function: ForeignFunction, region: Region, seed: int) -> Jump | None:
    """Return the largest jump met along 128 segments between states of ``region``, a quarter of them from its centre.

    On each segment the two cells of 64 are divided further where the function departs most from its neighbours. What is
    left near the spacing of the numbers, and has not shrunk over the last half of the divisions, is a jump.
    """
    generator = torch.Generator().manual_seed(seed)
    first, last = Pairs(region).sample(SEGMENTS, generator).chunk(2, 1)
    first[: len(first) // 4] = region.centre
    _, _, departure = _divided(function, first, last, CELLS)
    cells = departure.topk(SUSPECTS, 1).indices
    start, step = first[:, None], ((last - first) / CELLS)[:, None]
    low = (start + cells[:, :, None] * step).flatten(0, 1)
    high = (start + (cells + 1)[:, :, None] * step).flatten(0, 1)
    before, after = _flat(function(low)), _flat(function(high))
    ends = torch.stack([before, after])
    noise = NOISE_MARGIN * rounding_noise(function, region.centre, region.radius, generator)
    cell, size = (ends[1] - ends[0]).norm(dim=1), ends.norm(dim=2).amax(0)
    left = []
    for _ in range(ROUNDS.get(function.dtype, 1)):
        states, values, departure = _divided(function, low, high, PARTS)
        worst = departure.argmax(1)
        row = torch.arange(len(worst))
        low, high = states[row, worst], states[row, worst + 1]
        before, after = values[row, worst], values[row, worst + 1]
        left.append(departure[row, worst])
    jumps = (
        (left[-1] > OF_THE_CELL * cell)
        & (left[-1] > OF_THE_VALUE * size + noise)
        & (left[-1] >= left[len(left) // 2] / 2)
    )
    jumps &= region.contains(low) & region.contains(high)
    if not bool(jumps.any()):
        return None
    best = int(torch.where(jumps, left[-1], -1).argmax())
    return Jump(function.name, low[best], before[best], after[best])


def _divided(function: ForeignFunction, low: Tensor, high: Tensor, parts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return states (S, parts + 1, n) from ``low`` to ``high`` (S, n), values (S, parts + 1, m), departures (S, parts).

    A part's departure is that of its difference from the mean of its neighbours', at most the size of its difference: next to
    the ends, the neighbour of a part that jumps departs as far. It is 0 where it is not finite.
    """
    fractions = torch.linspace(0, 1, parts + 1, dtype=torch.float64)[:, None]
    states = low[:, None] + fractions * (high - low)[:, None]
    values = _flat(function(states.flatten(0, 1))).unflatten(0, (len(low), parts + 1))
    difference = values.diff(dim=1)
    padded = torch.cat([difference[:, 1:2], difference, difference[:, -2:-1]], 1)
    departure = (difference - (padded[:, :-2] + padded[:, 2:]) / 2).norm(dim=2)
    departure = torch.minimum(departure, difference.norm(dim=2))
    return states, values, departure.nan_to_num(nan=0.0, posinf=0.0)


def _flat(values: Tensor) -> Tensor:
    return values.detach().reshape(len(values), -1)
