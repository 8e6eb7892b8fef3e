"""V-dot of dynamics that are affine in a control, F(z, u(z)), and planes above what is concave in it: sound, and closer."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from test_linear_bounds import assert_sound, network, recorded
from torch import Tensor, fx

from analysis.proofs.balls import evaluate, exact
from analysis.proofs.inputs import controlled
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.lie_derivative import lie_derivative
from analysis.proofs.linear import LinearBounds
from analysis.proofs.linear.forms import Boxes
from analysis.proofs.linear.tilting import Squares, extent, tilted

STATE = torch.full((1, 2), 0.25, dtype=torch.float64)
DRAW = torch.Generator().manual_seed(5)
WEIGHTS = (
    torch.randn(2, 16, dtype=torch.float64, generator=DRAW),
    torch.randn(16, 1, dtype=torch.float64, generator=DRAW),
)


def policy(z: Tensor) -> Tensor:
    """A feedback that saturates, of a network of two states: (B, 1)."""
    return 4 * ((z @ WEIGHTS[0]).tanh() @ WEIGHTS[1] / 2 - 0.1).tanh()


def pushed(z: Tensor) -> Tensor:
    """Both coordinates are pushed alike, as the parts of a cart with a pole are."""
    u = policy(z)[:, 0]
    return torch.stack([z[:, 1] + u / (2 + z[:, 0].sin()), -z[:, 0] - u * z[:, 1].cos() + 0.5 * u], 1)


def steered(act: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def velocity(z: Tensor) -> Tensor:
        u = act(policy(z)[:, 0])
        return torch.stack([z[:, 1] - u, u * z[:, 0] - z[:, 1]], 1)

    return velocity


VELOCITIES = {
    "pushed": pushed,
    "not saturated": lambda z: z.flip(1) - z @ torch.tensor([[1.0, 2], [3, 4]], dtype=torch.float64),
    "square": steered(lambda u: u * u),
    "cube": steered(lambda u: u * u.square()),
    "kink": steered(torch.relu),
    "quotient": steered(lambda u: 1 / (5 + u)),
    "divisor": lambda z: z.flip(1) / (5 + policy(z)),
    "sine": steered(torch.sin),
    "product of its parts": lambda z: torch.cat([policy(z), z[:, :1] * policy(z)], 1) * policy(z),
    "added to itself": lambda z: torch.cat([policy(z) + policy(z.flip(1)), policy(z) - 2], 1),
    "compared": lambda z: torch.where(policy(z) > 0, z, z.flip(1)) + policy(z),
}


@pytest.mark.parametrize("name", VELOCITIES)
def test_dynamics_are_those_of_their_control_and_affine_in_it(name: str) -> None:
    graph = recorded(VELOCITIES[name])
    found = controlled(graph)
    if found is None:
        return
    for z in torch.randn(5, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)):
        torch.testing.assert_close(found.velocity(z, found.control(z)), graph(z))
        one, other = 3 * torch.randn(2, *found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        ends = found.velocity(z, one) + found.velocity(z, other)
        torch.testing.assert_close(ends, found.velocity(z, one + other) + found.velocity(z, 0 * one))


def test_the_control_is_what_saturates() -> None:
    graph = recorded(pushed)
    found = controlled(graph)
    assert found is not None
    assert found.shape.numel() == 1
    assert not torch.equal(found.velocity(STATE, torch.ones(found.shape).double()), graph(STATE))
    u, scale = policy(STATE), found.control(STATE)
    assert float(u / scale) == pytest.approx(4)
    assert controlled(recorded(lambda z: z.sin() - z)) is None


@pytest.mark.parametrize("name", VELOCITIES)
def test_derivatives_along_controlled_dynamics_are_between_their_planes(name: str) -> None:
    """Against the slope of V's along f, another way of differentiation."""
    value, field = recorded(network(3)), recorded(VELOCITIES[name])
    graph = lie_derivative(value, field, STATE)

    def slope(state: Tensor) -> object:
        z = exact(state)
        return evaluate(value, z, evaluate(field, z).value).slope.reshape(-1)[0]  # pyrefly: ignore

    for seed in range(3):
        assert_sound(graph, seed, slope, name)  # pyrefly: ignore


