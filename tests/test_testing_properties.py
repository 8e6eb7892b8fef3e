"""The public properties hold exactly where their claims do, and a failure prints a line that fails again."""

import math
import re
from collections.abc import Callable

import pytest
import torch
import zoo
from hypothesis import given
from hypothesis import strategies as st
from testing_samples import EXAMPLES, found, only
from torch import Tensor

from stabdeq import testing
from stabdeq.errors import ConfigError
from stabdeq.lyapunov import project


def failure(check: Callable[[], None]) -> str:
    with pytest.raises(AssertionError) as caught:
        check()
    return str(caught.value)


def pasted(message: str, names: dict[str, object]) -> str:
    """The message of the failure that the printed line brings, in a scope that has only what a test file would."""
    *_, advice, line = message.splitlines()
    assert advice == "To keep this case, paste:"
    scope = {"torch": torch} | {name: getattr(testing, name) for name in testing.__all__} | names
    return failure(lambda: exec(line.strip(), scope))


def test_decrease_is_strict() -> None:
    states = only([[1, 0], [0.3, -0.7], [1e-9, 1e9]])
    testing.assert_decrease(zoo.solved, zoo.shear, states)
    testing.assert_decrease(zoo.square, zoo.sink, torch.zeros(1, 2, dtype=torch.float64))
    testing.assert_decrease(lambda z: zoo.square(z - 1), lambda z: 1 - z, states, centre=torch.ones(2))
    for V, F in (
        (zoo.square, turning),
        (lambda z: zoo.square(z - z.detach()), zoo.sink),
        (zoo.pendulum_energy, zoo.pendulum),
    ):
        with pytest.raises(AssertionError, match="V-dot < 0 fails"):
            testing.assert_decrease(V, F, states[:1])


def test_invariant_sublevel_sets_of_the_reversed_van_der_pol_oscillator() -> None:
    angles = torch.linspace(0, 2 * math.pi, 4097, dtype=torch.float64)
    rays = torch.stack([angles.cos(), angles.sin()], 1)
    testing.assert_invariant(zoo.van_der_pol_energy, zoo.van_der_pol, rays, level=2.3)
    message = failure(
        lambda: testing.assert_invariant(zoo.van_der_pol_energy, zoo.van_der_pol, 1e-6 * rays, level=2.31)
    )
    again = pasted(message, vars(zoo))
    assert again.split(" by ")[0] == message.split(" by ")[0]
    testing.assert_invariant(zoo.van_der_pol_energy, zoo.van_der_pol, 0 * rays, level=2.31)


def test_a_v_that_is_nan_does_not_decrease() -> None:
    with pytest.raises(AssertionError, match=r"V-dot < 0 fails .* not finite"):
        testing.assert_decrease(lambda z: zoo.square(z) + math.nan, zoo.sink, only([[1, 0]]))


def test_a_sublevel_set_that_never_ends_is_not_judged_invariant() -> None:
    with pytest.raises(AssertionError, match="V >= 3 somewhere along the ray fails"):
        testing.assert_invariant(zoo.pendulum_energy, zoo.pendulum, only([[1, 0]]), level=3)
    with pytest.raises(AssertionError, match="not finite"):
        testing.assert_invariant(torn, zoo.sink, only([[1, 0]]), level=3)


@given(testing.stable_nonnormal(2, rate=0.5), testing.states_on_shells(2))
@EXAMPLES
def test_flow_decays_at_the_rate_and_no_faster(dynamics: testing.LinearDynamics, states: Tensor) -> None:
    testing.assert_flow_decays(dynamics.lyapunov, dynamics, states, alpha=0.5, time=3)
    # Over 3 units of time, 0.501 asks for 0.3 % more.
    with pytest.raises(AssertionError, match="until t = 3 fails"):
        testing.assert_flow_decays(dynamics.lyapunov, dynamics, states, alpha=0.501, time=3)


def test_a_flow_that_is_not_resolved_fails() -> None:
    state = only([[1.0]])
    with pytest.raises(AssertionError, match="Resolving the trajectory by 4096 steps fails"):
        testing.assert_flow_decays(zoo.square, lambda z: (1e4 * z).sin() - z, 3 * state, alpha=0, time=100)
    with pytest.raises(AssertionError, match="not finite"):
        testing.assert_flow_decays(zoo.square, lambda z: z**3, 3 * state, alpha=0, time=8)
    testing.assert_flow_decays(zoo.square, lambda z: -1000 * z, state, alpha=1)
    testing.assert_flow_decays(zoo.square, zoo.sink, 0 * state, alpha=1)


