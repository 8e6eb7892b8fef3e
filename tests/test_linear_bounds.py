"""Linear bounds over boxes, held against ball arithmetic and against what is known by hand."""

import math
import os
from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch
from flint import arb, ctx
from test_second_engine import BINARY, UNARY, graph_of, is_within, states_of
from torch import Tensor, fx

from analysis.proofs.balls import evaluate, exact
from analysis.proofs.intervals.branch_and_bound import Examined, cover
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.intervals.operations import UnboundedError
from analysis.proofs.lie_derivative import composed, lie_derivative, without_last_increase
from analysis.proofs.linear import LinearBounds, Planes, contracted
from analysis.proofs.tracing import TraceError, read, trace

PROGRAMS = int(os.environ.get("PROGRAMS", "150"))
BITS = 128
WIDTHS = torch.tensor([0.0, 1e-9, 1e-3, 0.1, 0.7, 5.0], dtype=torch.float64)[:, None]

OTHERS: list[Callable[[Tensor], Tensor]] = [
    lambda u: u.clamp(-0.3, 0.4),
    lambda u: torch.nn.functional.leaky_relu(u, 0.1),
    lambda u: torch.nn.functional.hardtanh(u),
    lambda u: torch.sign(u) * u,
    lambda u: (u > 0.2) * u,
    lambda u: (u > 0).double() + u,
    lambda u: torch.where(u > 0, u.tanh(), u.sin()),
    lambda u: torch.exp(u) / (2 + torch.cos(u)),
    lambda u: torch.rsqrt(1 + u * u),
    lambda u: torch.log(2 + torch.sin(u)),
    lambda u: u.tan(),
    lambda u: u**4 - u**-1,
    lambda u: u.pow(1.5),
    lambda u: torch.stack([u, u * u, 1 - u], 1).amax(1),
    lambda u: torch.stack([u, u * u, 1 - u], 1).amin(1),
    lambda u: torch.stack([u, u * u, 1 - u], 1).mean(1),
    lambda u: torch.nn.functional.silu(u),
    lambda u: u / 3 + u / 0.1,
    lambda u: torch.erf(u) + torch.cosh(u / 4),
    lambda u: torch.asinh(u) * torch.nn.functional.elu(u),
    lambda u: torch.floor(u) + torch.atan2(u, 1 + u * u),
]


@pytest.fixture(autouse=True)
def _bits() -> Generator[None]:
    before, ctx.prec = ctx.prec, BITS
    yield
    ctx.prec = before


def box(*sides: tuple[float, float]) -> Interval:
    """One box (1, n) with these sides."""
    ends = torch.tensor([sides], dtype=torch.float64)
    return Interval(ends[..., 0], ends[..., 1])


def recorded(function: Callable[[Tensor], Tensor], dim: int = 2) -> fx.GraphModule:
    return trace(function, 0.25 + torch.arange(dim, dtype=torch.float64)[None] / 8)


def gap_at(planes: Planes, states: Tensor) -> Tensor:
    """Return how far (B,) the planes are apart at one of the ``states`` (B, n) each."""
    return ((planes.upper - planes.lower) * states).sum(1) + planes.upper_offset - planes.lower_offset


def assert_holds(planes: Planes, row: int, state: Tensor, value: arb, label: Any) -> None:
    """The planes hold a value at a state, and so does the range; a ball that is not finite is undecided, as that of x > x."""
    if not value.is_finite():
        return
    assert is_within(value, float(planes.value.low[row]), float(planes.value.high[row])), label
    for slope, offset, sign in (
        (planes.lower[row], planes.lower_offset[row], 1),
        (planes.upper[row], planes.upper_offset[row], -1),
    ):
        if not bool(slope.isfinite().all()) or not bool(offset.isfinite()):
            continue
        plane = arb(float(offset)) + sum(arb(float(a)) * arb(float(b)) for a, b in zip(slope, state, strict=True))
        assert not (value - plane) * sign < 0, label


