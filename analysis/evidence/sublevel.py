"""Sets between levels of V: {V <= C}, and {C1 <= V <= C}, within a ball or a box."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.evidence import sampling
from analysis.evidence.regions import SLACK, Ball, Box, polar
from analysis.findings import exactly

# A ray is followed out in 64 steps, the one on which V first exceeds the level in 8, and the last of these to 1e-14 of the ray.
STEPS, PARTS = 64, 8
RESOLUTION = 1e-14
# States in one batch: so few that what a network makes of them stays in the processor's cache.
BATCH = 2048


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
        if not self.has_levels:
            return self.base.words
        part = "the boundary of " if self.on_boundary else ""
        seen = ", seen along rays from the centre" if self.on_rays else ""
        return f"{part}{self.condition} within {self.base.within}{seen}"

    @property
    def has_levels(self) -> bool:
        """Whether a level bounds the set; it is all of ``base`` otherwise."""
        return self.level < math.inf or self.lower > -math.inf

    @property
    def condition(self) -> str:
        """The set without its base, in words."""
        if self.lower == -math.inf or self.on_boundary:
            return f"the sublevel set {{V <= {exactly(self.level)}}}"
        if self.level == math.inf:
            return f"the set {{V >= {exactly(self.lower)}}}"
        return f"the set {{{exactly(self.lower)} <= V <= {exactly(self.level)}}}"

    @property
    def is_curved(self) -> bool:
        return False

    @property
    def drawn(self) -> str:
        return "uniformly by direction" if self.on_boundary else "uniformly by direction, and by volume along each ray"

    def reach(self, directions: Tensor) -> Tensor:
        """Return (B, 1): how far from the centre V stays <= level along the unit ``directions`` (B, n)."""
        return self._ends(directions)[1]

    def _ends(self, directions: Tensor, distance: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return where the set begins and where it ends, (B, 1) each, along the unit ``directions`` (B, n).

        With the ``distance`` (B, 1) of a state on each ray, a ray is followed no further where its steps tell that the state lies
        in the set: some two lengths are returned, between which the state lies and all states are in the set.
        """
        exits, lower = self.base.exit(directions), -math.inf if self.on_boundary else self.lower
        if self.level == math.inf and lower == -math.inf:
            return torch.zeros_like(exits), exits
        lengths = exits * torch.arange(STEPS + 1, dtype=exits.dtype, device=exits.device) / STEPS
        values = self._values(directions, lengths)
        begins, ends = (_bracket(lengths, values, level) for level in (lower, self.level))
        early, late = (torch.ones_like(exits, dtype=torch.bool),) * 2
        if distance is not None:
            early = distance < begins[:, 1:2]
            late = (distance > ends[:, :1]) | (early & (begins[:, 1:2] > ends[:, :1]))
        for brackets, level, unknown in ((begins, lower, early.squeeze(1)), (ends, self.level, late.squeeze(1))):
            brackets[unknown] = self._narrowed(directions[unknown], brackets[unknown], level)
        return torch.minimum(begins[:, 1:2], ends[:, :1]), ends[:, :1]

    def _values(self, directions: Tensor, lengths: Tensor) -> Tensor:
        """Return V (B, k) at the ``lengths`` (B, k) along the ``directions`` (B, n)."""
        found, rows = [lengths[:0]], max(1, BATCH // lengths.shape[1])
        for rays, along in zip(directions.split(rows), lengths.split(rows), strict=True):
            with torch.no_grad():
                found.append(self.value((self.centre + along[:, :, None] * rays[:, None]).flatten(0, 1)).view_as(along))
        return torch.cat(found)

    def _narrowed(self, directions: Tensor, brackets: Tensor, level: float) -> Tensor:
        """Return ``brackets`` (B, 4) of steps narrowed to ``RESOLUTION`` of the way to where the base ends.

        After the ``PARTS`` by the ITP method: few evaluations where V is smooth, and one more than by bisection elsewhere
        (Oliveira and Takahashi, An enhancement of the bisection method average performance, 2020).
        """
        wide = (brackets[:, 1] > brackets[:, 0]).nonzero().squeeze(1)  # no crossing was seen where both ends are one
        if not len(wide):
            return brackets
        rays, (low, high, below, above) = directions[wide], brackets[wide].split(1, 1)
        lengths = low + (high - low) * torch.arange(PARTS + 1, dtype=low.dtype, device=low.device) / PARTS
        values = torch.cat([below, self._values(rays, lengths[:, 1:-1]), above], 1)
        brackets[wide] = _bracket(lengths, values, level)
        part = self.base.exit(directions) / (STEPS * PARTS)
        bisections = math.ceil(-math.log2(STEPS * PARTS * RESOLUTION)) + 1
        for left in reversed(range(bisections)):
            wide = wide[(brackets[wide, 1] - brackets[wide, 0]) > STEPS * PARTS * RESOLUTION * part[wide, 0]]
            if not len(wide):
                break
            low, high, below, above = brackets[wide].split(1, 1)
            trial = _between(low, high, below - level, above - level, part[wide], left)
            value = self._values(directions[wide], trial)
            moved = torch.where(
                value <= level, torch.cat([trial, high, value, above], 1), torch.cat([low, trial, below, value], 1)
            )
            brackets[wide] = moved
        return brackets

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        dim = self.centre.shape[0]
        rays = sampling.directions(count, dim, generator)
        begin, end = self._ends(rays)
        if self.on_boundary:
            return self._at(end, rays)
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
        distance, rays = polar(states, self.centre)
        begin, end = self._ends(rays, None if self.on_boundary else distance)
        moved = torch.where((distance > end) | self.on_boundary, self._at(end, rays), states)
        return torch.where(distance < begin, self._at(begin, rays), moved)

    def contains(self, states: Tensor) -> Tensor:
        distance, rays = polar(states, self.centre)
        _, end = self._ends(rays, None if self.on_boundary else distance)
        inside = distance <= end * (1 + SLACK)
        if self.on_boundary:
            ended_by_level = end < (1 - 1e-9) * self.base.exit(rays)
            inside = inside & ended_by_level & (distance >= end * (1 - 1e-9))
        elif self.lower > -math.inf:
            with torch.no_grad():
                inside = inside & (self.value(states) >= self.lower)[:, None]
        return inside.squeeze(1)

    def _at(self, length: Tensor, rays: Tensor) -> Tensor:
        return self.base.project(self.centre + length * rays)


def _bracket(lengths: Tensor, values: Tensor, level: float) -> Tensor:
    """Return (B, 4): the last of the ``lengths`` (B, k) up to which ``values`` (B, k) stay within ``level``, the next, and V at both.

    The two are one and the same where even the first value exceeds the level, or none does.
    """
    inside = (values <= level) | (level == math.inf)
    inside[:, 0] = ~(values[:, 0] > level)  # V may be NaN at the centre alone
    count = inside.long().cumprod(1).sum(1, keepdim=True)
    last = (count - 1).clamp(min=0)
    first_beyond = torch.where(count == 0, 0, count.clamp(max=lengths.shape[1] - 1))
    return torch.cat([of.gather(1, at) for of in (lengths, values) for at in (last, first_beyond)], 1)


def _between(low: Tensor, high: Tensor, below: Tensor, above: Tensor, part: Tensor, left: int) -> Tensor:
    """Return where the ITP method looks next in brackets from ``low`` to ``high``, (B, 1), that were ``part`` long at first.

    ``below`` <= 0 < ``above`` are the values at the ends; ``left`` are the bisections after which all is narrow enough.
    """
    length, width = high - low, STEPS * PARTS * RESOLUTION * part
    middle = low + length / 2
    secant = low + length * (below / (below - above)).nan_to_num(nan=0.5).clamp(0, 1)
    # Beyond the zero of the secant, so that the other end of the bracket moves too.
    beyond = torch.maximum(0.02 * length.square() / part, 0.75 * width)
    off = middle - secant
    trial = secant + off.sign() * torch.minimum(beyond, off.abs())
    # So near to the middle that bisection can still do the rest.
    spare = (width * 2.0**left - length / 2).clamp(min=0)
    return torch.maximum(torch.minimum(trial, middle + spare), middle - spare)
