"""The steps of a program on vectors of numbers, each a linear function of earlier ones with an error that depends on the boxes.

A step says of its result y = A x + m, give or take r: forwards, what the form of y is, given those of x; and backwards, what
coefficients p of y, in p'y, become as coefficients A'p of x, with p'm give or take |p|'r. The coefficients are rounded, which
r covers: ``rounding`` is what a coefficient's relative error may be, and is charged with the size of what it multiplies.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from analysis.proofs.intervals.interval import Interval
from analysis.proofs.linear.forms import SMALLEST, UP, Boxes, Form, reach
from analysis.proofs.linear.relaxations import Relaxation


@dataclass(frozen=True, eq=False)
class Local:
    """What a step found on the boxes: ``factors`` of its operands (m, B), the ``shift`` (m, B) or None, its ``error`` r (m, B).

    ``bent`` are the forms whose spread over the boxes makes the error, where it is more than rounding. ``squares`` are, of few products
    u v about the centre, the slopes (m, n, B) of p and of q with 4 u v = p^2 - q^2, and what both are off by, (m, B).
    """

    factors: tuple[Any, ...]
    shift: Tensor | None
    error: Tensor
    bent: tuple[Form, ...] = ()
    squares: tuple[Tensor, Tensor, Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """A result of ``size`` numbers, from the results of the steps ``sources``."""

    size: int
    sources: tuple[int, ...]

    def forward(self, forms: list[Form], boxes: Boxes, rounding: float) -> tuple[Form, Local]:
        """Return the form of the result, given those of the sources, and what ``backward`` needs."""
        raise NotImplementedError

    def backward(self, coefficients: Tensor, local: Local) -> list[Tensor]:
        """Return the coefficients (k, r, B) of each source that stand for ``coefficients`` (m, r, B) of the result, in r sums."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class States(Step):
    """The coordinates of the state."""

    def forward(self, forms: list[Form], boxes: Boxes, rounding: float) -> tuple[Form, Local]:
        dim, count = boxes.centre.shape
        terms = torch.cat(
            [torch.eye(dim, dtype=torch.float64)[:, :, None].expand(dim, dim, count), boxes.centre[:, None]], 1
        )
        zero = torch.zeros(dim, count, dtype=torch.float64)
        # The terms are exact, with the radius of the boxes around their centres rounded upwards.
        return Form(terms, zero, boxes, Interval(boxes.low, boxes.high)), Local((), None, zero)

    def backward(self, coefficients: Tensor, local: Local) -> list[Tensor]:
        return []


@dataclass(frozen=True, eq=False)
class Constant(Step):
    """Numbers that depend on no state, known to lie in an interval (m,)."""

    value: Interval

    def forward(self, forms: list[Form], boxes: Boxes, rounding: float) -> tuple[Form, Local]:
        return _within(
            self.value.moved(lambda bound: bound[:, None].expand(-1, boxes.centre.shape[1])), boxes, rounding
        )

    def backward(self, coefficients: Tensor, local: Local) -> list[Tensor]:
        return []


@dataclass(frozen=True, eq=False)
class Enclosed(Step):
    """Numbers of which an interval over the boxes alone is known, computed by ``enclose`` from those of the sources."""

    enclose: Callable[[list[Interval]], Interval]

    def forward(self, forms: list[Form], boxes: Boxes, rounding: float) -> tuple[Form, Local]:
        found = self.enclose([form.range for form in forms])
        return _within(found.moved(lambda bound: bound.expand(self.size, boxes.centre.shape[1])), boxes, rounding)

    def backward(self, coefficients: Tensor, local: Local) -> list[Tensor]:
        return [torch.zeros(0)] * len(self.sources)


def _within(value: Interval, boxes: Boxes, rounding: float) -> tuple[Form, Local]:
    middle = value.low / 2 + value.high / 2
    radius = torch.maximum(value.high - middle, middle - value.low)
    error = (radius + middle.abs() * rounding + SMALLEST) * UP
    terms = torch.zeros(len(middle), len(boxes.centre) + 1, middle.shape[1], dtype=torch.float64)
    terms[:, -1] = middle
    return Form(terms, error, boxes, value), Local((), middle, error)