def assert_sound(
    graph: fx.GraphModule, seed: int, value: Callable[[Tensor], arb], label: Any, centre: float = 0.0
) -> Planes:
    """Random states of random boxes of many sizes have values between the planes."""
    generator, dim = torch.Generator().manual_seed(seed), len(graph(torch.zeros(1, 2, dtype=torch.float64))) + 1
    middles = centre + torch.randn(len(WIDTHS), dim, dtype=torch.float64, generator=generator)
    low, high = middles - WIDTHS, middles + WIDTHS
    planes = LinearBounds(graph)(Interval(low, high))
    shares = torch.rand(3, *low.shape, dtype=torch.float64, generator=generator)
    for inside in (*(low + shares * (high - low)), low, torch.where(shares[0] < 0.5, low, high)):
        for row, state in enumerate(torch.minimum(torch.maximum(inside, low), high)):
            assert_holds(planes, row, state, value(state), label)
    return planes


def ball_of(graph: fx.GraphModule) -> Callable[[Tensor], arb]:
    return lambda state: evaluate(graph, exact(state)).value.reshape(-1)[0]


@pytest.mark.parametrize("place", range(len(UNARY) + len(OTHERS)))
def test_an_operation_is_between_its_planes(place: int) -> None:
    operation = (UNARY + OTHERS)[place]
    graph = recorded(lambda z: operation(z[:, 0] * 1.25 + 0.5 * z[:, 1]))
    for seed in range(3):
        planes = assert_sound(graph, seed, ball_of(graph), place, centre=0.75)
    assert bool(planes.upper.isfinite().all(1)[:3].any())


@pytest.mark.parametrize("place", range(len(BINARY)))
def test_an_operation_on_two_is_between_its_planes(place: int) -> None:
    graph = recorded(lambda z: BINARY[place](z[:, 0] + 0.5 * z[:, 1], z[:, 0] * z[:, 1]))
    for seed in range(3):
        assert_sound(graph, seed, ball_of(graph), place)


def test_products_of_matrices_are_between_their_planes() -> None:
    def function(z: Tensor) -> Tensor:
        left = torch.stack([z, z.sin()], 1)
        right = torch.stack([z.cos(), z * z, z + 1], 2)
        return torch.bmm(left, right).sum((1, 2)) + torch.mm(z, z.T).sum()

    graph = recorded(function)
    for seed in range(5):
        assert_sound(graph, seed, ball_of(graph), seed)


def test_random_programs_are_between_their_planes() -> None:
    passed_over = 0
    for seed in range(PROGRAMS):
        try:
            graph = graph_of(seed)
            LinearBounds(graph)
        except (TraceError, UnboundedError):
            passed_over += 1
            continue
        assert_sound(graph, seed, ball_of(graph), seed)
    assert passed_over <= PROGRAMS / 10


def test_random_derivatives_are_between_their_planes() -> None:
    """The graph of w = grad V . f against the slope of V's along f, another way of differentiation."""

    def velocity(z: Tensor) -> Tensor:
        return torch.stack([z[:, 1], -z[:, 0].sin() - z[:, 1]], 1)

    passed_over, field = 0, read(velocity, states_of(0))
    for seed in range(PROGRAMS):
        try:
            graph = graph_of(seed)
            derivative = lie_derivative(graph, field, states_of(seed)[:1])
            LinearBounds(derivative)
        except (TraceError, UnboundedError):
            passed_over += 1
            continue

        def slope(state: Tensor, graph: fx.GraphModule = graph) -> arb:
            z = exact(state)
            found = evaluate(graph, z, evaluate(field, z).value).slope
            return arb(0) if found is None else found.reshape(-1)[0]

        def known(state: Tensor, slope: Any = slope) -> arb:
            found = slope(state)
            return found if found.is_finite() else arb(0, float("inf"))

        generator = torch.Generator().manual_seed(seed)
        middles = torch.randn(len(WIDTHS), 2, dtype=torch.float64, generator=generator)
        planes = LinearBounds(derivative)(Interval(middles - WIDTHS, middles + WIDTHS))
        inside = middles + WIDTHS * (2 * torch.rand(len(WIDTHS), 2, dtype=torch.float64, generator=generator) - 1)
        for row, state in enumerate(inside):
            value = known(state)
            if value.is_finite():
                assert_holds(planes, row, state, value, seed)
    assert passed_over <= PROGRAMS / 10


def network(seed: int) -> Callable[[Tensor], Tensor]:
    """A tanh network of two states, with two layers of 16."""
    generator = torch.Generator().manual_seed(seed)
    weights = [
        torch.randn(*shape, dtype=torch.float64, generator=generator) / 2 for shape in ((2, 16), (16, 16), (16, 1))
    ]
    return lambda z: (((z @ weights[0]).tanh() @ weights[1]).tanh() @ weights[2]).sum(1)


