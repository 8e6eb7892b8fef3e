"""The public strategies draw what they say, and the public properties hold exactly where their claims do."""

import math
import re

import pytest
import torch
import zoo
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from torch import Tensor

from stabdeq import testing
from stabdeq.errors import ConfigError
from stabdeq.input_convex import InputConvexNetwork
from stabdeq.lyapunov import InputConvexLyapunov
from stabdeq.projection import project

EXAMPLES = settings(max_examples=50, deadline=None, derandomize=True, database=None)
CENTRE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def only(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


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


def test_a_failure_prints_a_line_that_fails_again() -> None:
    with pytest.raises(AssertionError) as failure:
        testing.assert_positive_definite(zoo.pocket, only([[1, 1], [0.6, 0.8], [2, 0]]))
    line = str(failure.value).splitlines()[-1].strip()
    assert line == "assert_positive_definite(pocket, torch.tensor([[0.6, 0.8]], dtype=torch.float64))"
    with pytest.raises(AssertionError, match=re.escape(line)):
        eval(line, {"torch": torch, "pocket": zoo.pocket} | vars(testing))


def test_hypothesis_shrinks_to_a_small_witness() -> None:
    def fails(states: Tensor) -> bool:
        try:
            testing.assert_decay(zoo.square, zoo.cubic, states, alpha=0.5)
        except AssertionError:
            return True
        return False

    quick = settings(max_examples=300, derandomize=True, database=None, phases=(Phase.generate, Phase.shrink))
    witness = find(testing.states_in_ball(1, radius=2), fails, settings=quick)
    assert 0 < abs(float(witness)) < 0.5


@pytest.mark.parametrize(
    ("values", "states"),
    [(zoo.nothing, [[1.0, 0.0]]), (zoo.pocket, [[0.6, 0.8]])],
)
def test_what_is_not_positive_fails(values: testing.Value, states: list[list[float]]) -> None:
    with pytest.raises(AssertionError, match="V > 0"):
        testing.assert_positive_definite(values, only(states))


def test_a_value_lost_in_rounding_needs_its_terms_named() -> None:
    near = only([[1e-9, 0]])
    with pytest.raises(AssertionError):
        testing.assert_positive_definite(zoo.pendulum_energy, near)
    testing.assert_positive_definite(zoo.pendulum_energy, near, reference=1.0)


def test_zero_convex_and_nan() -> None:
    origin = torch.zeros(2, dtype=torch.float64)
    testing.assert_zero_at_centre(zoo.square, origin)
    with pytest.raises(AssertionError, match=r"V\(c\) = 0 fails"):
        testing.assert_zero_at_centre(zoo.lifted, origin)
    with pytest.raises(AssertionError, match=re.escape("V((a + b) / 2)")):
        testing.assert_convex(zoo.saddle_shaped, only([[2, 0]]), only([[0, 2]]))
    with pytest.raises(AssertionError, match="nan"):
        testing.assert_positive_definite(lambda z: zoo.square(z) * math.nan, only([[1, 0]]))
    with pytest.raises(AssertionError, match=r"eta=2\.0"):
        testing.assert_positive_definite(zoo.square, only([[1, 0]]), eta=2.0)


@given(
    testing.states_in_ball(3, radius=5),
    testing.states_on_shells(3, smallest=1e-30, largest=1e30),
    st.floats(0, 10, allow_subnormal=False),
    st.sampled_from([0.1, 1.0, 3.0]),
)
@EXAMPLES
def test_our_projection_is_the_projection(field: Tensor, gradient: Tensor, value: float, alpha: float) -> None:
    testing.assert_projection(field, gradient, only([[value]])[0], alpha=alpha)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda field, gradient, value, alpha: field, "<= -alpha V fails"),
        (lambda field, gradient, value, alpha: 2 * project(field, gradient, value, alpha), "stays as it is"),
        (lambda field, gradient, value, alpha: project(field, gradient, 2 * value, alpha), "stays|nearest"),
        (lambda field, gradient, value, alpha: -gradient * value[:, None] * alpha, "stays|nearest"),
    ],
)
def test_what_is_no_projection_fails(wrong: testing.Projection, said: str) -> None:
    field, gradient = only([[1, 2], [-5, 0]]), only([[1, 0], [1, 0]])
    with pytest.raises(AssertionError, match=said):
        testing.assert_projection(field, gradient, only([[1, 1]])[0], alpha=1.0, projection=wrong)


@pytest.mark.parametrize(
    "call",
    [
        lambda: testing.states_in_ball(0),
        lambda: testing.states_in_ball(2, radius=0),
        lambda: testing.states_in_ball(2, centre=torch.zeros(3)),
        lambda: testing.states_in_box(2, 1, 1),
        lambda: testing.states_on_shells(2, smallest=2, largest=1),
        lambda: testing.states_near_centre(2, radius=math.inf),
        lambda: testing.input_convex_networks(2, hidden=0),
        lambda: testing.lyapunov_functions(2, eta=-1),
        lambda: testing.stable_linear(2, rate=0),
        lambda: testing.unstable_linear(2, growth=-1),
        lambda: testing.assert_decay(zoo.square, zoo.sink, only([[1, 0]]), alpha=-1),
        lambda: testing.assert_decay(zoo.square, zoo.square, only([[1, 0]]), alpha=1),
        lambda: testing.assert_decay(zoo.nothing, zoo.sink, only([[1, 0]]), alpha=1),
        lambda: testing.assert_positive_definite(zoo.sink, only([[1, 0]])),
        lambda: testing.assert_positive_definite(zoo.square, torch.zeros(2)),
        lambda: testing.assert_positive_definite(zoo.square, only([[1, 0]]), centre=torch.zeros(3)),
        lambda: testing.assert_convex(zoo.square, only([[1, 0]]), only([[1, 0, 0]])),
        lambda: testing.assert_projection(only([[1, 0]]), only([[1, 0]]), only([[1, 0]]), alpha=1),
    ],
)
def test_bad_arguments_are_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(ConfigError):
        call()
