"""Boxes that are turned: the states origin + basis y with y between two corners, each box with an origin and a basis of its own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.proofs.intervals.interval import Interval
from analysis.proofs.linear.forms import SMALLEST, UP, Boxes, Form
from analysis.proofs.linear.steps import Local, Step
from stabdeq.linear_algebra import solved

# An inverse this far from one is of no use, and its error's powers add up to little below it.
LARGEST_DEFECT = 0.1


@dataclass(frozen=True, eq=False)
class Frames:
    """Coordinates y of the states z = ``origin`` + ``basis`` y: (B, n) and (B, n, n), float64 numbers that are exact by definition."""

    origin: Tensor
    basis: Tensor

    @classmethod
    def axes(cls, count: int, dim: int) -> "Frames":
        """Return the frames in which y is the state."""
        origin = torch.zeros(count, dim, dtype=torch.float64)
        return cls(origin, torch.eye(dim, dtype=torch.float64).expand(count, dim, dim))

    def __getitem__(self, places: Tensor | slice) -> "Frames":
        return Frames(self.origin[places], self.basis[places])

    def at(self, coordinates: Tensor) -> Tensor:
        """Return states near those of ``coordinates`` (B, n)."""
        return self.origin + (self.basis @ coordinates[..., None])[..., 0]

    def states(self, boxes: Interval) -> Interval:
        """Return bounds of the states of ``boxes`` (B, n) of coordinates."""
        return Interval.point(self.origin) + _product(Interval.point(self.basis), boxes)

    def coordinates_of(self, frames: "Frames", boxes: Interval) -> tuple[Interval, Tensor]:
        """Return bounds of the coordinates here of the states that have coordinates in ``boxes`` (B, n) in other ``frames``.

        With R nearly the basis' inverse and R basis = I + E, y = R(z - origin) - E y, so that |y| <= |R(z - origin)| / (1 - |E|) in the
        largest coordinate. The second result (B,) says where the bounds are known.
        """
        inverse, defect = self._inverse
        apart = Interval.point(frames.origin) - Interval.point(self.origin)
        near = _product(_products(inverse, frames.basis), boxes) + _product(Interval.point(inverse), apart)
        share = defect / (1 - defect) * UP
        wide = (near.magnitude.amax(1) * share * UP)[:, None]
        found = near + Interval(-wide, wide)
        return found, (defect < LARGEST_DEFECT) & found.magnitude.isfinite().all(1)

    def faces_of(self, frames: "Frames", boxes: Interval, own: Interval) -> Tensor:
        """Return the faces (B, 2n, n + 1) of ``boxes`` in other ``frames``, as what holds of the coordinates here between ``own`` (B, n).

        A row (a, b) says a . y + b >= 0, for every state in such a box. With R nearly the other basis' inverse, the other coordinates
        are R(z - its origin) give or take a share of the largest.
        """
        inverse, defect = frames._inverse
        slopes = _products(inverse, self.basis)
        plain = slopes.low / 2 + slopes.high / 2
        apart = Interval.point(self.origin) - Interval.point(frames.origin)
        spare = (defect * boxes.magnitude.amax(1) * UP)[:, None]
        wide = (spare + _product(slopes - Interval.point(plain), own).magnitude) * UP
        shift = _product(Interval.point(inverse), apart) + Interval(-wide, wide)
        below, above = shift.high - boxes.low, boxes.high - shift.low
        offsets = [_up(below), _up(above)]
        rows = [torch.cat([sign * plain, offset[..., None]], 2) for sign, offset in zip((1, -1), offsets, strict=True)]
        return torch.cat(rows, 1)

    def faces_of_states(self, low: Tensor, high: Tensor) -> Tensor:
        """Return the faces (B, 2n, n + 1) of the box of states between ``low`` and ``high`` (n,), as ``faces_of`` does."""
        offsets = [_up(self.origin - low), _up(high - self.origin)]
        rows = [
            torch.cat([sign * self.basis, offset[..., None]], 2) for sign, offset in zip((1, -1), offsets, strict=True)
        ]
        return torch.cat(rows, 1)

    @property
    def _inverse(self) -> tuple[Tensor, Tensor]:
        """Return a matrix (B, n, n) near the basis' inverse, and at least how far their product is from the identity (B,)."""
        identity = torch.eye(self.basis.shape[-1], dtype=torch.float64)
        inverse = solved(self.basis, identity.expand_as(self.basis))
        defect = (_products(inverse, self.basis) - Interval.point(identity)).magnitude
        return inverse, defect.sum(2).amax(1) * UP


@dataclass(frozen=True, eq=False)
class Placed(Step):
    """The states of the coordinates in ``frames``."""

    frames: Frames

    def forward(self, forms: list[Form], boxes: Boxes, rounding: float) -> tuple[Form, Local]:
        (form,) = forms
        basis, shift = self.frames.basis.permute(1, 2, 0), self.frames.origin.mT
        centre = (basis * form.centre).sum(1) + shift
        size = (basis.abs() * form.size).sum(1) + shift.abs()
        rounded = (size * rounding + SMALLEST) * UP
        return Form(torch.cat([basis, centre[:, None]], 1), rounded, boxes), Local((), shift, rounded)

    def backward(self, coefficients: Tensor, local: Local) -> list[Tensor]:
        return [(self.frames.basis.permute(1, 2, 0)[:, :, None] * coefficients[:, None]).sum(0)]


def _products(a: Tensor, b: Tensor) -> Interval:
    """Return bounds of the products (B, n, n) of matrices that are known exactly."""
    return Interval.point(a).matmul(Interval.point(b))


def _product(matrices: Interval, vectors: Interval) -> Interval:
    return matrices.matmul(vectors.moved(lambda bound: bound[..., None])).moved(lambda bound: bound[..., 0])


def _up(value: Tensor) -> Tensor:
    return torch.nextafter(value, value.new_tensor(torch.inf))