@dataclass(frozen=True, eq=False)
class Moved(Step):
    """Numbers picked by ``index`` (m,) from those of the sources, one after the other."""

    index: Tensor
    lengths: tuple[int, ...]

    def forward(self, forms: list[Form], boxes: Boxes, rounding: float) -> tuple[Form, Local]:
        terms = torch.cat([form.terms for form in forms])[self.index] if len(forms) > 1 else forms[0].terms[self.index]
        error = torch.cat([form.error for form in forms])[self.index]
        low, high = (torch.cat([getattr(form.range, end) for form in forms])[self.index] for end in ("low", "high"))
        # Coefficients that meet in one number are added.
        size = torch.cat([form.size for form in forms])[self.index]
        return Form(terms, error, boxes, Interval(low, high)), Local((), None, size * rounding + SMALLEST)

    def backward(self, coefficients: Tensor, local: Local) -> list[Tensor]:
        total = torch.zeros(sum(self.lengths), *coefficients.shape[1:], dtype=torch.float64)
        return list(total.index_add_(0, self.index, coefficients).split(self.lengths))


@dataclass(frozen=True, eq=False)
class Weighted(Step):
    """The sum of the sources, each times its factor (m, 1) or number, and of ``bias`` (m, 1)."""

    factors: tuple[Tensor, ...]
    bias: Tensor | None = None

    def forward(self, forms: list[Form], boxes: Boxes, rounding: float) -> tuple[Form, Local]:
        terms: Any = None
        error: Any = None
        size: Any = None
        for form, factor in zip(forms, self.factors, strict=True):
            magnitude = factor.abs()
            parts = form.terms * factor[..., None], form.error * magnitude, form.size * magnitude
            terms, error, size = parts if terms is None else (terms + parts[0], error + parts[1], size + parts[2])
        if self.bias is not None:
            terms[:, -1] += self.bias
            size = size + self.bias.abs()
        rounded = (size * rounding + SMALLEST) * UP
        bias = None if self.bias is None else self.bias.expand(self.size, terms.shape[-1])
        return Form(terms, (error + rounded) * UP, boxes), Local((), bias, rounded)

    def backward(self, coefficients: Tensor, local: Local) -> list[Tensor]:
        return [coefficients * factor[..., None] for factor in self.factors]


@dataclass(frozen=True, eq=False)
class Matrix(Step):
    """A matrix (m, k) times the source, plus ``bias`` (m, 1)."""

    matrix: Tensor
    bias: Tensor | None = None
    magnitudes: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "magnitudes", self.matrix.abs())

    def forward(self, forms: list[Form], boxes: Boxes, rounding: float) -> tuple[Form, Local]:
        (form,) = forms
        length, parts, count = form.terms.shape
        terms = (self.matrix @ form.terms.reshape(length, parts * count)).reshape(-1, parts, count)
        # Higham 2002, section 3.1: a product of k terms errs by k half units of the terms' magnitudes, in any order.
        rounded = self.magnitudes @ (form.size * (rounding * UP) + SMALLEST)
        error = self.magnitudes @ form.error
        bias = None
        if self.bias is not None:
            terms[:, -1] += self.bias
            rounded = rounded + self.bias.abs() * rounding
            bias = self.bias.expand(-1, count)
        rounded = (rounded + SMALLEST) * UP
        return Form(terms, (error * (1 + rounding) + rounded) * UP, boxes), Local((), bias, rounded)

    def backward(self, coefficients: Tensor, local: Local) -> list[Tensor]:
        return [(self.matrix.mT @ coefficients.flatten(1)).reshape(-1, *coefficients.shape[1:])]


@dataclass(frozen=True, eq=False)
class Elementary(Step):
    """A function of each number of the source, by its ``relaxation``."""

    relaxation: Relaxation

    def forward(self, forms: list[Form], boxes: Boxes, rounding: float) -> tuple[Form, Local]:
        (form,) = forms
        slope, gap, value = self.relaxation(form.range)
        shift = gap.low / 2 + gap.high / 2
        error = torch.maximum(gap.high - shift, shift - gap.low) * UP
        magnitude = slope.abs()
        error = (error + (magnitude * form.size + shift.abs()) * rounding + SMALLEST) * UP
        terms = form.terms * slope[:, None]
        terms[:, -1] += shift
        total = (magnitude * form.error + error) * UP
        return Form(terms, total, boxes, value), Local((slope,), shift, error, (form,))

    def backward(self, coefficients: Tensor, local: Local) -> list[Tensor]:
        return [coefficients * local.factors[0][:, None]]