def spiral(z: Tensor) -> Tensor:
    return torch.stack([z[:, 1] - z[:, 0], -z[:, 0].sin() - z[:, 1]], 1)


def test_derivatives_of_networks_are_between_their_planes() -> None:
    for seed in range(4):
        graph = lie_derivative(read(network(seed), states_of(0)), read(spiral, states_of(0)), states_of(0)[:1])
        assert_sound(graph, seed, ball_of(graph), seed)


def test_errors_that_cancel_in_a_gradient_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = lie_derivative(read(network(0), states_of(0)), read(spiral, states_of(0)), states_of(0)[:1])
    low = torch.rand(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, gaps = [LinearBounds(graph)], []
    monkeypatch.setattr("analysis.proofs.linear.bounds.MANY", math.inf)
    for bounds in [*found, LinearBounds(graph)]:
        gaps.append(gap_at(bounds(Interval(low, low + 0.2)), low + 0.1).median())
    assert gaps[0] < 0.85 * gaps[1]


def test_known_planes() -> None:
    """Of relu and of the absolute value on [-1, 1], a product on a square, a square, and a tanh by its chord."""
    relu = LinearBounds(recorded(lambda z: torch.relu(z[:, 0])))(box((-1, 1), (0, 1)))
    torch.testing.assert_close(relu.upper, torch.tensor([[0.5, 0]], dtype=torch.float64))
    assert float(relu.upper_offset) == pytest.approx(0.5, abs=1e-11)
    assert float(relu.lower_offset) == pytest.approx(0, abs=1e-11)
    assert float(relu.value.low) == pytest.approx(0, abs=1e-11)
    absolute = LinearBounds(recorded(lambda z: z[:, 0].abs()))(box((-1, 3), (0, 1)))
    assert (float(absolute.upper[0, 0]), float(absolute.upper_offset)) == pytest.approx((0.5, 1.5))
    product = LinearBounds(recorded(lambda z: z[:, 0] * z[:, 1]))(box((1, 3), (2, 3)))
    torch.testing.assert_close(product.upper, torch.tensor([[2.5, 2.0]], dtype=torch.float64))
    assert (float(product.lower_offset), float(product.upper_offset)) == pytest.approx((-5.5, -4.5))
    square = LinearBounds(recorded(lambda z: z[:, 0] * z[:, 0]))(box((1, 3), (0, 0)))
    assert (float(square.upper[0, 0]), float(square.lower_offset), float(square.upper_offset)) == pytest.approx(
        (4, -4, -3)
    )
    tanh = LinearBounds(recorded(lambda z: z[:, 0].tanh()))(box((0, 2), (0, 0)))
    slope = torch.tensor(2.0, dtype=torch.float64).tanh() / 2
    root = (1 - slope).sqrt()
    assert float(tanh.upper[0, 0]) == pytest.approx(float(slope))
    assert float(tanh.upper_offset) == pytest.approx(float(root - slope * root.atanh()))


def test_what_depends_on_no_state_is_its_planes() -> None:
    planes = LinearBounds(recorded(lambda z: torch.ones_like(z).exp().sum(1)))(box((-1, 2), (0, 3)))
    assert_holds(planes, 0, torch.zeros(2), 2 * arb(1).exp(), "2e")
    assert float(planes.value.high - planes.value.low) < 1e-12


def test_a_linear_function_is_its_planes() -> None:
    def linear(z: Tensor) -> Tensor:
        return (z @ torch.tensor([[1.0, 2], [3, 4]], dtype=torch.float64)).sum(1) - z[:, 1] / 4 + 1

    found = LinearBounds(recorded(linear))(box((-1, 3), (0, 1)))
    torch.testing.assert_close(found.upper, torch.tensor([[3, 6.75]], dtype=torch.float64))
    assert float(found.upper_offset) == pytest.approx(1, abs=1e-11)
    assert float(found.upper_offset - found.lower_offset) < 1e-11


@pytest.mark.parametrize(
    "function",
    [
        lambda z: z[:, 0].sin() * z[:, 1].exp() + z[:, 0] ** 3,
        lambda z: torch.tanh(z[:, 0] * z[:, 1]) / (2 + z[:, 0].cos()),
        lambda z: torch.sigmoid(z[:, 0] - z[:, 1]) * (1 - z[:, 0].tanh().square()),
    ],
)
def test_the_gap_shrinks_with_the_square_of_the_box(function: Callable[[Tensor], Tensor]) -> None:
    bounds, middle = LinearBounds(recorded(function)), torch.tensor([[0.7, -0.4]], dtype=torch.float64)
    gaps = []
    for width in (1e-2, 1e-3):
        gaps.append(float(gap_at(bounds(Interval(middle - width, middle + width)), middle)))
    assert 90 < gaps[0] / gaps[1] < 110


def test_a_kink_that_a_box_touches_is_held_from_both_sides() -> None:
    """V = |x| with x' = 1: w is -1 or 1 at x = 0, whichever side of it the box lies on."""
    w = lie_derivative(
        recorded(lambda z: torch.relu(z[:, 0])),
        recorded(lambda z: torch.ones_like(z)),
        torch.zeros(1, 2, dtype=torch.float64),
    )
    for sides in ((-1.0, 0.0), (0.0, 1.0), (-1.0, 1.0)):
        value = LinearBounds(w)(box(sides, (0, 1))).value
        assert float(value.low) <= 0
        assert float(value.high) >= 1
    assert float(LinearBounds(w)(box((-1, -0.5), (0, 1))).value.high) < 1e-9


def test_a_derivative_knows_nothing_where_v_may_jump() -> None:
    for step in (
        lambda z: (z[:, 0] > 1).double(),
        lambda z: torch.sign(z[:, 0] - 1),
        lambda z: torch.where(z[:, 0] > 1, 2 + 0 * z[:, 1], 0),
    ):
        value = recorded(lambda z, step=step: step(z) - z[:, 0])
        w = LinearBounds(
            lie_derivative(value, recorded(lambda z: torch.ones_like(z)), torch.zeros(1, 2, dtype=torch.float64))
        )
        assert bool(w(box((0.5, 1.5), (0, 1))).upper_offset.isnan())
        assert bool(w(box((0.5, 1.5), (0, 1))).value.high.isnan())
        assert float(w(box((2, 3), (0, 1))).value.high) == pytest.approx(-1)


@pytest.mark.parametrize(
    "value",
    [
        lambda z: torch.floor(z[:, 0]),
        lambda z: torch.atan2(z[:, 0], z[:, 1]),
        lambda z: torch.erf(z[:, 0]),
        lambda z: torch.exp2(z[:, 0]),
        lambda z: z[:, 0].abs().pow(0.3),
    ],
)
def test_a_derivative_that_is_rounded_or_misses_a_jump_is_refused(value: Callable[[Tensor], Tensor]) -> None:
    graph = recorded(value)
    with pytest.raises(UnboundedError, match="not known in real arithmetic"):
        lie_derivative(graph, recorded(lambda z: torch.ones_like(z)), torch.ones(1, 2, dtype=torch.float64))


def test_the_derivative_is_of_the_operations_not_of_a_backward_pass() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: Tensor) -> Tensor:
            return x * x

        @staticmethod
        def backward(_: Any, *gradients: Tensor) -> Any:
            return gradients[0] * 0

    w = lie_derivative(
        recorded(lambda z: Wrong.apply(z[:, 0])),
        recorded(lambda z: torch.ones_like(z)),
        torch.ones(1, 2, dtype=torch.float64),
    )
    assert float(w(torch.tensor([[3.0, 0]], dtype=torch.float64))) == 6


