"""Bounds that planted faults made too narrow without a test that saw it."""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from proof_cells import certified_cell
from torch import Tensor

from analysis.evidence.regions import Box
from analysis.proofs.barriers import prove_barrier, prove_on_set
from analysis.proofs.box_search import Proof, Search, Unproved
from analysis.proofs.boxes import is_definite
from analysis.proofs.cells import affine_ball, decay, deployed
from analysis.proofs.cells.extractor import lipschitz_constant
from analysis.proofs.cells.gain import smallest_gain
from analysis.proofs.cells.network import forms_of, of_certified_cell
from analysis.proofs.falling import along_the_flow
from analysis.proofs.intervals.graph import FunctionEnclosure
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.linear import LinearBounds
from analysis.proofs.linear.forms import Boxes
from analysis.proofs.matrices.enclosure import Enclosure
from analysis.proofs.tracing import read, trace
from stabdeq.backbones.lipschitz import ResidualLinear
from stabdeq.cells import CertifiedCell


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


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def fractions(values: Tensor) -> list[Fraction]:
    return [Fraction(value) for value in values.tolist()]


def test_a_box_is_within_its_radius_of_its_centre() -> None:
    low = draws(1, 200)
    boxes = Boxes(low, low + draws(1, 200, seed=1).abs())
    for ends in zip(*(fractions(part[0]) for part in (boxes.low, boxes.high, boxes.centre, boxes.radius)), strict=True):
        least, most, centre, radius = ends
        assert max(most - centre, centre - least) <= radius <= (most - least) / 2 * (1 + Fraction(1, 10**12))


# Searches on boxes.


def test_what_reaches_0_is_not_positive() -> None:
    """On sets where the value is 0 on a face alone, so that no box has it below 0."""
    base = Box(torch.zeros(2).double(), torch.zeros(2).double(), torch.ones(2).double())

    def found(value: Callable[[Tensor], Tensor], *, strictly: bool) -> Proof | Unproved:
        return prove_on_set(value, lambda z: z[:, 1] - 5, base, "it is", strictly_positive=strictly, max_boxes=64)

    assert isinstance(found(lambda z: z[:, 0], strictly=True), Unproved)
    assert isinstance(found(lambda z: z[:, 0] + 1e-3, strictly=True), Proof)
    assert isinstance(found(lambda z: -z[:, 0], strictly=False), Proof)


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_a_barrier_that_rises_where_it_is_0_is_not_proved(scale: float) -> None:
    base = Box(torch.zeros(2).double(), torch.full((2,), -1.0).double(), torch.ones(2).double())

    def found(speed: float) -> Proof | Unproved:
        return prove_barrier(lambda z: scale * (z[:, 0] - 0.3), lambda z: speed + 0.1 * z * z, base, max_boxes=200)

    assert isinstance(found(-0.5), Proof)
    assert isinstance(found(0.05), Unproved)


def test_what_is_taken_off_around_the_centre_is_enough_for_what_is_not_quite_0_there() -> None:
    for constant, slope, inner in draws(100, 3).abs().tolist():
        base = Box(torch.zeros(1).double(), torch.full((1,), -9.0).double(), torch.full((1,), 9.0).double())
        search = Search(torch.Tensor.sum, None, base, None, 1, math.inf, inner)
        taken = Fraction(float(search.slack(constant, slope))) * Fraction(inner) ** 2 / 2
        needed = Fraction(constant) + Fraction(slope) * Fraction(inner)
        assert needed <= taken <= needed * (1 + Fraction(1, 10**8))


def test_a_state_where_v_rises_is_told_by_linear_bounds() -> None:
    base = Box(torch.zeros(2).double(), torch.full((2,), -2.0).double(), torch.full((2,), 2.0).double())
    search = Search(lambda z: z.square().sum(1), lambda z: torch.stack([z[:, 0], -z[:, 1]], 1), base, None, 9, math.inf)
    falling = along_the_flow(search, strictly=True)
    assert falling is not None
    points = torch.tensor([[1.0, 0.1], [0.1, 1.0], [0.0, 0.0]]).double()
    found = falling(Interval(points - 0.05, points + 0.05), Interval.point(points))
    assert found.violated.tolist() == [True, False, False]
    assert found.closed.tolist() == [False, True, False]


