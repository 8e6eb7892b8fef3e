"""Properties of maps hold exactly where their claims do; states in boxes by coordinate, between levels, outside of a hole."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo
from hypothesis import given
from hypothesis import strategies as st
from testing_samples import EXAMPLES, found, only
from torch import Tensor

from stabdeq import testing
from stabdeq.errors import ConfigError

FAR = only([[1e6, -3e6]])[0]
SKEW, UNSKEW = only([[1, 4096], [0, 1]]), only([[1, -4096], [0, 1]])  # inverse to each other


def failure(check: Callable[[], None]) -> str:
    with pytest.raises(AssertionError) as caught:
        check()
    return str(caught.value)


def fails_again(message: str) -> bool:
    """Whether the printed line fails with the same message in a scope that has only what a test file would."""
    *_, advice, line = message.splitlines()
    assert advice == "To keep this case, paste:"
    scope = {"torch": torch} | {name: getattr(testing, name) for name in testing.__all__} | vars(zoo) | globals()
    return failure(lambda: exec(line.strip(), scope)) == message


def turned(z: Tensor, angle: float = 1.0) -> Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    return z @ torch.tensor([[cos, sin], [-sin, cos]], dtype=z.dtype)


def halved(z: Tensor) -> Tensor:
    return z / 2


def shrunk(z: Tensor) -> Tensor:
    """|z|^2 falls by 19 %, to the last digit."""
    return 0.9 * turned(z)


def doubled_first(z: Tensor) -> Tensor:
    return z * torch.tensor([2.0, 0.5], dtype=z.dtype)


def skewed(z: Tensor) -> Tensor:
    """A V whose level sets are ellipses 10^7 times as long as wide."""
    return zoo.square(z @ SKEW)


def shrunk_skewed(z: Tensor) -> Tensor:
    """``shrunk`` in the coordinates in which V is ``skewed``."""
    return shrunk(z @ SKEW) @ UNSKEW


def shrunk_far_away(z: Tensor) -> Tensor:
    return FAR + shrunk(z - FAR)


def slow_beyond_two(z: Tensor) -> Tensor:
    """z+ = z / 2, and 0.9 z where |z1| > 2."""
    return z * torch.where(z[:, :1].abs() > 2, 0.9, 0.5)


def torn(z: Tensor) -> Tensor:
    return torch.where(z > 1.5, math.nan, z / 2)


class TestDecrease:
    @given(testing.states_on_shells(2, smallest=1e-100, largest=1e100))
    @EXAMPLES
    def test_a_contraction_falls_at_its_rate_and_no_faster(self, states: Tensor) -> None:
        for V, step in ((zoo.square, shrunk), (skewed, shrunk_skewed)):
            testing.assert_step_decrease(V, step, states, kappa=0.19)
            testing.assert_step_decrease(V, step, states)
            with pytest.raises(AssertionError, match=r"V\(z\+\) <= \(1 - 0\.1901\) V\(z\) fails"):
                testing.assert_step_decrease(V, step, states, kappa=0.1901)

    @given(testing.states_on_shells(2))
    @EXAMPLES
    def test_coordinates_of_different_size_have_their_own_rounding(self, states: Tensor) -> None:
        size = only([[1e6, 1e-6]])
        V, step = (lambda z: zoo.square(z / size)), (lambda z: 0.9 * z)
        testing.assert_step_decrease(V, step, states * size, kappa=0.19)
        with pytest.raises(AssertionError):
            testing.assert_step_decrease(V, step, states * size, kappa=0.1901)

    @given(testing.states_on_shells(2, smallest=1e-6, centre=FAR))
    @EXAMPLES
    def test_states_far_from_zero_are_rounded_in_their_last_digit(self, states: Tensor) -> None:
        testing.assert_step_decrease(lambda z: zoo.square(z - FAR), shrunk_far_away, states, kappa=0.19, centre=FAR)
        testing.assert_step_decrease(
            lambda z: zoo.square(z.float() - FAR.float()), shrunk_far_away, states, kappa=0.19, centre=FAR
        )

    def test_equality_is_a_fall_by_kappa(self) -> None:
        testing.assert_step_decrease(zoo.square, halved, only([[1, 0], [3, -5], [0, 0]]), kappa=0.75)
        with pytest.raises(AssertionError):
            testing.assert_step_decrease(zoo.square, halved, only([[1, 0]]), kappa=0.75 + 1e-12)

    @pytest.mark.parametrize("angle", [math.pi / 2, 1.0, 1e-3])
    def test_a_rotation_never_decreases(self, angle: float) -> None:
        for state in only([[1, 2], [-0.3, 0.1], [1e-9, 1e9]]).split(1):
            with pytest.raises(AssertionError, match=r"V\(z\+\) < V\(z\) fails"):
                testing.assert_step_decrease(zoo.square, lambda z: turned(z, angle), state)

    def test_the_centre_claims_nothing(self) -> None:
        testing.assert_step_decrease(zoo.square, halved, only([[0, 0]]))
        testing.assert_step_decrease(zoo.square, shrunk, FAR[None], centre=FAR)
        testing.assert_step_decrease(zoo.lifted, torch.ones_like, only([[0, 0]]))

    @given(testing.states_on_shells(2))
    @EXAMPLES
    def test_float32_has_its_own_tolerance(self, states: Tensor) -> None:
        def inside(z: Tensor) -> Tensor:
            return zoo.square(z.float())

        for V, points in ((zoo.square, states.float()), (inside, states)):
            testing.assert_step_decrease(V, shrunk, points, kappa=0.19)
            testing.assert_step_decrease(V, shrunk, points)
            for step, kappa in ((shrunk, 0.191), (turned, 0.0)):
                with pytest.raises(AssertionError):
                    testing.assert_step_decrease(V, step, points, kappa=kappa)

    def test_subnormal_values(self) -> None:
        testing.assert_step_decrease(zoo.square, shrunk, only([[1e-160, 0], [1e-162, 1e-161], [0, 1e-300]]), kappa=0.19)
        testing.assert_step_decrease(zoo.square, shrunk, torch.tensor([[1e-22, 1e-21]]), kappa=0.19)
        lost = only([[1e-200, 0]])
        with pytest.raises(AssertionError):  # V is 0 here, and does not fall
            testing.assert_step_decrease(zoo.square, shrunk, lost)
        testing.assert_step_decrease(zoo.square, shrunk, lost, inner_radius=1e-150)

    def test_the_hole(self) -> None:
        states = only([[0.5, 0], [0, 3]])
        assert "at [0, 3]" in failure(lambda: testing.assert_step_decrease(zoo.square, turned, states, inner_radius=1))
        testing.assert_step_decrease(zoo.square, turned, states, inner_radius=3)
        testing.assert_step_decrease(zoo.square, turned, states[:1], from_level=0.26)
        with pytest.raises(AssertionError):
            testing.assert_step_decrease(zoo.square, turned, states[:1], from_level=0.25)

    def test_what_is_not_finite_fails(self) -> None:
        nan = only([[math.nan, 1]])
        for V, step, state in (
            (zoo.square, halved, nan),
            (zoo.square, torn, only([[2, 0]])),
            (lambda z: zoo.square(z) + math.nan, halved, only([[2, 0]])),
            (zoo.square, lambda z: z / 0, only([[2, 1]])),
        ):
            with pytest.raises(AssertionError, match="not finite"):
                testing.assert_step_decrease(V, step, state, kappa=0.1, inner_radius=1.0, from_level=0.5)

    def test_v_needs_no_gradient(self) -> None:
        def through_numpy(z: Tensor) -> Tensor:
            return torch.from_numpy((z.numpy() ** 2).sum(1))

        testing.assert_step_decrease(through_numpy, shrunk, only([[1, 2]]), kappa=0.19)


class TestInvariant:
    def test_the_box(self) -> None:
        states = only([[1, 2], [-1, -2], [0.5, 0], [7, 7]])  # the last lies outside
        testing.assert_step_invariant(halved, states, low=(-1, -2), high=(1, 2))
        testing.assert_step_invariant(lambda z: z, states, low=[-1, -2], high=[1, 2])
        testing.assert_step_invariant(lambda z: z.flip(1), states[2:], low=-1, high=1)
        with pytest.raises(AssertionError, match=r"z\+ stays in the region fails at \[1, 2\] by 1, "):
            testing.assert_step_invariant(lambda z: z.flip(1), states[:1], low=(-1, -2), high=(1, 2))
        with pytest.raises(AssertionError):
            testing.assert_step_invariant(lambda z: z - 1e-12, states[1:2], low=(-1, -2), high=(1, 2))

    @given(testing.states_in_ball(2, radius=3))
    @EXAMPLES
    def test_the_sublevel_set(self, states: Tensor) -> None:
        testing.assert_step_invariant(turned, states, V=zoo.square, level=4.0)
        testing.assert_step_invariant(turned, states.float(), V=zoo.square, level=4.0)

    def test_rounding_on_the_boundary_passes_and_no_more(self) -> None:
        rays = turned(only([[2, 0]]).repeat(64, 1), 0.1)
        testing.assert_step_invariant(turned, rays, V=zoo.square, level=4.0)
        with pytest.raises(AssertionError):
            testing.assert_step_invariant(lambda z: (1 + 1e-12) * turned(z), rays * (1 - 1e-15), V=zoo.square, level=4)
        near = only([[1e6 - 1e-9, 1e6]])
        testing.assert_step_invariant(lambda z: z - 1e6, near, low=0, high=1e7)
        with pytest.raises(AssertionError):
            testing.assert_step_invariant(lambda z: z - 1e6, near - 1e-6, low=0, high=1e7)

    def test_both(self) -> None:
        region = {"low": -1, "high": 1, "V": zoo.square, "level": 1.5}
        testing.assert_step_invariant(lambda z: z.flip(1), only([[1, 0.7], [1, 1]]), **region)
        with pytest.raises(AssertionError):  # it leaves the box alone
            testing.assert_step_invariant(turned, only([[0.9, 0.8]]), **region)
        with pytest.raises(AssertionError):  # it leaves the sublevel set alone
            testing.assert_step_invariant(torch.ones_like, only([[0.5, 0]]), **region)

    def test_sides_of_different_length_have_their_own_rounding(self) -> None:
        states = only([[1e6, 1e-6]])
        region = {"low": (-1e6, -1e-6), "high": (1e6, 1e-6), "V": lambda z: zoo.square(z / states), "level": 2.0}
        testing.assert_step_invariant(lambda z: -z, states, **region)
        for half in ({"low", "high"}, {"V", "level"}):
            with pytest.raises(AssertionError):
                testing.assert_step_invariant(
                    lambda z: z * (1 + only([[0, 1e-9]])), states, **{key: region[key] for key in half}
                )

    def test_both_in_different_dtypes(self) -> None:
        for V, step in ((lambda z: zoo.square(z.float()), turned), (zoo.square, lambda z: turned(z).float())):
            testing.assert_step_invariant(step, only([[1.2, 0]]), low=-1.3, high=1.3, V=V, level=1.44)
            testing.assert_step_decrease(V, lambda z, step=step: 0.9 * step(z), only([[1.2, 0]]), kappa=0.19)

    def test_what_is_not_finite_fails(self) -> None:
        for step, state in (
            (halved, only([[math.nan, 1]])),
            (torn, only([[1.6, 0]])),
            (lambda z: z / 0, only([[1, 1]])),
        ):
            for region in ({"low": -2, "high": 2}, {"V": zoo.square, "level": 9.0}):
                with pytest.raises(AssertionError, match="not finite"):
                    testing.assert_step_invariant(step, state, **region)


def test_rest() -> None:
    testing.assert_step_rests(halved, torch.zeros(2))
    testing.assert_step_rests(shrunk_far_away, FAR)
    with pytest.raises(AssertionError, match=r"z\+ = z fails at \[1, 0\] by 0\.5"):
        testing.assert_step_rests(halved, only([[1, 0]])[0])
    with pytest.raises(AssertionError, match="not finite"):
        testing.assert_step_rests(torn, only([[2, 0]])[0])


FAILURES = {
    "unstable": lambda: testing.assert_step_decrease(zoo.square, doubled_first, only([[1, 1 / 3], [0, 1]])),
    "kappa": lambda: testing.assert_step_decrease(
        zoo.square, shrunk, only([[1, 2]]), kappa=0.2, centre=only([[0, 1]])[0], inner_radius=0.1, from_level=1
    ),
    "float32": lambda: testing.assert_step_decrease(zoo.square, turned, torch.tensor([[0.1, 1e-7]])),
    "nan": lambda: testing.assert_step_decrease(zoo.square, torn, only([[1, 0], [2, 1]])),
    "box": lambda: testing.assert_step_invariant(doubled_first, only([[1, 1]]), low=-1, high=(1, 3)),
    "level": lambda: testing.assert_step_invariant(doubled_first, only([[1, 1]]), V=zoo.square, level=3),
    "both": lambda: testing.assert_step_invariant(doubled_first, only([[1, 1]]), low=-2, high=2, V=zoo.square, level=3),
    "rest": lambda: testing.assert_step_rests(halved, only([[1e-7, 0]])[0], reference=1e-9),
    "hole": lambda: testing.assert_decrease(zoo.square, turned, only([[3, 1]]), inner_radius=1, from_level=0.5),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_prints_a_line_that_fails_again(name: str) -> None:
    assert fails_again(failure(FAILURES[name]))


def test_hypothesis_shrinks_to_a_simple_witness() -> None:
    box = testing.states_in_box(2, (-4, -9), (4, 9))
    for check in (
        lambda z: testing.assert_step_decrease(zoo.square, slow_beyond_two, z, kappa=0.5),
        lambda z: testing.assert_step_invariant(lambda z: 2 * slow_beyond_two(z), z, low=(-4, -9), high=(4, 9)),
    ):
        witness = found(box, check)
        assert witness.abs().tolist() == [[3, 0]]
        with pytest.raises(AssertionError):
            check(witness)


@given(testing.states_in_box(3, (-1, 0, 2), (5, 1e-3, 3), batch=2))
@EXAMPLES
def test_states_in_a_box_by_coordinate(states: Tensor) -> None:
    assert states.shape == (2, 3)
    assert states.dtype == torch.float64
    assert bool(((states >= only([[-1, 0, 2]])) & (states <= only([[5, 1e-3, 3]]))).all())


def test_every_coordinate_of_a_box_is_drawn_from_its_own_range() -> None:
    box = testing.states_in_box(3, (-1, 0, -1), (1, 9, 1))
    for reached in ([0.25, 5.0, -0.25], [-0.25, 5.0, 0.25]):
        goal = only([reached])

        def misses(states: Tensor, goal: Tensor = goal) -> None:
            assert not bool((states * goal.sign() >= goal.abs()).all())

        assert found(box, misses).shape == (1, 3)


@given(testing.states_between_levels(zoo.van_der_pol_energy, 2, 0.5, 2.3, batch=3))
@EXAMPLES
def test_states_between_levels(states: Tensor) -> None:
    value = zoo.van_der_pol_energy(states)
    assert bool(((value >= 0.5) & (value <= 2.3)).all())
    testing.assert_decrease(zoo.van_der_pol_energy, zoo.van_der_pol, states)


@given(st.data())
@EXAMPLES
def test_states_between_levels_of_a_v_that_ends(data: st.DataObject) -> None:
    """1 - cos(x) + y^2 / 2 exceeds 2 off the first axis alone, and is lifted and moved here."""
    strategy = testing.states_between_levels(lambda z: zoo.pendulum_energy(z - FAR) + 5, 2, 5.0, 8.0, centre=FAR)
    value = zoo.pendulum_energy(data.draw(strategy) - FAR) + 5
    assert bool(((value >= 5) & (value <= 8)).all())


def test_states_between_levels_reach_both() -> None:
    strategy = testing.states_between_levels(zoo.square, 3, 1.0, 4.0)
    for check in (lambda z: not zoo.square(z) < 1.2, lambda z: not zoo.square(z) > 3.8):

        def misses(states: Tensor, check: Callable[[Tensor], bool] = check) -> None:
            assert check(states)

        found(strategy, misses)


def test_a_decrease_outside_of_a_hole() -> None:
    states = only([[0.5, 0], [0, 3]])
    dynamics = testing.LinearDynamics(only([[0, 1], [-1, 0]]), 0.0, torch.eye(2, dtype=torch.float64))
    testing.assert_decrease(zoo.square, dynamics, states, inner_radius=3)
    testing.assert_decrease(zoo.square, dynamics, states, from_level=9.1)
    for hole in ({"inner_radius": 2.9}, {"from_level": 9.0}):
        assert "V-dot < 0 fails at [0, 3]" in failure(
            lambda hole=hole: testing.assert_decrease(zoo.square, dynamics, states, **hole)
        )
    with pytest.raises(AssertionError, match="not finite"):
        testing.assert_decrease(lambda z: zoo.square(z) + math.nan, dynamics, states, from_level=9.1)


def test_the_properties_of_steps_on_the_page_hold() -> None:
    page = Path(__file__).parents[1] / "docs" / "how-to" / "property-test.md"
    scope: dict[str, object] = {}
    exec("".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)), scope)
    for test in ("test_my_energy_falls_with_every_step", "test_the_origin_rests"):
        scope[test]()
    with pytest.raises(AssertionError):  # and 0.09 is all
        testing.assert_step_decrease(scope["V"], scope["step"], only([[1, 0]]), kappa=0.0901)


ONE = only([[1, 0]])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: testing.assert_step_decrease(zoo.square, zoo.square, ONE), r"square must return shape \(1, 2\)"),
        (lambda: testing.assert_step_decrease(zoo.square, lambda z: z[:1, :1], ONE), r"must return shape \(1, 2\)"),
        (lambda: testing.assert_step_decrease(halved, halved, ONE), r"halved must return shape \(1,\)"),
        (lambda: testing.assert_step_decrease(zoo.square, halved, ONE[0]), r"expected states \(B, n\)"),
        (lambda: testing.assert_step_decrease(zoo.square, halved, ONE.long()), "floating point"),
        (lambda: testing.assert_step_decrease(zoo.square, halved, ONE, centre=torch.zeros(3)), "expected a centre"),
        (lambda: testing.assert_step_decrease(zoo.square, halved, ONE, kappa=1), "kappa must be at least 0 and less"),
        (lambda: testing.assert_step_decrease(zoo.square, halved, ONE, kappa=math.nan), "kappa must be"),
        (lambda: testing.assert_step_decrease(zoo.square, halved, ONE, inner_radius=-1), "inner_radius must be"),
        (lambda: testing.assert_step_decrease(zoo.square, halved, ONE, from_level=math.inf), "from_level must be"),
        (lambda: testing.assert_decrease(zoo.square, halved, ONE, inner_radius=math.nan), "inner_radius must be"),
        (lambda: testing.assert_step_invariant(halved, ONE), "expected a region"),
        (lambda: testing.assert_step_invariant(halved, ONE, low=0), "expected a region"),
        (lambda: testing.assert_step_invariant(halved, ONE, V=zoo.square), "expected a region"),
        (lambda: testing.assert_step_invariant(halved, ONE, low=0, high=1, level=2), "expected a region"),
        (lambda: testing.assert_step_invariant(halved, ONE, V=zoo.square, level=math.nan), "level must be finite"),
        (lambda: testing.assert_step_invariant(halved, ONE, low=(0, 0, 0), high=1), "low: expected a number, or 2"),
        (lambda: testing.assert_step_invariant(halved, ONE, low=1, high=(2, 1)), "finite low < high, got 1.0 and 1.0"),
        (lambda: testing.assert_step_invariant(zoo.square, ONE, low=0, high=1), "must return shape"),
        (lambda: testing.assert_step_rests(halved, ONE), r"expected a centre of shape \(n,\)"),
        (lambda: testing.assert_step_rests(halved, ONE[0], reference=0), "reference must be positive"),
        (lambda: testing.states_in_box(2, (0, 0), (1, math.inf)), "finite low < high"),
        (lambda: testing.states_in_box(3, -1, (1, 2)), "high: expected a number, or 3"),
        (lambda: testing.states_between_levels(zoo.lifted, 2, 0.5, 2), "V at the centre, 1, <= low < high"),
        (lambda: testing.states_between_levels(zoo.square, 2, 2, 2), "<= low < high"),
        (lambda: testing.states_between_levels(zoo.sink, 2, 1, 2), r"must return shape \(1,\)"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_give(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        call()
