"""States on a set {h = 0}, such as sin^2 + cos^2 = 1, within a ball or a box and between levels of V."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from analysis.evidence import sampling
from analysis.evidence.regions import SLACK
from analysis.evidence.sublevel import Sublevel
from analysis.findings import exactly
from stabdeq.constraint import Constraint, columns, distance, onto_set, shortest_step, slopes

DRAWN, ANCHORS = 4096, 256
ROUNDS, BATCHES = 3, 64
BATCH = 2**20  # numbers in a table of distances
# By what part of a level a state is moved beyond it, so that rounding does not leave it on the other side.
CLEAR = 1e-12


@dataclass(frozen=True)
class Constrained(Sublevel):
    """The states of ``base`` with h = 0, h being ``constraint``, (B, n) -> (B,) or (B, k), and ``lower`` <= V <= ``level``.

    They need not be seen along rays. ``on_boundary`` keeps those with V = level alone. A state has h = 0 where the shortest
    Newton step to a zero is as short as rounding.
    """

    constraint: Constraint = field(kw_only=True)

    @property
    def drawn(self) -> str:
        return "by projection of states drawn uniformly by volume"

    @property
    def is_curved(self) -> bool:
        return True

    @property
    def words(self) -> str:
        if self.on_boundary:
            return f"the set {{h = 0, V = {exactly(self.level)}}} within {self.base.within}"
        return f"{self.condition} within {self.base.within}"

    @property
    def condition(self) -> str:
        if not self.has_levels:
            return "the set {h = 0}"
        levels = super().condition.partition("{")[2]
        return f"the set {{h = 0, {levels}"

    @cached_property
    def anchors(self) -> Tensor:
        """At most 256 states (m, n) of the region; none where none is found of 4096 that are projected."""
        found, arrived = self._landed(self.base.sample(DRAWN, torch.Generator().manual_seed(0)))
        at_centre = self.centre[None][self.contains(self.centre[None])]
        return torch.cat([at_centre, found[arrived]])[:ANCHORS]

    def equations(self, states: Tensor) -> Tensor:
        """Return what is 0 on the region, (B, k): h, and V - level on the boundary."""
        found = [columns(self.constraint(states))]
        if self.on_boundary:
            found.append((self.value(states) - self.level)[:, None])
        return torch.cat(found, 1)

    def tangent(self, states: Tensor) -> Tensor:
        """Return ``states`` (B, n) of the region as they are, but with a derivative that follows the region alone.

        One Newton step, whose matrix is held fixed: of a function of what is returned, autograd gives the tangent gradient, and differences
        of it the curvature along the region.
        """
        _, jacobian = slopes(self.equations, states.detach())
        # Where h is 0 and has no slope, as sqrt(|x|) - y at 0, there is no step.
        step = shortest_step(jacobian).nan_to_num(0, 0, 0) @ self.equations(states)[:, :, None]
        return states - step.squeeze(2)

    def along(self, state: Tensor) -> Tensor:
        """Return the unit vectors of the coordinates, projected onto the tangent space at one ``state`` (n,): rows (n, n)."""
        _, jacobian = slopes(self.equations, state[None])
        return torch.eye(len(state), dtype=state.dtype) - (shortest_step(jacobian) @ jacobian)[0].mT

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        parts, found = [self.anchors[:0]], 0
        for _ in range(BATCHES):
            states, arrived = self._landed(self.base.sample(max(count - found, ANCHORS), generator))
            parts.append(states[arrived])
            found += len(parts[-1])
            if found >= count:
                break
        return (torch.cat(parts) if found else self.anchors)[:count]

    def shells(self, count: int, generator: torch.Generator) -> Tensor:
        innermost = sampling.INNERMOST * self.radius
        return self.project(sampling.on_shells(count, self.centre, innermost, self.radius, generator))

    def project(self, states: Tensor) -> Tensor:
        """Return the states (B, n) moved onto the region, to rounding; one that does not arrive, to the nearest anchor."""
        found, arrived = self._landed(states)
        if not bool(arrived.all()) and len(self.anchors):
            found[~arrived] = self._nearest(states.detach()[~arrived])
        return found

    def contains(self, states: Tensor) -> Tensor:
        size = self.radius + float(self.centre.norm())
        arrived = distance(self.equations, states) <= SLACK * size
        if self.on_boundary or not self.has_levels:
            return arrived & self.base.contains(states)
        with torch.no_grad():
            value = self.value(states)
        return arrived & self.base.contains(states) & (value <= self.level) & (value >= self.lower)

    def _landed(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states (B, n) moved onto {h = 0}, between the levels, into the base, and again; and which arrived (B,)."""
        states = self.base.project(states.detach()).clone()
        arrived = torch.zeros(len(states), dtype=torch.bool)
        for number in range(ROUNDS):
            conditions = self._open if number and self.has_levels else self.equations
            states[~arrived] = self.base.project(onto_set(conditions, states[~arrived]))
            arrived[~arrived] = self.contains(states[~arrived])
            if bool(arrived.all()):
                break
        return states, arrived

    def _open(self, states: Tensor) -> Tensor:
        """Return the ``equations``, and by how much V is beyond a level, 0 within."""
        found = [self.equations(states)]
        if self.has_levels and not self.on_boundary:
            value = self.value(states)[:, None]
            found += [
                torch.where(sign * (value - bound) > 0, value - bound + sign * CLEAR * abs(bound), 0)
                for sign, bound in ((1, self.level), (-1, self.lower))
                if not math.isinf(bound)
            ]
        return torch.cat(found, 1)

    def _nearest(self, states: Tensor) -> Tensor:
        parts = states.split(max(1, BATCH // len(self.anchors)))
        return torch.cat([self.anchors[torch.cdist(part, self.anchors).argmin(1)] for part in parts])