# Certificates of cells.


def test_eigenvalues_of_a_norm_are_bounded_or_said_not_to_be() -> None:
    """P - least I and largest I - P in rational numbers, of matrices so thin that their least eigenvalue is rounding."""
    angles = torch.arange(60, dtype=torch.float64)
    cos, sin, thin = angles.cos(), angles.sin(), 10.0 ** -(5 + angles % 9)
    mixed = cos * sin * (1 - thin)
    norms = torch.stack([cos**2 + thin * sin**2, mixed, mixed, sin**2 + thin * cos**2], 1).reshape(-1, 2, 2)
    least, largest, proved = affine_ball._bounds(norms)
    assert 10 < int(proved.sum()) < 60
    for place in proved.nonzero().squeeze(1).tolist():
        (a, b), (_, d) = (fractions(row) for row in norms[place])
        below, above = Fraction(float(least[place])), Fraction(float(largest[place]))
        assert 0 < below < a
        assert (a - below) * (d - below) > b * b
        assert (above - a) * (above - d) > b * b


@pytest.mark.parametrize("kind", ["flow", "map"])
def test_a_rate_is_not_taken_from_an_estimate_on_trust(kind: decay.Kind) -> None:
    """Of weights that are hardly known an estimate says the same as of those that are, and nothing is proved."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, _, start = forms_of(CertifiedCell(3).double())
    network = network if kind == "map" else network.flow()
    assert start is not None
    proposal = torch.diag(start), start
    assert decay._proved(network, proposal, kind) is not None
    unknown = replace(network, state=Enclosure(network.state.centre, network.state.radius + 1.0))
    assert decay.smallest_theta(unknown, *proposal, kind) == decay.smallest_theta(network, *proposal, kind)
    assert decay._proved(unknown, proposal, kind) is None


def test_a_multiplier_without_room_has_no_gain() -> None:
    _, equation = of_certified_cell(certified_cell(3, 0))
    multipliers = torch.tensor([[1.0], [1e-9]]).double() * torch.ones(3).double()
    found = smallest_gain(equation, equation.output.centre, equation.injection.centre, 10 * multipliers)
    assert found.isinf().tolist() == [False, True]


def test_a_residual_layer_never_moves_less_than_the_identity() -> None:
    layer = ResidualLinear(3, 4).double()
    for factor in (0.0, 1.0, 100.0):
        with torch.no_grad():
            layer.weight.copy_(factor * draws(4, 3))
            assert 1 <= lipschitz_constant(layer) < 1 + 1e-6


# What a run in few digits is charged.


def test_known_charges_of_rounding() -> None:
    u = 2.0**-24
    single = deployed.Arithmetic(torch.float32, 0.0, {})
    assert deployed.gamma(2**24, torch.float32) == math.inf
    assert deployed.gamma(2**23, torch.float32) == pytest.approx(1)
    sizes = torch.tensor([8.0, 3e38], dtype=torch.float64)
    assert single.rounding(3, sizes).tolist() == pytest.approx([24 * u, math.inf], rel=1e-5)
    # Of one product there is no sum: its own rounding is u times its size, which reach moves by |W| times as much.
    sizes, values, reach = (torch.tensor(one, dtype=torch.float64) for one in ([[3.0, 4.0]], [[0.0, 0.0]], [10.0]))
    assert float(deployed.summed(single, 1, sizes, values, (1.0, 2.0), reach)) == pytest.approx(25 * u, rel=1e-5)


def test_known_distances_of_derived_weights() -> None:
    exact = torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]], dtype=torch.float64)
    moved = exact + torch.tensor([[1e-3, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    for one, other in ((moved, exact), (moved.mT, exact.mT)):
        assert deployed.distance(one, other) == pytest.approx(1e-3 / 4, rel=1e-5)
        assert deployed.distance(one / 10, other / 10) == pytest.approx(1e-4, rel=1e-5)
    assert deployed.distance(moved[0], exact[0]) == pytest.approx(1e-3 / 3, rel=1e-5)
    assert deployed.distance(exact.float(), exact) == 0
