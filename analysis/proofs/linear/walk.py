"""A program's steps taken over boxes: forwards, which gives a form of every result, and backwards, which gives closer ones."""

from typing import NamedTuple

import torch
from torch import Tensor

from analysis.proofs.intervals.interval import ROUNDOFF
from analysis.proofs.linear.forms import UP, Boxes, Form, reach
from analysis.proofs.linear.steps import Local, Step
from analysis.proofs.linear.tilting import UNDERFLOWN, Squares


class Charge(NamedTuple):
    """An ``error`` (m, B) that comes of the spread of m numbers over boxes: their ``slopes`` (m, n, B) and their ``radius`` (m, B)."""

    slopes: Tensor
    radius: Tensor
    error: Tensor


class Walk:
    """The forms of the ``steps``, by their places, over ``boxes``; ``rounding`` is the relative error of any coefficient.

    The states are step 0, or the coordinates that they are made of step -1.
    """

    def __init__(self, steps: dict[int, Step], boxes: Boxes, rounding: float) -> None:
        self._steps, self._boxes, self._rounding = steps, boxes, rounding
        self._first = -1 if -1 in steps else 0
        self.forms: dict[int, Form] = {}
        self._found: dict[int, Local] = {}

    def forward(self, place: int) -> Form:
        """Return the form of a result, of which those that it is made of are known."""
        step = self._steps[place]
        sources = [self.forms[source] for source in step.sources]
        self.forms[place], self._found[place] = step.forward(sources, self._boxes, self._rounding)
        return self.forms[place]

    def sharpen(self, place: int) -> None:
        """Take the form that a result has backwards where it is closer: errors that cancel in a sum add up in the other."""
        form, centre = self.forms[place], self._boxes.centre
        slopes, offset, error, _, _ = self.backward(place)
        middle = (slopes * centre).sum(1) + offset
        # A sum of n + 1 products.
        size = (slopes.abs() * centre.abs()).sum(1) + offset.abs()
        error = (error + size * ((len(centre) + 4) * ROUNDOFF)) * UP
        found = Form(torch.cat([slopes, middle[:, None]], 1), error, self._boxes)
        closer = found.radius < form.radius
        terms = torch.where(closer[:, None], found.terms, form.terms)
        self.forms[place] = Form(terms, torch.where(closer, found.error, form.error), self._boxes, form.range)

    def backward(self, place: int) -> tuple[Tensor, Tensor, Tensor, list[Charge], list[Squares]]:
        """Return each number (m,) of a result as a linear function of the states: slopes (m, n, B), offset and error (m, B).

        It is slopes . z + offset, give or take the error. The fourth result says where the error of the first number comes from, as far
        as an upper plane cannot follow it, and the last one what is concave in it.
        """
        size, count = self.forms[place].error.shape
        coefficients = {place: torch.eye(size, dtype=torch.float64)[:, :, None].expand(size, size, count)}
        offset, error = torch.zeros(2, size, count, dtype=torch.float64)
        charges, concave = [], []
        for at in sorted(self.forms, reverse=True):
            if at not in coefficients or at == self._first:
                continue
            step, local, own = self._steps[at], self._found[at], coefficients.pop(at)
            added = own.abs() * local.error[:, None]
            error += added.sum(0)
            if local.squares is None:
                charges += [Charge(form.slopes, form.radius, added[:, 0]) for form in local.bent]
            else:
                convex, rest = Squares.of(own[:, 0], *local.squares)
                radius = reach(convex.slopes, self._boxes.radius) + convex.spare
                charges.append(Charge(convex.slopes, radius, convex.weight * radius.square() / 4))
                concave.append(rest)
            if local.shift is not None:
                offset += (own * local.shift[:, None]).sum(0)
            for source, part in zip(step.sources, step.backward(own, local), strict=True):
                if len(part):
                    coefficients[source] = coefficients[source] + part if source in coefficients else part
        slopes = coefficients.get(self._first)
        slopes = torch.zeros(len(self._boxes.centre), size, count, dtype=torch.float64) if slopes is None else slopes
        error = (error * (1 + self._rounding) + UNDERFLOWN) * UP + offset.abs() * (4 * ROUNDOFF)
        return slopes.transpose(0, 1), offset, error, charges, concave