def widths_over(graph: fx.GraphModule, width: float) -> Tensor:
    low = torch.rand(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    planes = LinearBounds(graph)(Interval(low, low + width))
    return planes.value.high - planes.value.low


def test_what_multiplies_the_control_is_bounded_as_one_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """V is little but a function of z0 + z1, which the control of (z1 + u, -z0 - u) does not move."""
    inner, together = network(0), torch.ones(2, 2, dtype=torch.float64)
    value = recorded(lambda z: inner(z @ together / 2) + 0.1 * inner(z))
    directions = torch.tensor([[1.0, -1]], dtype=torch.float64)
    velocity = recorded(lambda z: z.flip(1) * directions + 10 * policy(z) * directions)
    as_one = widths_over(lie_derivative(value, velocity, STATE), 0.2)
    monkeypatch.setattr("analysis.proofs.lie_derivative.controlled", lambda graph: None)
    apart = widths_over(lie_derivative(value, velocity, STATE), 0.2)
    assert float((as_one / apart).median()) < 0.8


def test_what_multiplies_the_control_is_bounded_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = lie_derivative(recorded(network(0)), recorded(pushed), STATE)
    backwards = widths_over(graph, 0.2)
    monkeypatch.setattr(LinearBounds, "_factors", lambda bounds: set())
    assert float((backwards / widths_over(graph, 0.2)).median()) < 0.9


def squares(count: int, seed: int) -> tuple[Tensor, Tensor, list[Squares], Boxes]:
    """Planes over boxes in three dimensions, some far from 0, and two numbers' concave parts."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    low = drawn(3, count) * 10.0 ** torch.arange(count).remainder(9)
    part = Squares(drawn(2, count).abs(), 3 * drawn(2, 3, count), drawn(2, count).abs() * 1e-2)
    return drawn(3, count), drawn(count), [part], Boxes(low, low + drawn(3, count).abs())


def test_tilted_planes_are_above_what_they_stand_for() -> None:
    slope, offset, parts, boxes = squares(90, 0)
    new_slope, new_offset = tilted(slope, offset, parts, boxes)
    assert int((new_slope != slope).any(0).sum()) > 30
    for row in range(90):
        centre = [Fraction(c) for c in boxes.centre[:, row].tolist()]
        for share in torch.rand(12, 3, generator=torch.Generator().manual_seed(row)).round(decimals=0).double():
            inside = torch.where(share > 0.5, boxes.high[:, row], boxes.low[:, row])
            state = [Fraction(c) for c in inside.tolist()]
            old, new = (
                Fraction(float(b[row])) + sum(Fraction(a) * z for a, z in zip(s[:, row].tolist(), state, strict=True))
                for s, b in ((slope, offset), (new_slope, new_offset))
            )
            for weight, direction, spare in zip(*(one[..., row].tolist() for one in parts[0]), strict=True):
                along = sum(Fraction(a) * (z - c) for a, z, c in zip(direction, state, centre, strict=True))
                old -= Fraction(weight) / 4 * max(Fraction(0), abs(along) - Fraction(spare)) ** 2
            assert new >= old


def test_tilted_planes_are_lower_at_their_highest() -> None:
    slope, offset, parts, boxes = squares(90, 1)
    before, after = extent(slope, offset, boxes)[1], extent(*tilted(slope, offset, parts, boxes), boxes)[1]
    assert bool((after <= before + 1e-12 * before.abs() + 1e-6).all())
    assert float((before - after)[::9].mean()) > 0.1  # near 0


def test_a_known_tilt() -> None:
    """z - z^2 on [-1, 1] is 1/4 at most, where its tangent is flat; the one at the middle is 1 at its highest."""
    one = torch.ones(1, 1, dtype=torch.float64)
    part = Squares(4 * one, one[None], 0 * one)
    slope, offset = tilted(one, 0 * one[0], [part], Boxes(-one, one))
    assert float(slope) == pytest.approx(0, abs=1e-12)
    assert float(offset) == pytest.approx(0.25)


def test_the_value_of_a_concave_product_is_bounded_by_a_tangent_elsewhere() -> None:
    """x (1 - x) is 1/4 at most on [0, 1], and 1/2 - x^2 / 4 from below: by chords and middles alone it is 1/2."""
    graph = recorded(lambda z: (z[:, 0] + 0.5) * (0.5 - z[:, 0]) + z[:, 1])
    found = LinearBounds(graph)(Interval(torch.tensor([[0.0, 0]]).double(), torch.tensor([[1.0, 0]]).double()))
    assert float(found.value.high) == pytest.approx(0.25, abs=1e-9)
    assert float(found.value.low) == pytest.approx(-0.75, abs=1e-9)