@given(testing.states_on_shells(3))
@EXAMPLES
def test_float32_has_its_own_tolerance(states: Tensor) -> None:
    def inside(z: Tensor) -> Tensor:
        return zoo.square(z.float())

    for V, points in ((zoo.square, states.float()), (inside, states)):
        testing.assert_decay(V, zoo.sink, points, alpha=2)
        testing.assert_decrease(V, zoo.sink, points)
        testing.assert_convex(V, points, -2 * points)
        testing.assert_invariant(V, zoo.sink, points, level=1)
        testing.assert_flow_decays(V, zoo.sink, points, alpha=2)
        with pytest.raises(AssertionError):
            testing.assert_decay(V, zoo.sink, points, alpha=2.001)
    testing.assert_contraction(lambda z: z / 3, states.float(), -states.float(), factor=1 / 3)
    testing.assert_zero_at_centre(zoo.square, torch.full((3,), 1e-4))


def turning(z: Tensor) -> Tensor:
    return torch.stack([-z[:, 1], z[:, 0]], 1)


def dented(z: Tensor) -> Tensor:
    """Negative around (2, 0, ...)."""
    first = torch.eye(z.shape[1], dtype=z.dtype)[0]
    return zoo.square(z) - 8 * (1 - zoo.square(z - 2 * first)).clamp(min=0)


def flattening(z: Tensor) -> Tensor:
    """Convex in all coordinates but the first, where |z1| > 1."""
    return torch.log(1 + z[:, 0] ** 2) + z[:, 1:].square().sum(1)


def slowing(z: Tensor) -> Tensor:
    """z' = -z, and a tenth of that where |z1| > 2."""
    return -z * torch.where(z[:, :1].abs() > 2, 0.1, 1.0)


def torn(z: Tensor) -> Tensor:
    return torch.where(z[:, 0] > 1.5, math.nan, zoo.square(z))


def stretching(z: Tensor) -> Tensor:
    return z + (z - 1).clamp(min=0)


def coupled_energy(z: Tensor) -> Tensor:
    """Positive for a state alone, 0 for one among others that is their mean."""
    return zoo.square(z - z.mean(0)) if len(z) > 1 else zoo.square(z)


def careless(z: Tensor) -> Tensor:
    """Changes the states that it is given."""
    z -= 1
    return z.sum(1)


def half(field: Tensor, gradient: Tensor, value: Tensor, alpha: float) -> Tensor:
    return project(field, gradient, value, alpha) / 2


