"""Sets between levels of V: {V <= C}, and {C1 <= V <= C}, within a ball or a box."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.evidence import sampling
from analysis.evidence.regions import SLACK, Ball, Box
from analysis.findings import exactly

# A ray is followed out in 64 steps, and its last one divided 14 times in 8: to within 1e-14 of its length.
STEPS, PARTS, REFINEMENTS = 64, 8, 14
RESOLUTION = 1e-14
ROWS = 2**22


@dataclass(frozen=True)
class Sublevel:
    """The part of {``lower`` <= V <= ``level``} within ``base`` that is seen from its centre along rays.

    On each ray it begins where V first exceeds ``lower``, at the centre by default, and ends where V first exceeds ``level`` or
    the base ends. ``value`` is V, (B, n) -> (B,). ``on_boundary`` keeps the boundary {V = level} alone. Where not ``on_rays``, the words
    are those of the whole set, of which the states that are drawn are but a part.
    """

    base: Ball | Box
    value: Callable[[Tensor], Tensor]
    level: float = math.inf
    lower: float = -math.inf
    on_boundary: bool = False
    on_rays: bool = True

    @property
    def centre(self) -> Tensor:
        return self.base.centre

    @property
    def radius(self) -> float:
        return self.base.radius

    @property
    def words(self) -> str:
        part = "the boundary of " if self.on_boundary else ""
        seen = ", seen along rays from the centre" if self.on_rays else ""
        return f"{part}{self.condition} within {self.base.within}{seen}"

    @property
    def condition(self) -> str:
        """The set without its base, in words."""
        if self.lower == -math.inf or self.on_boundary:
            return f"the sublevel set {{V <= {exactly(self.level)}}}"
        if self.level == math.inf:
            return f"the set {{V >= {exactly(self.lower)}}}"
        return f"the set {{{exactly(self.lower)} <= V <= {exactly(self.level)}}}"

    @property
    def drawn(self) -> str:
        return "uniformly by direction" if self.on_boundary else "uniformly by direction, and by volume along each ray"

    def reach(self, directions: Tensor) -> Tensor:
        """Return (B, 1): how far from the centre V stays <= level along the unit ``directions`` (B, n)."""
        return self._ends(directions, self.level)

    def begin(self, directions: Tensor) -> Tensor:
        """Return (B, 1): how far from the centre V first exceeds ``lower`` along the unit ``directions`` (B, n), at most ``reach``."""
        if self.lower == -math.inf or self.on_boundary:
            return torch.zeros_like(directions[:, :1])
        beyond = self._ends(directions, self.lower)
        with torch.no_grad():
            starts_above = (self.value(self.centre[None]) > self.lower).expand(len(beyond))[:, None]
        return torch.where(starts_above, 0, beyond + RESOLUTION * self.base.exit(directions))

    def _ends(self, directions: Tensor, level: float) -> Tensor:
        if level == math.inf:
            return self.base.exit(directions)
        rows = max(1, ROWS // (STEPS * directions.shape[1]))
        parts = directions.split(rows) if len(directions) else ()
        return torch.cat([self._end(part, level) for part in parts]) if parts else directions[:, :1]

    def _end(self, directions: Tensor, level: float) -> Tensor:
        """Return (B, 1): the end of the steps that stay within ``level``, then of ever finer ones."""
        farthest = self.base.exit(directions)
        low, length = torch.zeros_like(farthest), farthest
        for parts in (STEPS, *[PARTS] * REFINEMENTS):
            steps = torch.arange(1, parts + 1, dtype=torch.float64, device=low.device) / parts
            ends = torch.minimum(low + length * steps, farthest)
            states = self.centre + ends[:, :, None] * directions[:, None]
            with torch.no_grad():
                within = self.value(states.flatten(0, 1)).unflatten(0, ends.shape) <= level
            inside = within.long().cumprod(1).sum(1, keepdim=True)
            length = length / parts
            low = torch.where(inside == 0, low, ends.gather(1, (inside - 1).clamp(min=0)))
        return low

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        dim = self.centre.shape[0]
        rays = sampling.directions(count, dim, generator)
        end = self.reach(rays)
        if self.on_boundary:
            return self._at(end, rays)
        begin = torch.minimum(self.begin(rays), end)
        fraction = torch.rand(count, 1, generator=generator, device=generator.device, dtype=torch.float64)
        if self.lower == -math.inf:
            return self._at(end * fraction ** (1 / dim), rays)
        # Of the length that the ray has in the set, by volume; relative to its end, whose power may overflow.
        inner = (begin / torch.where(end == 0, 1, end)) ** dim
        return self._at(end * (inner + fraction * (1 - inner)) ** (1 / dim), rays)

    def shells(self, count: int, generator: torch.Generator) -> Tensor:
        return self.project(
            sampling.on_shells(count, self.centre, sampling.INNERMOST * self.radius, self.radius, generator)
        )

    def project(self, states: Tensor) -> Tensor:
        states = states.detach()
        distance, rays = self._polar(states)
        end, begin = self.reach(rays), self.begin(rays)
        moved = torch.where((distance > end) | self.on_boundary, self._at(end, rays), states)
        return torch.where(distance < begin, self._at(torch.minimum(begin, end), rays), moved)

    def contains(self, states: Tensor) -> Tensor:
        distance, rays = self._polar(states)
        end = self.reach(rays)
        inside = distance <= end * (1 + SLACK)
        if self.on_boundary:
            ended_by_level = end < (1 - 1e-9) * self.base.exit(rays)
            inside = inside & ended_by_level & (distance >= end * (1 - 1e-9))
        elif self.lower > -math.inf:
            with torch.no_grad():
                inside = inside & (self.value(states) >= self.lower)[:, None]
        return inside.squeeze(1)

    def _polar(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distances from the centre (B, 1), and the unit vectors away from it (B, n)."""
        offset = states - self.centre
        distance = offset.norm(dim=1, keepdim=True)
        return distance, offset / torch.where(distance == 0, 1, distance)

    def _at(self, length: Tensor, rays: Tensor) -> Tensor:
        return self.base.project(self.centre + length * rays)