def test_what_is_not_known_or_too_large_has_no_planes() -> None:
    reciprocal = LinearBounds(recorded(lambda z: 1 / z[:, 0]))
    found = reciprocal(
        Interval(
            torch.tensor([[-1.0, 0], [1, 0], [1e16, 0]]).double(), torch.tensor([[1.0, 1], [2, 1], [2e16, 1]]).double()
        )
    )
    assert found.upper_offset.isnan().tolist() == [True, False, True]
    assert found.value.high.isnan().tolist() == [True, False, True]
    with pytest.raises(UnboundedError, match="expected one number"):
        LinearBounds(recorded(lambda z: z))


def test_a_last_increase_is_left_out() -> None:
    inner = recorded(lambda z: (z * z).sum(1))
    outer = recorded(lambda z: torch.exp(torch.sigmoid((z * z).sum(1, keepdim=True)))[:, 0])
    z = torch.tensor([[0.3, -2.0]], dtype=torch.float64)
    assert torch.equal(without_last_increase(outer)(z), inner(z))
    for kept in (inner, recorded(lambda z: torch.log(1 + z[:, 0])), recorded(lambda z: 1 - torch.tanh(z[:, 0]))):
        assert torch.equal(without_last_increase(kept)(z), kept(z))


def test_a_quadratic_difference_is_fused() -> None:
    """With z+ = (1 - h) z, V(z+) - V(z) = -h (2 - h) z'Pz has planes as tight as h is small."""
    matrix = torch.tensor([[2.0, 1], [1, 3]], dtype=torch.float64)
    state = torch.ones(1, 2, dtype=torch.float64)
    value, step = recorded(lambda z: (z * (z @ matrix)).sum(1)), recorded(lambda z: z - z * 2.0**-10)
    graph = composed(value, step, 0.25, state)
    z = torch.tensor([[0.3, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(graph(z), value(step(z)) - 0.75 * value(z))
    fused, plain = composed(value, step, 0, state), recorded(lambda z: value(step(z)) - value(z))
    gaps = [
        float(found.upper_offset - found.lower_offset)
        for found in (LinearBounds(one)(box((1, 2), (1, 2))) for one in (fused, plain))
    ]
    assert gaps[0] < 0.01 * gaps[1]


def test_no_state_that_satisfies_a_constraint_is_lost() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(2000, 3, dtype=torch.float64, generator=generator)
    high = low + torch.rand(2000, 3, dtype=torch.float64, generator=generator) * 10.0 ** -torch.arange(0, 3)
    slope = torch.randn(2000, 3, dtype=torch.float64, generator=generator) * (
        torch.rand(2000, 3, generator=generator) > 0.2
    )
    on = low + torch.rand(2000, 3, dtype=torch.float64, generator=generator) * (high - low)
    offset = -(slope * on).sum(1)
    new_low, new_high, empty = contracted(low, high, slope, offset)
    assert bool(((new_low <= new_high) | empty[:, None]).all())
    assert bool(((new_low >= low) & (new_high <= high)).all())
    assert float((new_high - new_low).prod(1).mean()) < 0.9 * float((high - low).prod(1).mean())
    for share in torch.rand(50, 2000, 3, dtype=torch.float64, generator=generator):
        states = low + share * (high - low)
        satisfies = (slope * states).sum(1) + offset > 1e-13
        assert not bool((satisfies & empty).any())
        inside = ((states >= new_low) & (states <= new_high)).all(1)
        assert bool((inside | ~satisfies).all())


def test_known_contractions() -> None:
    low, high = torch.zeros(4, 2, dtype=torch.float64), torch.ones(4, 2, dtype=torch.float64)
    slope = torch.tensor([[1.0, 1], [1, 1], [-1, 0], [float("nan"), 1]], dtype=torch.float64)
    offset = torch.tensor([-1.5, -3, 0.25, 0], dtype=torch.float64)
    new_low, new_high, empty = contracted(low, high, slope, offset)
    assert empty.tolist() == [False, True, False, False]
    torch.testing.assert_close(new_low[[0, 2, 3]], torch.tensor([[0.5, 0.5], [0, 0], [0, 0]], dtype=torch.float64))
    torch.testing.assert_close(new_high[[0, 2, 3]], torch.tensor([[1, 1], [0.25, 1], [1, 1]], dtype=torch.float64))


def test_what_is_contracted_away_is_not_searched() -> None:
    seen: list[Tensor] = []

    def examine(low: Tensor, high: Tensor) -> Examined:
        seen.append(torch.cat([low, high], 1))
        closed = (high - low).amax(1) < 0.1
        return Examined(closed, torch.zeros_like(closed), torch.ones_like(low), (low, torch.minimum(high, low + 0.25)))

    found = cover(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64), examine, max_boxes=100)
    assert not found.fault
    assert found.boxes == 5  # and four at once, as they are few
    assert float(torch.cat(seen[1:]).max()) == 0.25


def test_a_side_without_room_is_not_the_one_that_is_halved() -> None:
    thin = torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.tensor([[1.0, 1.0]], dtype=torch.float64)

    def examine(low: Tensor, high: Tensor) -> Examined:
        closed = (high - low).amax(1) < 0.3
        return Examined(closed, torch.zeros_like(closed), torch.tensor([[0.0, 1.0]]).double().expand(len(low), 2))

    assert cover(*thin, examine, max_boxes=100).boxes == 5
