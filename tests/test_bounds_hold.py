"""Bounds that planted faults made too narrow without a test that saw it."""

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from analysis.proofs.boxes import is_definite
from analysis.proofs.intervals.graph import FunctionEnclosure
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.linear import LinearBounds
from analysis.proofs.tracing import read, trace


def test_no_matrix_between_the_bounds_is_overlooked() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        root, direction = (torch.randn(3, columns, dtype=torch.float64, generator=generator) for columns in (3, 1))
        direction = direction / direction.norm()
        middle = root @ root.mT
        radius = torch.rand(3, 3, dtype=torch.float64, generator=generator)
        radius = radius + radius.mT
        # The matrix between the bounds with signs as v v' has makes v'Mv - c |v|'R|v| of v, here a little below 0.
        share = float(direction.mT @ middle @ direction / (direction.abs().mT @ radius @ direction.abs()))
        radius = radius * share * 1.001
        bounds = Interval((middle - radius)[None], (middle + radius)[None])
        for strictly in (True, False):
            assert not bool(is_definite(bounds, strictly))
        narrow = 1e-3 * torch.linalg.eigvalsh(middle).amin() / radius.sum()
        assert bool(is_definite(Interval((middle - narrow * radius)[None], (middle + narrow * radius)[None]), True))


@pytest.mark.parametrize(
    ("function", "sides"),
    [
        (torch.atanh, (-2.0, 0.5)),
        (torch.atanh, (-0.5, 2.0)),
        (torch.asin, (-2.0, 0.5)),
        (torch.acos, (0.5, 2.0)),
        (torch.acosh, (0.5, 2.0)),
        (torch.log, (-1.0, 2.0)),
        (torch.log2, (-1.0, 2.0)),
        (torch.log10, (-1.0, 2.0)),
        (torch.log1p, (-2.0, 2.0)),
        (torch.sqrt, (-1.0, 2.0)),
        (torch.rsqrt, (-1.0, 2.0)),
        (torch.reciprocal, (-1.0, 2.0)),
    ],
)
def test_nothing_is_known_beyond_a_domain(function: Callable[[Tensor], Tensor], sides: tuple[float, float]) -> None:
    inside = torch.full((2, 1), 1.5 if function is torch.acosh else 0.4, dtype=torch.float64)

    def value(z: Tensor) -> Tensor:
        return function(z[:, 0])

    graph = trace(value, inside[:1])
    box = Interval(*(torch.tensor([[side]], dtype=torch.float64) for side in sides))
    assert bool(LinearBounds(graph)(box).value.high.isnan())
    assert bool(FunctionEnclosure(value, inside, graph)(box, 0).value.high.isnan())


def test_constants_of_several_numbers_are_all_taken() -> None:
    factors, terms = torch.tensor([1.0, 3, 3]).double(), torch.tensor([0.0, 5, 0]).double()
    point = torch.tensor([[1.0, 2, 4]]).double()
    for function, expected in (
        (lambda z: (z * factors).sum(1), 19.0),
        (lambda z: (z + terms).square().sum(1), 66.0),
        (lambda z: (z / factors).square().sum(1), 1 + 4 / 9 + 16 / 9),
    ):
        found = LinearBounds(trace(function, point))(Interval.point(point)).value
        assert float(found.low) == pytest.approx(expected)
        assert float(found.high) == pytest.approx(expected)


def test_all_places_are_sorted() -> None:
    weights = torch.arange(1.0, 7, dtype=torch.float64)
    states = torch.tensor([[6.0, 5, 4, 3, 2, 1], [1, 3, 2, 6, 5, 4]]).double()
    graph = read(lambda z: (z.sort(1).values * weights).sum(1), states)
    assert float(graph(states[:1])) == float((torch.arange(1.0, 7) ** 2).sum())


def test_many_scalings_in_a_row_are_bounded_whichever_way_they_round() -> None:
    generator = torch.Generator().manual_seed(0)
    factors, rounded, exact = [], 1.0, Fraction(1)
    for _ in range(200):  # the candidate whose product is rounded up by the most
        drawn = (0.75 + 0.5 * torch.rand(20, dtype=torch.float64, generator=generator)).tolist()
        factors.append(
            max(drawn, key=lambda factor: Fraction(rounded * factor) / (Fraction(rounded) * Fraction(factor)))
        )
        rounded, exact = rounded * factors[-1], exact * Fraction(factors[-1])
    one = torch.ones(1, 1, dtype=torch.float64)
    graph = trace(lambda z: math.prod(factors, start=z[:, 0]), one)
    found = LinearBounds(graph)(Interval.point(one))
    assert Fraction(float(found.value.low)) <= exact <= Fraction(float(found.value.high))
