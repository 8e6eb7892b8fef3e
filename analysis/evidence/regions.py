"""Regions of state space that a claim is made on: each can be sampled, and any state can be projected into it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from analysis.evidence import sampling
from analysis.findings import exactly

# A state on a boundary may be a few roundings outside of it.
SLACK = 1e-12
# A ray is followed out in 64 steps, and its last one divided 14 times in 8: to within 1e-14 of the radius.
STEPS, PARTS, REFINEMENTS = 64, 8, 14
ROWS = 2**22


class Region(Protocol):
    """A set of states around a centre.

    ``centre`` is (n,), ``radius`` the largest distance from it, ``words`` the region as a sentence names it,
    ``drawn`` how ``sample`` draws.
    """

    @property
    def centre(self) -> Tensor: ...

    @property
    def radius(self) -> float: ...

    @property
    def words(self) -> str: ...

    @property
    def drawn(self) -> str: ...

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Return ``count`` states (count, n) of the distribution that ``drawn`` names."""
        ...

    def shells(self, count: int, generator: torch.Generator) -> Tensor:
        """Return states of the region at log-spaced distances from the centre, down to a billionth of the radius."""
        ...

    def project(self, states: Tensor) -> Tensor:
        """Return the states (B, n) moved into the region; those inside stay."""
        ...

    def contains(self, states: Tensor) -> Tensor:
        """Return, as a bool (B,), which states lie in the region, to rounding."""
        ...


@dataclass(frozen=True)
class Ball:
    """The states within ``radius`` of ``centre`` (n,)."""

    centre: Tensor
    radius: float
    drawn: str = "uniformly by volume"

    @property
    def words(self) -> str:
        return f"the ball of radius {exactly(self.radius)} around the centre"

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        return sampling.in_ball(count, self.centre, self.radius, generator)

    def shells(self, count: int, generator: torch.Generator) -> Tensor:
        innermost = sampling.INNERMOST * self.radius
        return sampling.on_shells(count, self.centre, innermost, self.radius, generator)

    def project(self, states: Tensor) -> Tensor:
        offset = states - self.centre
        distance = offset.norm(dim=1, keepdim=True)
        farthest = self.radius * (1 - _roundings(states))
        return torch.where(distance > farthest, self.centre + offset * (farthest / distance), states)

    def contains(self, states: Tensor) -> Tensor:
        return (states - self.centre).norm(dim=1) <= self.radius * (1 + SLACK)


@dataclass(frozen=True)
class Box:
    """The states between the corners ``low`` and ``high`` (n,); ``centre`` lies among them."""

    centre: Tensor
    low: Tensor
    high: Tensor
    drawn: str = "uniformly by volume"

    @property
    def radius(self) -> float:
        return float(torch.maximum(self.high - self.centre, self.centre - self.low).norm())

    @property
    def words(self) -> str:
        bounds = {(float(low), float(high)) for low, high in zip(self.low, self.high, strict=True)}
        if len(bounds) == 1:
            (bound,) = bounds
            return f"the box [{exactly(bound[0])}, {exactly(bound[1])}]^{len(self.low)}"
        return f"the box from {self.low.tolist()} to {self.high.tolist()}"

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        return sampling.in_box(count, self.low, self.high, generator)

    def shells(self, count: int, generator: torch.Generator) -> Tensor:
        innermost = sampling.INNERMOST * self.radius
        return self.project(sampling.on_shells(count, self.centre, innermost, self.radius, generator))

    def project(self, states: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(states, self.low), self.high)

    def contains(self, states: Tensor) -> Tensor:
        slack = SLACK * (self.high - self.low)
        return ((states >= self.low - slack) & (states <= self.high + slack)).all(1)


