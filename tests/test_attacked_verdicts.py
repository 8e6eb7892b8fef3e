"""Functions that got a wrong verdict: what a float hides, next to a boundary, on a jump, in a dtype, in a constant that changes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import stabdeq
from analysis.evidence.membership import surely_contains
from analysis.evidence.regions import Ball, Outside, Pairs
from analysis.proofs.balls import evaluate, exact
from analysis.proofs.balls.operations import UnreadableError
from analysis.proofs.tracing import read
from stabdeq.errors import ConfigError

Function = Callable[[Tensor], Tensor]


def square(z: Tensor) -> Tensor:
    return z.square().sum(1)


def verdict(claim: str, value: Function, velocity: Function | None = None, **options: object) -> str:
    return stabdeq.check(value, velocity, dim=2, claims=[claim], **options)[claim].verdict.name  # pyrefly: ignore


def sink_times(factor: Function) -> Function:
    return lambda z: -z * factor(z)[:, None]


@pytest.mark.parametrize(
    "factor",
    [
        lambda z: -(((z[:, 0] >= -10) + (z[:, 1] >= -10)).double() - 1.5),  # True + True is True: 1/2
        lambda z: (z[:, 0] + 5).bool().double(),  # 1
        lambda z: ((z[:, 0] >= -10) * 0.1).double() - 0.1,  # 0.1 in float32 is more than 0.1
        lambda z: torch.full_like(z[:, 0], 0.25, dtype=torch.bool).double() - 0.5,  # 1/2
        lambda z: ((z > -10).sum(1) / 3).double() - 2 / 3,  # in float32, more than 2/3
    ],
    ids=["truths added", "to a truth", "a truth times a number", "full of truths", "a count divided"],
)
def test_what_floats_do_in_another_dtype_is_not_read_as_real_arithmetic(factor: Function) -> None:
    states = torch.rand(5, 2, dtype=torch.float64)
    assert (factor(states) > 0).all()
    with pytest.raises(UnreadableError):
        evaluate(read(factor, states), exact(states[0]))
    assert verdict("decrease", square, sink_times(factor)) != "REFUTED"


def test_a_constant_in_float32_is_read_as_it_is() -> None:
    constant = torch.tensor([0.1, 2.0])
    assert verdict("positive", lambda z: (z * constant).square().sum(1)) == "PROVED"
    # 0.1 in float32 is more than 0.1, so that V is 1.5e-9 |z|^2; in float64 it would be 0.
    assert verdict("positive", lambda z: square(z) * (constant[0] - 0.1)) != "PROVED"


@pytest.mark.parametrize(
    ("value", "velocity", "inner"),
    [
        (square, lambda z: -z * (square(z) - 0.01)[:, None], 0.1),  # 0.1, as a float, is beyond the circle of rest
        (square, lambda z: -z * (1 - square(z) + 2.0**-52)[:, None], None),  # at rest just outside of the ball
        (lambda z: 1 - square(z) + 2.0**-52, None, None),
    ],
    ids=["inner", "outer", "positive"],
)
def test_a_state_outside_the_region_refutes_nothing(
    value: Function, velocity: Function | None, inner: float | None
) -> None:
    claim = "decrease" if velocity is not None else "positive"
    options = {"inner_radius": inner} if inner else {}
    options["boxes"] = 4096  # the search for a proof, which fails at the edge, refutes nothing either
    assert verdict(claim, value, velocity, **options) != "REFUTED"


@pytest.mark.parametrize("dim", [1, 2, 7, 300])
def test_projected_states_lie_in_the_region_for_certain(dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(dim, generator=generator, dtype=torch.float64)
    ball = Ball(centre, 0.7)
    states = centre + torch.randn(200, dim, generator=generator, dtype=torch.float64) * 3
    for region in (ball, Outside(ball, 0.3)):
        assert all(surely_contains(region, state) for state in region.project(states))
    near = centre + (states - centre) * 1e-3
    assert all(surely_contains(Outside(ball, 0.3), state) for state in Outside(ball, 0.3).project(near))
    pairs = Pairs(ball)
    assert all(surely_contains(pairs, pair) for pair in pairs.project(torch.cat([states, near], 1)))
    assert not surely_contains(ball, states[0])


@pytest.mark.parametrize(
    ("value", "radius"),
    [
        (lambda z: torch.exp(torch.log(square(z) + 3)) - 3, 1e-4),
        (lambda z: torch.sqrt(square(z) + 5e10) ** 2 - 5e10, 1.0),
    ],
)
def test_rounding_at_the_centre_refutes_nothing(value: Function, radius: float) -> None:
    assert float(value(torch.zeros(1, 2, dtype=torch.float64))) != 0
    assert verdict("zero", value, radius=radius) != "REFUTED"


def test_what_is_not_zero_at_the_centre_is_refuted() -> None:
    assert verdict("zero", lambda z: square(z) + 1e-3) == "REFUTED"
    assert verdict("equilibrium", square, lambda z: -z + 1e-3) == "REFUTED"


def test_a_jump_between_equal_slopes_has_no_derivative() -> None:
    def step(z: Tensor) -> Tensor:
        return torch.where(z[:, 0] >= 0, z[:, 0] ** 3 + 1, z[:, 0] ** 3)

    left = torch.tensor([-1.0, 0.0], dtype=torch.float64)
    assert verdict("decrease", step, lambda z: left.expand_as(z)) != "REFUTED"
    assert (
        verdict("decrease", lambda z: z[:, 0] ** 3 + (z[:, 0] >= 0).double(), lambda z: left.expand_as(z)) != "REFUTED"
    )


def test_a_constant_written_to_behind_its_version_is_read_anew() -> None:
    def changing(z: Tensor) -> Tensor:
        constant = torch.zeros(1, dtype=torch.float64)
        first = z[:, 0].detach() * constant
        constant.data.fill_(1e8)
        bump = (3e-4**2 - (z - torch.tensor([0.61803, 0.31830], dtype=torch.float64)).square().sum(1)).clamp(min=0)
        return square(z) + first - bump * constant

    assert changing(torch.tensor([[0.61803, 0.31830]], dtype=torch.float64)) < 0
    assert verdict("positive", changing) != "PROVED"


def test_an_empty_sum_is_zero() -> None:
    assert verdict("positive", lambda z: z[:, :0].sum(1)) == "REFUTED"
    assert verdict("zero", lambda z: z[:, :0].sum(1)) != "REFUTED"


def test_a_box_is_finite() -> None:
    with pytest.raises(ConfigError, match="finite"):
        stabdeq.check(square, dim=2, box=(-float("inf"), float("inf")))


@pytest.mark.parametrize(
    "is_run",
    [lambda z: type(z) is Tensor, lambda z: len(z) > 64],
    ids=["knows the recorder", "knows a large batch"],
)
def test_a_graph_is_held_against_the_function_on_thousands_of_states(is_run: Callable[[Tensor], bool]) -> None:
    def negative_in_a_corner(z: Tensor) -> Tensor:
        corner = (z - 0.37).square().sum(1) < 1e-3
        return square(z) * (1 - 2 * corner.double()) if is_run(z) else square(z)

    assert verdict("positive", negative_in_a_corner) != "PROVED"
