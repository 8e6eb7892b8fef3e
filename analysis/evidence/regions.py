"""Regions of state space that a claim is made on: each can be sampled, and any state can be projected into it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from analysis.evidence import sampling
from analysis.findings import exactly

# A state on a boundary may be a few roundings outside of it.
SLACK = 1e-12
PUSHES = 8  # out of a ball around the centre, after each of which a state is moved into the region again


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

    @property
    def is_curved(self) -> bool:
        """Whether a state that is moved along a ray from the centre leaves it, as it leaves a set {h = 0}."""
        ...

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Return ``count`` states (count, n) of the distribution that ``drawn`` names, or as many as were found."""
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

    @property
    def is_curved(self) -> bool:
        return False

    @property
    def within(self) -> str:
        """The region as what bounds a larger set, in words."""
        return f"{exactly(self.radius)} of the centre"

    @property
    def moving(self) -> int:
        """How many coordinates, from the first on, trajectories can leave the region by: all."""
        return len(self.centre)

    def exit(self, directions: Tensor) -> Tensor:
        """Return (B, 1): how far from the centre the region ends along the unit ``directions`` (B, n)."""
        return torch.full_like(directions[:, :1], self.radius)

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

    def beyond(self, states: Tensor) -> Tensor:
        """Return (B,): how far the states (B, n) lie outside, relative to the radius, and at most 0 for those inside."""
        return ((states - self.centre).norm(dim=1) - self.radius) / self.radius


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
        sides = zip(self.low.tolist(), self.high.tolist(), strict=True)
        return product([f"[{exactly(low)}, {exactly(high)}]" for low, high in sides])

    @property
    def is_curved(self) -> bool:
        return False

    @property
    def within(self) -> str:
        """The region as what bounds a larger set, in words."""
        return self.words

    @property
    def moving(self) -> int:
        """How many coordinates, from the first on, trajectories can leave the region by: the others rest."""
        return len(self.centre)

    def exit(self, directions: Tensor) -> Tensor:
        """Return (B, 1): how far from the centre the region ends along the unit ``directions`` (B, n)."""
        sides = torch.where(directions > 0, self.high - self.centre, self.low - self.centre)
        lengths = torch.where(directions == 0, torch.inf, sides / directions)
        return lengths.amin(1, keepdim=True)

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

    def beyond(self, states: Tensor) -> Tensor:
        """Return (B,): how far the states (B, n) lie outside, relative to the sides, and at most 0 for those inside."""
        return (torch.maximum(states - self.high, self.low - states) / (self.high - self.low)).amax(1)


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

    @property
    def is_curved(self) -> bool:
        return self.region.is_curved

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        first, second = (self.region.sample(count, generator) for _ in range(2))
        found = min(len(first), len(second))
        return torch.cat([first[:found], second[:found]], 1)

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
        return f"{self.region.words}, further than {exactly(self.inner)} from the centre"

    @property
    def drawn(self) -> str:
        return self.region.drawn

    @property
    def is_curved(self) -> bool:
        return self.region.is_curved

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        return self.project(self.region.sample(count, generator))

    def shells(self, count: int, generator: torch.Generator) -> Tensor:
        return self.project(self.region.shells(count, generator))

    def project(self, states: Tensor) -> Tensor:
        inside = self.region.project(states)
        nearest = self.inner * (1 + _roundings(states))
        # A state that is pushed along a ray leaves a curved set, and is moved back.
        for least in (nearest, *[self.inner * (1 - SLACK)] * (PUSHES - 1)) if self.is_curved else (nearest,):
            distance, rays = polar(inside, self.centre)
            pushed = self.centre + nearest * rays
            near = distance < least
            inside = torch.where(near, pushed, inside)
            if not self.is_curved or not bool(near.any()):
                break
            inside[near[:, 0]] = self.region.project(pushed[near[:, 0]])
        return inside

    def contains(self, states: Tensor) -> Tensor:
        return self.region.contains(states) & ((states - self.centre).norm(dim=1) >= self.inner * (1 - 1e-9))


def product(sides: Sequence[str]) -> str:
    """Return the name of a box with these ``sides``.

    >>> product(["[-1, 1]", "[-1, 1]"]), product(["[-1, 1]", "[-2, 2]"]), product(["[0, 1]"])
    ('the box [-1, 1]^2', 'the box [-1, 1] x [-2, 2]', 'the box [0, 1]')
    """
    alike = len(sides) > 1 and len(set(sides)) == 1
    return f"the box {sides[0]}^{len(sides)}" if alike else f"the box {' x '.join(sides)}"


def polar(states: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far ``states`` (B, n) are from ``centre``, (B, 1), and the unit vectors away from it, (B, n).

    The centre itself lies on no ray of its own, and is taken to lie on the first axis.
    """
    offset = states - centre
    distance = offset.norm(dim=1, keepdim=True)
    axis = torch.zeros_like(centre)
    axis[0] = 1
    return distance, torch.where(distance == 0, axis, offset / torch.where(distance == 0, 1, distance))


def _roundings(states: Tensor) -> float:
    """Return by what a distance is moved, relatively, so that rounding does not carry a projected state across the boundary."""
    return (states.shape[1] + 16) * torch.finfo(torch.float64).eps