PAIR = only([[2, 0]]), only([[0, 2]])
FAILURES = {
    "zero": lambda: testing.assert_zero_at_centre(zoo.square, only([[1e-7, 0]])[0], reference=1e-9),
    "positive": lambda: testing.assert_positive_definite(zoo.pocket, only([[1, 1], [0.6, 0.8], [2, 0]])),
    "eta": lambda: testing.assert_positive_definite(zoo.square, only([[1, 1]]), eta=2.0, centre=only([[0, 3]])[0]),
    "reference": lambda: testing.assert_positive_definite(zoo.pocket, only([[0.6, 0.8]]), reference=1e-3),
    "convex": lambda: testing.assert_convex(zoo.saddle_shaped, *PAIR),
    "decay": lambda: testing.assert_decay(zoo.square, zoo.sink, only([[1 / 3, 0]]), alpha=2.001),
    "decrease": lambda: testing.assert_decrease(zoo.square, turning, only([[1, 2]]), centre=only([[0, 1]])[0]),
    "equilibrium": lambda: testing.assert_equilibrium(zoo.sink, only([[1e-7, 0]])[0], reference=1e-9),
    "invariant": lambda: testing.assert_invariant(zoo.square, zoo.shear, only([[1, 1]]), level=3),
    "flow": lambda: testing.assert_flow_decays(zoo.square, zoo.sink, only([[1, 2]]), alpha=2.1, time=3, tolerance=0.01),
    "contraction": lambda: testing.assert_contraction(
        stretching, only([[1, 0]]), only([[2, 0]]), factor=1, reference=1
    ),
    "projection": lambda: testing.assert_projection(*PAIR, only([[1]])[0], alpha=1, projection=half),
    "float32": lambda: testing.assert_decay(zoo.square, zoo.sink, torch.tensor([[0.1, 1e-7]]), alpha=2.001),
    "nan": lambda: testing.assert_positive_definite(torn, only([[1, 0], [2, 1]])),
    "infinite": lambda: testing.assert_positive_definite(zoo.square, only([[math.inf, -math.inf]])),
    "nan state": lambda: testing.assert_decay(zoo.square, zoo.sink, only([[math.nan, 1]]), alpha=1),
    "in place": lambda: testing.assert_positive_definite(careless, only([[0.5, 0]])),
    "in company": lambda: testing.assert_positive_definite(coupled_energy, only([[1, 1], [2, 2], [3, 3]])),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_prints_a_line_that_fails_again(name: str) -> None:
    message = failure(FAILURES[name])
    assert pasted(message, vars(zoo) | globals()) == message


def test_the_line_is_for_the_worst_state_alone() -> None:
    message = failure(FAILURES["positive"])
    assert message.splitlines()[0].startswith("V > 0 fails at [0.6, 0.8] by 0.25, ")
    assert message.endswith("    assert_positive_definite(pocket, torch.tensor([[0.6, 0.8]], dtype=torch.float64))")
    assert "in a batch of 3, though not again alone," in failure(FAILURES["in company"])


def test_what_has_no_name_goes_by_its_role() -> None:
    dynamics = testing.LinearDynamics(only([[1 / 3, 0], [0, -1]]), -2 / 3, torch.eye(2, dtype=torch.float64))
    message = failure(lambda: testing.assert_decay(dynamics.lyapunov, dynamics, only([[1, 0]]), alpha=1))
    assert "assert_decay(V, LinearDynamics(torch.tensor(" in message
    assert pasted(message, {"V": dynamics.lyapunov}) == message
    cubic = testing.CubicDynamics(dynamics, 0.1)
    message = failure(lambda: testing.assert_decay(lambda z: zoo.square(z), cubic, only([[1, 0]]), alpha=1))
    assert pasted(message, {"V": lambda z: zoo.square(z)}) == message


PLANTED = [
    ("dented", lambda z: testing.assert_positive_definite(dented, z), [2.0, 0.0, 0.0]),
    ("slowing", lambda z: testing.assert_decay(zoo.square, slowing, z, alpha=1), [3.0, 0.0, 0.0]),
    ("slowing flow", lambda z: testing.assert_flow_decays(zoo.square, slowing, z, alpha=1, time=0.1), [3.0, 0.0, 0.0]),
    ("torn", lambda z: testing.assert_positive_definite(torn, z), [2.0, 0.0, 0.0]),
    ("cubic", lambda z: testing.assert_decay(zoo.square, zoo.cubic, z[:, 2:], alpha=0.5), None),
]


@pytest.mark.parametrize(("name", "check", "expected"), PLANTED, ids=[row[0] for row in PLANTED])
def test_hypothesis_shrinks_to_a_simple_witness(
    name: str, check: Callable[[Tensor], None], expected: list[float] | None
) -> None:
    witness = found(testing.states_in_ball(3, radius=4), check)
    if expected is not None:
        assert [abs(entry) for entry in witness[0].tolist()] == expected
    else:
        # x' = -x^3 decays too slowly for 0 < |x| < 1/2.
        assert witness[0, :2].tolist() == [0, 0]
        assert 0 < abs(float(witness[0, 2])) < 0.5
    message = failure(lambda: check(witness))
    assert pasted(message, vars(zoo) | globals()) == message


def test_hypothesis_shrinks_pairs() -> None:
    states = testing.states_in_ball(3, radius=4)
    a, b = found(st.tuples(states, states), lambda pair: testing.assert_convex(flattening, *pair))
    assert int((a != 0).sum() + (b != 0).sum()) <= 2
    assert a.equal(a.round())
    assert b.equal(b.round())
    message = failure(lambda: testing.assert_convex(flattening, a, b))
    assert pasted(message, {"flattening": flattening}) == message
    a, b = found(st.tuples(states, states), lambda pair: testing.assert_contraction(stretching, *pair, factor=1))
    assert int((a != 0).sum() + (b != 0).sum()) <= 2


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
        lambda: testing.stable_nonnormal(1),
        lambda: testing.stable_cubic(2, rate=0),
        lambda: testing.unstable_cubic(2, growth=math.nan),
        lambda: testing.contracting_cells(2, factor=1),
        lambda: testing.expanding_cells(2, slope=1),
        lambda: testing.states_along_trajectories(zoo.sink, testing.states_in_ball(2), time=0),
        lambda: testing.states_along_trajectories(zoo.sink, testing.states_in_ball(2), steps=0),
        lambda: testing.assert_flow_decays(zoo.square, zoo.square, only([[1, 0]]), alpha=1),
        lambda: testing.assert_equilibrium(zoo.sink, only([[1, 0]])),
        lambda: testing.assert_equilibrium(zoo.sink, torch.zeros(2, dtype=torch.int64)),
        lambda: testing.assert_decrease(zoo.square, zoo.square, only([[1, 0]])),
        lambda: testing.assert_invariant(zoo.lifted, zoo.sink, only([[1, 0]]), level=0.5),
        lambda: testing.assert_invariant(zoo.square, zoo.sink, only([[1, 0]]), level=math.inf),
        lambda: testing.assert_flow_decays(zoo.square, zoo.sink, only([[1, 0]]), alpha=1, time=-1),
        lambda: testing.assert_contraction(zoo.square, only([[1, 0]]), only([[1, 0]]), factor=1),
        lambda: testing.assert_contraction(zoo.sink, only([[1, 0]]), only([[1]]), factor=1),
        lambda: testing.assert_positive_definite(lambda z: zoo.square(z) > 0, only([[1, 0]])),
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
