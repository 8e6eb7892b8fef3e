"""Branch and bound on boxes that are turned where that makes them fewer.

The gap between linear bounds over a box grows along some directions of the state more than along others, and where these are not
the axes, a box has to be small along all axes that they share in. Its sides are then laid along the principal axes of the gap: a box
around it, of states clipped to what it held. Any basis is admissible: which one is chosen changes how many boxes a proof takes, not what
it proves.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from analysis.evidence.regions import Ball, Box
from analysis.evidence.sampling import directions
from analysis.evidence.sublevel import Sublevel
from analysis.proofs.intervals.branch_and_bound import Cover, Examined, equal_shares, halved, middle, spent, still_open
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.intervals.watching import told
from analysis.proofs.linear import Frames, Planes, contracted
from stabdeq.linear_algebra import symmetric_eigenvectors

AT_ONCE = 4096
# A box is turned where that makes its parts fewer by this factor, of which there would be so many else, and not again before it was
# halved so often: the box around it is larger.
GAIN, PARTS, HALVINGS = 4.0, 100.0, 6
RAYS, ROUNDS = 1024, 4
# What is left of a search is sampled by so many boxes at each of so many halvings.
FOLLOWED, DEPTH = 512, 120


class Cells(NamedTuple):
    """Boxes between ``low`` and ``high`` (B, n) in coordinates of their own, z = ``origin`` + ``basis`` y.

    Of its states a box stands for those with a . y + b >= 0 for all rows (a, b) of ``faces`` (B, k, n + 1). ``age`` (B,) counts how often
    it was halved since it was turned. ``inside`` (B,) says that V is known to be between the region's levels in all these states.
    ``share`` (B,) is its part of what the search began with.
    """

    low: Tensor
    high: Tensor
    origin: Tensor
    basis: Tensor
    faces: Tensor
    age: Tensor
    inside: Tensor
    share: Tensor

    @property
    def frames(self) -> Frames:
        return Frames(self.origin, self.basis)

    @property
    def box(self) -> Interval:
        return Interval(self.low, self.high)

    @property
    def middles(self) -> Tensor:
        """(B, n): states near the middles."""
        return self.frames.at(middle(self.low, self.high))

    def picked(self, places: Tensor | slice) -> "Cells":
        return Cells(*(part[places] for part in self))

    def joined(self, other: "Cells") -> "Cells":
        return Cells(*(torch.cat(parts) for parts in zip(self, other, strict=True)))

    def clipped(self) -> tuple["Cells", Tensor]:
        """Return the boxes as small as their faces tell, and (B,) which hold nothing."""
        low, high, empty = self.low, self.high, torch.zeros(len(self.low), dtype=torch.bool)
        for row in self.faces.unbind(1):
            low, high, outside = contracted(low, high, row[:, :-1].contiguous(), row[:, -1].contiguous())
            empty = empty | outside
        return self._replace(low=low, high=high), empty


class Found(NamedTuple):
    """What was found of boxes, the planes over them, ``inside`` (B,) as in ``Cells``, and the states ``points`` (B, n) looked at."""

    examined: Examined
    planes: Planes
    inside: Tensor
    points: Tensor


class Examination(Protocol):
    """What is to hold on boxes, examined as they are, with states ``points`` (B, n) in them, or in coordinates of their own."""

    def __call__(self, box: Interval, points: Interval) -> Examined: ...
    def turned(self, cells: Cells, points: Tensor) -> tuple[Examined, Planes, Tensor]: ...


def upright(low: Tensor, high: Tensor) -> Cells:
    """Return the boxes of states between ``low`` and ``high`` (B, n)."""
    count, dim = low.shape
    axes = Frames.axes(count, dim)
    faces = torch.zeros(count, 4 * dim, dim + 1, dtype=torch.float64)
    age, inside = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.bool)
    return Cells(low, high, axes.origin, axes.basis, faces, age, inside, equal_shares(count))


def turned(cells: Cells, basis: Tensor, base: Ball | Box) -> Cells:
    """Return boxes along ``basis`` (B, n, n) that stand for the same states within ``base``; a box stays where none is known."""
    frames = Frames(cells.middles, basis)
    box, known = frames.coordinates_of(cells.frames, cells.box)
    faces = frames.faces_of(cells.frames, cells.box, box)
    around = frames.faces_of_states(base.low, base.high) if isinstance(base, Box) else torch.zeros_like(faces)
    faces, age = torch.cat([faces, around], 1), torch.zeros_like(cells.age)
    new = Cells(box.low, box.high, frames.origin, frames.basis, faces, age, cells.inside, cells.share)
    old = cells._replace(age=age)  # it is not to be turned again before it was halved
    return Cells(*(torch.where(known.reshape(-1, *[1] * (a.dim() - 1)), a, b) for a, b in zip(new, old, strict=True)))


def principal_axes(region: Sublevel) -> Tensor | None:
    """Return a basis (n, n) in which {V <= level}, as far as it is seen from the centre, reaches as far in each direction as in the others.

    Its second moments, those along rays that are drawn with a fixed seed, are a multiple of the identity. None where they are not known.
    """
    dim = len(region.centre)
    generator = torch.Generator().manual_seed(0)
    root = torch.eye(dim, dtype=torch.float64) * region.radius
    for _ in range(ROUNDS):
        unit = directions(RAYS, dim, generator)
        along = unit @ root.mT
        length = along.norm(dim=1, keepdim=True)
        reach = region.reach(along / length) / length
        reach = reach / reach.amax()
        if not bool(reach.isfinite().all()):
            return None
        moments = (unit * reach ** (dim + 2)).mT @ unit / reach.pow(dim).sum()
        values, vectors = symmetric_eigenvectors(root @ moments @ root.mT)
        root = vectors * values.sqrt()
    return root


def turned_cover(
    cells: Cells,
    examine: Callable[[Cells], Found],
    base: Ball | Box,
    *,
    count: int,
    max_boxes: int,
    deadline: float,
) -> Cover:
    """Examine ``cells`` and what they are halved into, as ``branch_and_bound.cover`` does, and turn those that become fewer by it.

    ``count`` boxes were examined before.
    """
    axes, is_turned = torch.eye(cells.low.shape[1], dtype=torch.float64), False
    while len(cells.low):
        fault = spent(count, len(cells.low), max_boxes, deadline)
        if fault:
            if count >= max_boxes:
                more = expected(cells, examine, base, deadline)
                fault = still_open(len(cells.low), max_boxes, f", and {_words(more)}, by a sample, are to come")
            return _stopped(cells, cells.middles, count, fault)
        batch, cells = cells.picked(slice(-AT_ONCE, None)), cells.picked(slice(None, -AT_ONCE))
        count += len(batch.low)
        parts = _parts(batch, examine, base)
        if isinstance(parts, Cover):
            return replace(parts, boxes=count)
        cells, is_turned = cells.joined(parts), is_turned or bool((batch.basis != axes).any())
        told(count, cells.share)
    return Cover(count, turned=is_turned)


def expected(cells: Cells, examine: Callable[[Cells], Found], base: Ball | Box, deadline: float = math.inf) -> float:
    """Return about how many boxes ``cells`` would take, by following some of them, drawn at each halving; infinity where no end is seen.

    Where few boxes take most of the work, that may be far too few.
    """
    generator, total, share = torch.Generator().manual_seed(0), 0.0, 1.0
    for _ in range(DEPTH):
        count = len(cells.low)
        if count > FOLLOWED:
            cells = cells.picked(torch.randperm(count, generator=generator)[:FOLLOWED])
            share *= count / FOLLOWED
        total += share * len(cells.low)
        parts = _parts(cells, examine, base)
        if isinstance(parts, Cover) or time.monotonic() > deadline:
            return math.inf
        if not len(parts.low):
            return total
        cells = parts
    return math.inf


def _words(count: float) -> str:
    """Return a count to one digit."""
    if count == math.inf:
        return "an unknown number"
    power = math.floor(math.log10(count))
    return f"some {int(round(count, -power))}" if power < 9 else f"some 10^{power}"


def _parts(cells: Cells, examine: Callable[[Cells], Found], base: Ball | Box) -> Cells | Cover:
    """Return the boxes to examine next in the place of ``cells``, or the end of the search."""
    cells, empty = cells.clipped()
    found, planes, inside, points = examine(cells)
    if bool(found.violated.any()):
        at = found.violated
        return replace(_stopped(cells.picked(at), points[at], 0, "the inequality fails"), fails=True)
    low, high = found.within or (cells.low, cells.high)
    is_open = ~(found.closed | empty)
    left, planes = cells._replace(low=low, high=high, inside=inside).picked(is_open), planes.picked(is_open)
    basis, better = _better(left, planes)
    rest = left.picked(~better)
    halves = halved(rest.low, rest.high, found.weights[is_open][~better])
    if halves is None:
        return _stopped(rest, rest.middles, 0, "a box too small to halve stayed open")
    grown = rest.joined(rest)
    grown = grown._replace(low=halves[0], high=halves[1], age=grown.age + 1, share=grown.share / 2)
    return grown.joined(turned(left.picked(better), basis[better], base))


def _better(cells: Cells, planes: Planes) -> tuple[Tensor, Tensor]:
    """Return the principal axes (B, n, n) of the gaps, as long as the boxes, and (B,) where boxes along them pay."""
    assert planes.bend is not None
    radius = (cells.high - cells.low) / 2
    scaled = planes.bend * radius[:, :, None] * radius[:, None]
    values, vectors = symmetric_eigenvectors(scaled)
    values, own = values.clamp(min=1e-9 * values.amax(1, keepdim=True)), scaled.diagonal(dim1=1, dim2=2)
    gain = (own / values).prod(1).sqrt()
    between, offset = (planes.lower + planes.upper) / 2, (planes.lower_offset + planes.upper_offset) / 2
    at_middle = (between * middle(cells.low, cells.high)).sum(1) + offset
    parts = gain * ((own.shape[1] * values / at_middle.abs()[:, None]).sqrt() + 1).prod(1)
    return cells.basis * radius[:, None] @ vectors, (gain > GAIN) & (parts > PARTS) & (cells.age >= HALVINGS)


def _stopped(cells: Cells, states: Tensor, count: int, fault: str) -> Cover:
    """Return the end of a search, at the one of ``states`` (B, n) whose box is the smallest."""
    sizes = (cells.basis.abs() @ (cells.high - cells.low)[..., None]).amax(1)
    return Cover(count, fault, tuple(states[int(sizes.argmin())].tolist()))