@dataclass(frozen=True, eq=False)
class Product(Step):
    """The products of the numbers of two sources.

    With x = x0 + u and y = y0 + v, x y = y0 x + x0 y - x0 y0 + u v, and 4 u v = (s u + v / s)^2 - (s u - v / s)^2.
    """

    def forward(self, forms: list[Form], boxes: Boxes, rounding: float) -> tuple[Form, Local]:
        first, second = forms
        x, y = first.centre, second.centre
        # Any scale s > 0 will do; this one makes both terms as large as each other.
        scale = (second.radius / first.radius).sqrt().clamp(1e-50, 1e50).nan_to_num(1.0)
        inverse = 1 / scale
        scaled, other = first.slopes * scale[:, None], second.slopes * inverse[:, None]
        # Rounding of the scaled slopes, and 1 / s, which is not quite that, cost a few units of both radii.
        spare = (first.error + first.radius * rounding) * scale + (second.error + second.radius * rounding) * inverse
        parts = scaled + other, scaled - other
        together, apart = ((reach(part, boxes.radius) + spare).square_().mul_(1 / 4) for part in parts)
        middle, error = (together - apart) / 2, (together + apart) / 2
        shift = middle - x * y
        size = first.size * second.size
        error = (error * (1 + 8 * rounding) + (size * 4) * rounding + SMALLEST) * UP
        terms = first.terms * y[:, None]
        terms.addcmul_(second.terms, x[:, None])
        terms[:, -1] += shift
        total = (x.abs() * second.error + y.abs() * first.error + error) * UP
        squares = (*parts, spare * UP) if self.size <= len(boxes.centre) else None
        return Form(terms, total, boxes), Local((y, x), shift, error, (first, second), squares)

    def backward(self, coefficients: Tensor, local: Local) -> list[Tensor]:
        return [coefficients * factor[:, None] for factor in local.factors]


@dataclass(frozen=True, eq=False)
class Choice(Step):
    """The first source where a condition holds, else the second; ``holds`` says, from the ranges of the others, where it surely and
    possibly does.
    """

    holds: Callable[[list[Interval]], tuple[Tensor, Tensor]]

    def forward(self, forms: list[Form], boxes: Boxes, rounding: float) -> tuple[Form, Local]:
        first, second, *others = forms
        shape = first.error.shape
        sure, possible = (flag.expand(shape) for flag in self.holds([form.range for form in others]))
        # (a + b) / 2, give or take |a - b| / 2, where the condition is open.
        open_question = possible & ~sure
        share = torch.where(sure, 1.0, torch.where(possible, 0.5, 0.0)).to(torch.float64)
        rest = 1 - share
        apart = first.terms - second.terms
        size = (first.size * share + second.size * rest) * UP
        gap = reach(apart[:, :-1], boxes.radius) + apart[:, -1].abs() + first.error + second.error
        gap = (gap / 2 + rounding * (first.size + second.size)) * UP
        rounded = (size * rounding + SMALLEST) * UP
        error = rounded + torch.where(open_question, gap, 0)
        terms = torch.where(
            sure[:, None],
            first.terms,
            torch.where(possible[:, None], second.terms + apart / 2, second.terms),
        )
        total = torch.where(sure, first.error, torch.where(possible, (first.error + second.error) / 2, second.error))
        a, b = first.range, second.range
        both = a.hull(b)
        hull = Interval(
            *(
                torch.where(sure, one, torch.where(possible, either, two))
                for one, either, two in ((a.low, both.low, b.low), (a.high, both.high, b.high))
            )
        )
        return Form(terms, (total + error) * UP, boxes, hull), Local((share, rest), None, error)

    def backward(self, coefficients: Tensor, local: Local) -> list[Tensor]:
        return [coefficients * factor[:, None] for factor in local.factors] + [torch.zeros(0)] * (len(self.sources) - 2)