@dataclass(frozen=True)
class Pairs:
    """Pairs (a, b) of states of ``region`` as one state (2n,), for claims about two states, such as convexity."""

    region: Region

    @property
    def centre(self) -> Tensor:
        return torch.cat([self.region.centre, self.region.centre])

    @property
    def radius(self) -> float:
        return self.region.radius * 2**0.5

    @property
    def words(self) -> str:
        return self.region.words

    @property
    def drawn(self) -> str:
        return f"in independent pairs, each {self.region.drawn},"

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.cat([self.region.sample(count, generator) for _ in range(2)], 1)

    def shells(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.cat([self.region.shells(count, generator) for _ in range(2)], 1)

    def project(self, states: Tensor) -> Tensor:
        return torch.cat([self.region.project(part) for part in states.chunk(2, 1)], 1)

    def contains(self, states: Tensor) -> Tensor:
        first, second = (self.region.contains(part) for part in states.chunk(2, 1))
        return first & second


@dataclass(frozen=True)
class Outside:
    """The states of ``region`` at least ``inner`` away from its centre."""

    region: Region
    inner: float

    @property
    def centre(self) -> Tensor:
        return self.region.centre

    @property
    def radius(self) -> float:
        return self.region.radius

    @property
    def words(self) -> str:
        return f"{self.region.words}, further than {self.inner:g} from the centre"

    @property
    def drawn(self) -> str:
        return self.region.drawn

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        return self.project(self.region.sample(count, generator))

    def shells(self, count: int, generator: torch.Generator) -> Tensor:
        return self.project(self.region.shells(count, generator))

    def project(self, states: Tensor) -> Tensor:
        inside = self.region.project(states)
        offset = inside - self.centre
        distance = offset.norm(dim=1, keepdim=True)
        nearest = self.inner * (1 + _roundings(states))
        pushed = self.centre + offset * (nearest / torch.where(distance == 0, 1, distance))
        return torch.where(distance < nearest, pushed, inside)

    def contains(self, states: Tensor) -> Tensor:
        return self.region.contains(states) & ((states - self.centre).norm(dim=1) >= self.inner * (1 - 1e-9))


@dataclass(frozen=True)
class Sublevel:
    """The part of {V <= ``level``} that is seen from the centre along rays, no further than ``radius``.

    ``value`` is V, (B, n) -> (B,). ``on_boundary`` keeps the boundary {V = level} alone.
    """

    centre: Tensor
    radius: float
    value: Callable[[Tensor], Tensor]
    level: float
    on_boundary: bool = False

    @property
    def words(self) -> str:
        part = "the boundary of " if self.on_boundary else ""
        return (
            f"{part}the sublevel set {{V <= {exactly(self.level)}}} within {exactly(self.radius)} of the centre, "
            "seen along rays from it"
        )

    @property
    def drawn(self) -> str:
        return "uniformly by direction" if self.on_boundary else "uniformly by direction, and by volume along each ray"

    def reach(self, directions: Tensor) -> Tensor:
        """Return (B, 1): how far from the centre V stays <= level along the unit ``directions`` (B, n)."""
        rows = max(1, ROWS // (STEPS * directions.shape[1]))
        return (
            torch.cat([self._reach(part) for part in directions.split(rows)]) if len(directions) else directions[:, :1]
        )

    def _reach(self, directions: Tensor) -> Tensor:
        """Return (B, 1): the end of the steps that stay within the level, then of ever finer ones."""
        low = torch.zeros_like(directions[:, :1])
        length = torch.full_like(low, self.radius)
        for parts in (STEPS, *[PARTS] * REFINEMENTS):
            steps = torch.arange(1, parts + 1, dtype=torch.float64, device=low.device) / parts
            ends = (low + length * steps).clamp(max=self.radius)
            states = self.centre + ends[:, :, None] * directions[:, None]
            with torch.no_grad():
                within = self.value(states.flatten(0, 1)).unflatten(0, ends.shape) <= self.level
            inside = within.long().cumprod(1).sum(1, keepdim=True)
            length = length / parts
            low = torch.where(inside == 0, low, ends.gather(1, (inside - 1).clamp(min=0)))
        return low

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        dim = self.centre.shape[0]
        rays = sampling.directions(count, dim, generator)
        length = self.reach(rays)
        if not self.on_boundary:
            fraction = torch.rand(count, 1, generator=generator, device=generator.device, dtype=torch.float64)
            length = length * fraction ** (1 / dim)
        return self.centre + length * rays

    def shells(self, count: int, generator: torch.Generator) -> Tensor:
        return self.project(
            sampling.on_shells(count, self.centre, sampling.INNERMOST * self.radius, self.radius, generator)
        )

    def project(self, states: Tensor) -> Tensor:
        offset = states.detach() - self.centre
        distance = offset.norm(dim=1, keepdim=True)
        rays = offset / torch.where(distance == 0, 1, distance)
        reach = self.reach(rays)
        outside = (distance > reach) | self.on_boundary
        return torch.where(outside, self.centre + reach * rays, states.detach())

    def contains(self, states: Tensor) -> Tensor:
        offset = states - self.centre
        distance = offset.norm(dim=1, keepdim=True)
        reach = self.reach(offset / torch.where(distance == 0, 1, distance))
        inside = distance <= reach * (1 + SLACK)
        if self.on_boundary:
            inside = inside & (distance >= reach * (1 - 1e-9))
        return inside.squeeze(1)


def _roundings(states: Tensor) -> float:
    """Return by what a distance is moved, relatively, so that rounding does not carry a projected state across the boundary."""
    return (states.shape[1] + 16) * torch.finfo(torch.float64).eps
