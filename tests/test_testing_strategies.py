"""The public strategies draw what they say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from testing_samples import EXAMPLES, found, only
from torch import Tensor

from stabdeq import testing
from stabdeq.errors import ConfigError
from stabdeq.lyapunov import InputConvexLyapunov, InputConvexNetwork

CENTRE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


@given(testing.states_in_ball(3, radius=2.0, centre=CENTRE, batch=4))
@EXAMPLES
def test_states_in_ball(states: Tensor) -> None:
    assert states.shape == (4, 3)
    assert states.dtype == torch.float64
    assert bool(((states - CENTRE).norm(dim=1) <= 2 * (1 + 1e-12)).all())


@given(testing.states_in_box(3, -1, 5))
@EXAMPLES
def test_states_in_box(states: Tensor) -> None:
    assert bool(((states >= -1) & (states <= 5)).all())


@given(testing.states_on_shells(3, smallest=1e-6, largest=10, batch=2))
@EXAMPLES
def test_states_on_shells(states: Tensor) -> None:
    distance = states.norm(dim=1)
    assert bool(((distance >= 1e-6 * (1 - 1e-12)) & (distance <= 10 * (1 + 1e-12))).all())


@given(testing.states_near_centre(3, radius=2, centre=CENTRE))
@EXAMPLES
def test_states_near_centre(states: Tensor) -> None:
    distance = float((states - CENTRE).norm())
    assert 1.9e-9 <= distance <= 2.1e-3


@given(testing.input_convex_networks(2), testing.states_in_ball(2, radius=3), testing.states_in_ball(2, radius=3))
@EXAMPLES
def test_input_convex_networks_are_convex(network: InputConvexNetwork, a: Tensor, b: Tensor) -> None:
    testing.assert_convex(lambda z: 1e-3 + network(z)[0], a, b)


@given(testing.lyapunov_functions(2, eta=0.2), testing.states_on_shells(2, smallest=1e-9, largest=10))
@EXAMPLES
def test_lyapunov_functions_are_positive_definite(function: InputConvexLyapunov, states: Tensor) -> None:
    testing.assert_zero_at_centre(lambda z: function(z)[0], torch.zeros(2, dtype=torch.float64))
    testing.assert_positive_definite(lambda z: function(z)[0], states, eta=0.2)


@given(testing.stable_linear(3, rate=0.5), testing.states_on_shells(3))
@EXAMPLES
def test_stable_dynamics_decay_at_their_rate_and_no_faster(dynamics: testing.LinearDynamics, states: Tensor) -> None:
    testing.assert_decay(zoo.square, dynamics, states, alpha=0.5)
    assert float(torch.linalg.eigvals(dynamics.matrix).real.max()) == pytest.approx(-0.25)
    with pytest.raises(AssertionError, match=r"V-dot <= -0\.51 V fails"):
        testing.assert_decay(zoo.square, dynamics, only([[1, 0, 0]]), alpha=0.51)


@given(testing.unstable_linear(3, growth=0.5))
@EXAMPLES
def test_unstable_dynamics_have_a_growing_mode(dynamics: testing.LinearDynamics) -> None:
    assert float(torch.linalg.eigvals(dynamics.matrix).real.max()) == pytest.approx(0.25)
    with pytest.raises(AssertionError):
        testing.assert_decay(zoo.square, dynamics, only([[1, 0, 0]]), alpha=0)


@given(testing.stable_nonnormal(3, rate=0.5), testing.states_on_shells(3))
@EXAMPLES
def test_nonnormal_dynamics_need_their_own_energy(dynamics: testing.LinearDynamics, states: Tensor) -> None:
    testing.assert_decay(dynamics.lyapunov, dynamics, states, alpha=0.5)
    testing.assert_positive_definite(dynamics.lyapunov, states)
    assert float(torch.linalg.eigvals(dynamics.matrix).real.max()) == pytest.approx(-0.25)
    diagonal, axis = only([[1, 1, 0]]), only([[1, 0, 0]])
    axes, speed = float(dynamics.solution[0, 0]) ** -0.5, float((dynamics.matrix[0, 1] * -dynamics.matrix[1, 0]) ** 0.5)
    growth = speed * (axes - 1 / axes) - 0.5
    assert growth > 0
    assert float((2 * diagonal * dynamics(diagonal)).sum()) == pytest.approx(growth * 2)
    with pytest.raises(AssertionError):
        testing.assert_decay(zoo.square, dynamics, diagonal, alpha=0)
    with pytest.raises(AssertionError):
        testing.assert_decay(dynamics.lyapunov, dynamics, axis, alpha=0.51)


@given(testing.stable_cubic(3, rate=0.5), testing.states_on_shells(3))
@EXAMPLES
def test_cubic_dynamics_decay(dynamics: testing.CubicDynamics, states: Tensor) -> None:
    testing.assert_equilibrium(dynamics, torch.zeros(3, dtype=torch.float64))
    testing.assert_decay(zoo.square, dynamics, states, alpha=0.5)
    testing.assert_decrease(zoo.square, dynamics, states)
    testing.assert_invariant(zoo.square, dynamics, states, level=2)
    with pytest.raises(AssertionError):
        testing.assert_decay(zoo.square, dynamics, only([[1e-3, 0, 0]]), alpha=0.51)


@given(testing.unstable_cubic(3, growth=0.5))
@EXAMPLES
def test_unstable_cubic_dynamics_leave_for_another_equilibrium(dynamics: testing.CubicDynamics) -> None:
    away = (0.5 / (2 * dynamics.damping)) ** 0.5
    testing.assert_equilibrium(dynamics, only([[away, 0, 0]])[0])
    with pytest.raises(AssertionError):
        testing.assert_decay(zoo.square, dynamics, only([[0.99 * away, 0, 0]]), alpha=0)
    testing.assert_invariant(zoo.square, dynamics, only([[1, 0, 0], [1, 2, 3]]), level=1.01 * away**2)
    with pytest.raises(AssertionError, match="V-dot < 0 where V"):
        testing.assert_invariant(zoo.square, dynamics, only([[1, 0, 0]]), level=0.99 * away**2)


@given(testing.contracting_cells(3, factor=0.5), testing.states_in_ball(3, radius=5, batch=2))
@EXAMPLES
def test_contracting_cells(cell: testing.KnownCell, states: Tensor) -> None:
    a, b = states.split(1)
    testing.assert_contraction(cell, a, b, factor=cell.lipschitz, reference=100)
    testing.assert_equilibrium(lambda z: cell(z) - z, cell.equilibria[0], reference=100)
    for _ in range(50):
        a = cell(a)
    assert len(cell.equilibria) == 1
    torch.testing.assert_close(a, cell.equilibria, rtol=1e-9, atol=1e-9)


@given(testing.expanding_cells(3, slope=1.5))
@EXAMPLES
def test_expanding_cells(cell: testing.KnownCell) -> None:
    for equilibrium in cell.equilibria:
        testing.assert_equilibrium(lambda z: cell(z) - z, equilibrium)
    settled, unsettled = cell.equilibria
    step = only([[1, 0, 0]])
    testing.assert_contraction(cell, settled - step, settled[None], factor=0)
    testing.assert_contraction(cell, unsettled[None], unsettled + step, factor=cell.lipschitz)
    with pytest.raises(AssertionError):
        testing.assert_contraction(cell, unsettled[None], unsettled + step, factor=1.49)
    # There is no third one: the first coordinate moves from every other value.
    line = torch.linspace(-3, 5, 801, dtype=torch.float64)
    apart = ((line - settled[0]).abs() > 1e-6) & ((line - unsettled[0]).abs() > 1e-6)
    moves = (cell(line[:, None].expand(-1, 3))[:, 0] - line).abs()
    assert bool((moves[apart] > 1e-9).all())


@given(testing.stable_nonnormal(2), st.data())
@EXAMPLES
def test_states_along_trajectories(dynamics: testing.LinearDynamics, data: st.DataObject) -> None:
    start = only([[1, -0.5], [0, 2]])
    states = data.draw(testing.states_along_trajectories(dynamics, st.just(start), time=2, steps=100))
    flows = [start @ torch.linalg.matrix_exp(dynamics.matrix * 0.02 * count).T for count in range(101)]
    assert min(float((states - flow).abs().max()) for flow in flows) < 1e-4


def test_trajectories_shrink_to_the_start_and_stay_finite() -> None:
    starts = testing.states_in_ball(2, radius=4)
    along = testing.states_along_trajectories(lambda z: z**3, starts, time=1)
    witness = found(along, lambda states: testing.assert_decay(zoo.square, zoo.sink, states, alpha=3))
    assert witness.abs().sort().values.tolist() == [[0, 1]]

    @given(along)
    @settings(EXAMPLES, suppress_health_check=list(HealthCheck))
    def is_finite(states: Tensor) -> None:
        assert bool(states.isfinite().all())

    is_finite()


@given(testing.states_in_ball(3, radius=2), testing.states_in_box(3, -1, 5))
@EXAMPLES
def test_no_coordinate_is_so_small_that_its_square_underflows(ball: Tensor, box: Tensor) -> None:
    for states in (ball, box):
        assert bool(((states == 0) | (states.abs() >= 1e-9)).all())
        testing.assert_positive_definite(lambda z: zoo.square(z) ** 2, states)


def test_states_may_be_many() -> None:
    @given(testing.states_in_ball(1000, batch=4))
    @settings(EXAMPLES, max_examples=5)
    def is_drawn(states: Tensor) -> None:
        assert states.shape == (4, 1000)

    is_drawn()


def failing(states: Tensor) -> Tensor:
    raise RuntimeError("no such thing")


@pytest.mark.parametrize(
    ("h", "message"),
    [
        (failing, r"failing raises RuntimeError at states \(2, 2\): no such thing; expected a function of states"),
        (lambda z: z[:1, 0], r"h must return shape \(2,\) or \(2, k\) for \(2, 2\), .* got shape \(1,\)"),
        (lambda z: z[:, :, None], r"got shape \(2, 2, 1\)"),
        (lambda z: z[:, :0], r"got shape \(2, 0\)"),
        (lambda z: z.sum(), r"got shape \(\)"),
        (lambda z: 0.0, "got float"),
        (lambda z: z[:, 0].float(), "h must compute in torch.float64, as the states are, got torch.float32"),
        (lambda z: z[:, 0] == 0, "got torch.bool"),
        (lambda z: z[:, 0].detach(), "h is not differentiable by autograd"),
        (lambda z: z[:, 0] / z[:, 0] - torch.nan, r"h is NaN at \[0, 0\]: give numbers at all states of the box"),
    ],
)
def test_what_is_no_constraint_is_said_in_plain_words(h: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        found(testing.states_on_set(h, 2, -1, 1, batch=2), lambda states: None)
