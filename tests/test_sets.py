"""States on a set {h = 0}: what is true there is proved, what is false refuted at a true state of it, and what leaves it is told."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import set_functions as own
import torch
from check_runs import run
from flint import ctx
from torch import Tensor

import stabdeq
from analysis.evidence.claim import Claim
from analysis.evidence.constrained import Constrained
from analysis.evidence.effort import Effort
from analysis.evidence.regions import Ball, Box, Outside
from analysis.findings import Finding, Verdict
from analysis.proofs.balls import evaluate, exact
from analysis.proofs.balls.zeros import near
from analysis.proofs.box_search import Proof, Unproved
from analysis.proofs.kept import prove_kept
from analysis.proofs.on_a_set import prove_on_a_set
from analysis.proofs.tracing import read
from analysis.user_function.function import load_function
from analysis.user_function.kept import with_leaving
from analysis.user_function.on_a_set import constrained, judge_on_set, load_constraint
from analysis.user_function.subject import Subject
from stabdeq import testing
from stabdeq.errors import ConfigError
from stabdeq.lyapunov.claims import Violation
from stabdeq.testing.proof import _line_at_witness

Function = Callable[[Tensor], Tensor]
DOWN = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
POLE = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
BOX: list[tuple[float, float]] = [(-1.1, 1.1), (-1.1, 1.1), (-2.5, 2.5)]
HANGING: dict[str, Any] = {"dim": 3, "centre": DOWN.tolist(), "box": BOX, "samples": 64, "starts": 1, "boxes": 4000}
TRIAL = torch.rand(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def around(centre: Tensor, sides: list[tuple[float, float]]) -> Box:
    return Box(centre, *torch.tensor(sides, dtype=torch.float64).unbind(1))


def pendulum_states(value: Function = own.crossed, level: float = 1.5, **options: Any) -> Constrained:
    return Constrained(around(DOWN, BOX), value, level, constraint=own.circle, **options)


def cap(lowest: float) -> Constrained:
    sides = [(-1.2, 1.2), (-1.2, 1.2), (lowest, 1.2)]
    return Constrained(around(POLE, sides), own.depth, constraint=own.sphere)


def prove(
    name: str,
    value: Function,
    motion: Function | None,
    region: Any,
    rate: float | None = None,
    *,
    in_steps: bool = False,
    boxes: int = 2000,
) -> Proof | Unproved:
    return prove_on_a_set(name, value, motion, region, rate, in_steps=in_steps, max_boxes=boxes)


def halved(z: Tensor) -> Tensor:
    """z+, half way to the hanging state."""
    return 0.5 * z + 0.5 * DOWN


def judged(V: Any, f: Any = None, **options: Any) -> dict[str, Finding]:
    return {one.check: one for one in stabdeq.check(V, f, **{**HANGING, **options}).findings}


# What is true.


def test_the_pendulum_is_proved_on_its_circle_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(own.__file__).parent)
    functions = ["set_functions:crossed", "--dynamics", "set_functions:pendulum", "--on", "set_functions:circle"]
    place = ["--dim", "3", "--centre", "0,1,0", "--box=-1.1:1.1,-1.1:1.1,-2.5:2.5"]
    effort = ["--samples", "64", "--starts", "2", "--claims", "positive"]
    code, found = run([*functions, *place, *effort], tmp_path)
    assert (code, {one["verdict"] for one in found.values()}) == (0, {"PROVED"})
    where = "the set {h = 0} within the box [-1.1, 1.1] x [-1.1, 1.1] x [-2.5, 2.5]"
    assert found["positive"]["claim"] == f"V > 0 on {where}, except at the centre."
    assert judged(own.crossed, claims=["positive"])["positive"].verdict is Verdict.REFUTED


def test_the_pendulum_falls_on_its_circle() -> None:
    found = prove("decrease", own.crossed, own.pendulum, pendulum_states())
    assert isinstance(found, Proof)
    assert "V-dot - 0.5 h^2 and its gradient are 0 at the centre and its Hessian is negative definite" in found.words
    assert found.boxes < 400


@pytest.mark.parametrize(
    ("name", "rate", "expected"), [("positive", None, Proof), ("decrease", None, Proof), ("decay", 0.45, Proof)]
)
def test_the_flow_on_a_sphere_is_proved(name: str, rate: float | None, expected: type) -> None:
    assert isinstance(prove(name, own.depth, own.to_the_pole, cap(-0.5), rate), expected)


def test_a_step_on_the_circle_is_proved() -> None:
    def turned(z: Tensor) -> Tensor:
        s, c, w = z.unbind(1)
        angle = 0.05 * w
        sine, cosine = torch.sin(angle), torch.cos(angle)
        return torch.stack([s * cosine + c * sine, c * cosine - s * sine, w + 0.05 * (-s - w)], 1)

    found = prove("decrease", own.crossed, turned, pendulum_states(level=0.2), in_steps=True)
    assert isinstance(found, Proof)
    assert found.words.startswith("V(z+) - V(z)")


def test_an_equilibrium_that_is_no_machine_number_needs_a_hole() -> None:
    sine, cosine = math.sin(0.3), math.cos(0.3)
    centre = torch.tensor([sine, cosine, 0], dtype=torch.float64)

    def value(z: Tensor) -> Tensor:
        s, c, w = z.unbind(1)
        return 1 - c * cosine - s * sine + w**2 / 2

    region = Constrained(around(centre, BOX), value, constraint=own.circle)
    found = prove("positive", value, None, region)
    assert isinstance(found, Unproved)
    assert "cannot be shown exactly" in found.reason
    assert isinstance(prove("positive", value, None, Outside(region, 1e-3)), Proof)


def test_components_of_different_size_are_each_taken_off_by_their_own_multiple() -> None:
    centre = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    sides = [(-0.8, 0.8), (0.5, 1.1)] * 2

    def value(z: Tensor) -> Tensor:  # c (1 - c) of each circle
        return ((1 - z[:, 1::2]) - (1 - z[:, 1::2]) ** 2).sum(1)

    for size, expected in ((1.0, Proof), (2.0**-10, Proof), (2.0**-515, Unproved)):
        circles = lambda z, size=size: torch.stack([own.circle(z), size * own.circle(z[:, 2:])], 1)  # noqa: E731
        found = prove("positive", value, None, Constrained(around(centre, sides), value, constraint=circles))
        assert isinstance(found, expected)


# What is false.


@pytest.mark.parametrize(("rate", "expected"), [(0.495, Proof), (0.505, Unproved)])
def test_a_rate_of_one_percent_more_is_not_proved(rate: float, expected: type) -> None:
    assert isinstance(prove("decay", own.depth, own.to_the_pole, cap(-0.5), rate, boxes=400), expected)


def test_what_is_false_at_one_place_alone_is_not_proved() -> None:
    # At the upright state V is 2 - 2 (1 + 1 %), and V-dot is 0, as that of the energy is without speed.
    lowered = lambda z: own.crossed(z) - 0.505 * (1 - z[:, 1]) ** 2  # noqa: E731
    for name, value, level in (
        ("positive", lowered, 1.5),
        ("decrease", own.crossed, 2.02),
        ("decrease", own.energy, 1.5),
    ):
        assert isinstance(prove(name, value, own.pendulum, pendulum_states(value, level), boxes=150), Unproved)


def test_the_rate_of_steps_does_not_make_positivity_weaker() -> None:
    def value(z: Tensor) -> Tensor:  # 0 at (0, 1, 0.731) besides
        return z[:, 0] ** 2 + (1 - z[:, 1]) ** 2 + z[:, 2] ** 2 * (z[:, 2] - 0.731) ** 2

    found = prove("positive", value, halved, pendulum_states(value, math.inf), 0.1, in_steps=True, boxes=64)
    assert isinstance(found, Unproved)


def test_a_kink_of_v_on_the_set_is_not_passed_over() -> None:
    # V-dot is -1 where s > 0 and 1 where s < 0, of a V with a kink at s = 0.
    found = prove("decrease", lambda z: z[:, 0].relu(), lambda z: 0 * z - 1, pendulum_states(level=torch.inf))
    assert isinstance(found, Unproved)


def test_a_claim_is_refuted_at_a_true_state_of_the_set() -> None:
    found = judged(own.depth, own.to_the_pole, on=own.sphere, alpha=0.6, claims=["decay"], centre=POLE.tolist(), box=[
        (-1.2, 1.2), (-1.2, 1.2), (-0.5, 1.2)
    ])["decay"]  # fmt: skip
    assert found.verdict is Verdict.REFUTED
    assert found.witness is not None
    state = torch.tensor([found.witness["state"]], dtype=torch.float64)
    assert abs(float(own.sphere(state))) <= 1e-15
    assert found.witness["h"] == own.sphere(state).tolist()
    assert "ball arithmetic" in found.witness["replayed_by"]
    line = _line_at_witness(own.depth, own.to_the_pole, {"on": own.sphere, "alpha": 0.6}, found)
    assert line.startswith("assert_decay(depth, to_the_pole, ")


def test_dynamics_that_leave_the_set_are_told() -> None:
    found = judged(own.crossed, own.leaving, on=own.circle, claims=["kept"])["kept"]
    assert found.verdict is Verdict.REFUTED
    where = "the set {h = 0} within the box [-1.1, 1.1] x [-1.1, 1.1] x [-2.5, 2.5]"
    assert found.claim == f"Trajectories stay on the set: Dh f = 0 on {where}."
    region = around(DOWN, BOX)
    value, velocity = (load_function(one, 3, kind) for one, kind in ((own.crossed, "value"), (own.leaving, "velocity")))
    subject = Subject(value, velocity, constrained(region, load_constraint(own.circle, 3, TRIAL), value))
    others = [subject.finding(name, Verdict.PROVED, "By boxes.") for name in ("positive", "decrease", "invariant")]
    positive, decrease, invariant = with_leaving(others, found)
    assert (positive, decrease.verdict, invariant.verdict) == (others[0], Verdict.PROVED, Verdict.INCONCLUSIVE)
    for one in (decrease, invariant):
        assert one.evidence.startswith("The dynamics leave the set, as at [")
    supported = replace(found, verdict=Verdict.SUPPORTED, witness=None)
    _, decrease, invariant = with_leaving(others, supported)
    assert (decrease.verdict, invariant.verdict) == (Verdict.PROVED, Verdict.SUPPORTED)
    assert decrease.evidence == "By boxes. That trajectories stay on the set is not proved."
    assert with_leaving(others, replace(supported, verdict=Verdict.PROVED)) == others


@pytest.mark.parametrize("other", [lambda z: 3 * own.circle(z), lambda z: (2 + z[:, 2]) ** 2 * own.circle(z)])
def test_of_components_that_say_the_same_one_is_enough(other: Function) -> None:
    region = Constrained(around(DOWN, BOX), own.crossed, constraint=lambda z: torch.stack([own.circle(z), other(z)], 1))
    states = region.sample(500, torch.Generator().manual_seed(0))
    assert float(own.circle(states).abs().max()) < 1e-11
    assert not bool(region.contains(1.001 * states).any())


def test_states_on_a_set_do_not_depend_on_the_size_of_h() -> None:
    region = Constrained(around(DOWN, BOX), own.crossed, constraint=lambda z: 1e-200 * own.circle(z))
    states = region.sample(50, torch.Generator().manual_seed(0))
    assert float(own.circle(states).abs().max()) < 1e-11
    assert not bool(region.contains(1.001 * states).any())


def test_a_state_where_h_is_0_and_has_no_slope_is_on_the_set() -> None:
    origin = torch.zeros(2, dtype=torch.float64)
    region = Constrained(around(origin, [(-1, 1)] * 2), own.sphere, constraint=own.root)
    assert region.contains(origin[None]).tolist() == [True]
    assert torch.equal(region.tangent(origin[None]), origin[None])
    assert not bool(region.contains(torch.tensor([[0.0, 0.1]], dtype=torch.float64)).any())


def test_an_h_that_ball_arithmetic_does_not_know_makes_nothing_certain() -> None:
    value = load_function(own.crossed, 3, "value")
    for factor, is_read in ((torch.exp, True), (torch.lgamma, False)):
        h = load_constraint(lambda z, factor=factor: own.circle(z) * factor(3 + z[:, 2]), 3, TRIAL)
        subject = Subject(value, None, constrained(around(DOWN, BOX), h, value))
        assert (subject.certainty is not None) == is_read


def test_what_is_certain_at_no_true_state_is_inconclusive() -> None:
    value = load_function(own.crossed, 3, "value")
    region = constrained(around(DOWN, BOX), load_constraint(own.circle, 3, TRIAL), value)
    subject = Subject(value, None, region, effort=Effort(samples=64, starts=1, steps=1))
    ones = lambda z: torch.ones_like(z[:, 0])  # noqa: E731
    claim = Claim(
        check="positive",
        name="positive",
        sentence="V > 0.",
        violation=lambda z: Violation(ones(z), ones(z)),
        tolerance=1e-12,
        certain=lambda state: (None, 1.0),
    )
    found = judge_on_set(subject, claim, region)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.evidence.startswith("At a state with h = 0 to rounding it fails")


# The parts.


def graph(function: Function) -> Any:
    return read(function, TRIAL)


def test_what_keeps_a_set_is_proved_by_polynomials() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()

    def controlled(z: Tensor) -> Tensor:
        return own.pendulum(z) + torch.cat([torch.zeros_like(z[:, :2]), network(z)], 1)

    base = around(DOWN, BOX)
    for h, f in ((own.circle, own.pendulum), (own.circle, controlled), (own.sphere, own.to_the_pole)):
        assert isinstance(prove_kept(graph(h), graph(f), base, in_steps=False), Proof)
    assert "multiple of h" in prove_kept(graph(own.sphere), graph(own.to_the_pole), base, in_steps=False).words
    quarter = lambda z: torch.stack([z[:, 1], -z[:, 0], z[:, 2] / 2], 1)  # noqa: E731
    assert isinstance(prove_kept(graph(own.circle), graph(quarter), base, in_steps=True), Proof)
    # An Euler step leaves the circle, a velocity along s does, and what a network does to s is not known.
    euler = lambda z: z + 0.01 * own.pendulum(z)  # noqa: E731
    pushed = lambda z: own.pendulum(z) + torch.cat([network(z), torch.zeros_like(z[:, 1:])], 1)  # noqa: E731
    for f, in_steps in ((euler, True), (own.leaving, False), (pushed, False)):
        assert isinstance(prove_kept(graph(own.circle), graph(f), base, in_steps=in_steps), Unproved)


def test_dynamics_with_divisors_keep_a_set_where_none_is_0_on_it() -> None:
    pole = torch.eye(3, dtype=torch.float64)[2]
    to_the_pole = lambda z: pole - z[:, 2:] * z / z.square().sum(1, keepdim=True)  # noqa: E731
    turning = lambda z: torch.stack([z[:, 1], -z[:, 0], -z[:, 2]], 1) / (z[:, :1] - 0.3)  # noqa: E731
    base = around(POLE, [(-1.2, 1.2)] * 3)
    found = prove_kept(graph(own.sphere), graph(to_the_pole), base, in_steps=False)
    assert isinstance(found, Proof)
    # Dh f is 0 but where s = 0.3: there f is not defined.
    found = prove_kept(graph(own.circle), graph(turning), around(DOWN, BOX), in_steps=False)
    assert isinstance(found, Unproved)
    assert "no divisor of Dh f is 0 on the set" in found.reason


def test_a_true_zero_is_enclosed_next_to_a_state() -> None:
    circle = graph(own.circle)
    for numbers in ([math.sin(0.3), math.cos(0.3), 2.0], [0.6, 0.8, 0.0]):
        state = torch.tensor(numbers, dtype=torch.float64)
        normal = 2 * torch.cat([state[:2], state.new_zeros(1)])[None]
        with ctx.workprec(128):
            s, c, w = near(lambda z, along: [evaluate(circle, z, along)], state, normal)
        assert (s * s + c * c - 1).contains(0)
        assert abs(s - exact(state)[0]) < 1e-15
        assert s.rad() < 1e-18
        assert w == float(state[2])
    for away in ([0.5, 0.5, 0.0], [0.0, 0.0, 0.0]):
        state = torch.tensor(away, dtype=torch.float64)
        found = near(lambda z, along: [evaluate(circle, z, along)], state, torch.ones(1, 3, dtype=torch.float64))
        assert not any(one.is_finite() for one in found) or bool(
            (found[0] * found[0] + found[1] * found[1] - 1).contains(0)
        )


def test_no_zero_is_enclosed_where_there_is_none() -> None:
    above = graph(lambda z: z[:, 0] ** 2 + 1e-6)
    for distance in (1e-3, 1e-2, 1.0):
        state = torch.tensor([distance, 0, 0], dtype=torch.float64)
        found = near(lambda z, along: [evaluate(above, z, along)], state, torch.eye(3, dtype=torch.float64)[:1])
        assert not any(one.is_finite() for one in found)


@pytest.mark.parametrize(
    "region",
    [pendulum_states(), pendulum_states(lower=0.5), pendulum_states(on_boundary=True), cap(-0.5),
     Constrained(Ball(DOWN, 1.5), own.crossed, constraint=own.circle)],
)  # fmt: skip
def test_states_are_moved_onto_the_region_and_climbs_stay_on_it(region: Constrained) -> None:
    generator = torch.Generator().manual_seed(0)
    states = region.sample(200, generator)
    assert len(states) == 200
    assert bool(region.contains(states).all())
    h, value = region.constraint(states), region.value(states)
    assert float(h.abs().max()) < 1e-12
    assert bool(((value <= region.level + 1e-9) & (value >= region.lower)).all())
    assert bool(region.contains(region.project(states + 0.1)).all())
    assert not bool(region.contains(1.001 * states).any())
    # The gradient of what is returned is tangent.
    leaf = states.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(region.tangent(leaf)[:, 1].sum(), leaf)
    leaf = states.clone().requires_grad_()
    (normal,) = torch.autograd.grad(region.constraint(leaf).sum(), leaf)
    assert float((gradient * normal).sum(1).abs().max()) < 1e-12


def test_a_state_that_is_pushed_out_of_a_ball_stays_on_the_set() -> None:
    outside = Outside(pendulum_states(), 0.2)
    states = outside.project(outside.region.shells(100, torch.Generator().manual_seed(0)))
    assert bool(outside.contains(states).all())


# What is no set.


@pytest.mark.parametrize(
    ("h", "options", "message"),
    [
        (own.nowhere, {}, r"no state of the box .* was found with nowhere = 0: its size is at least 1"),
        (own.circle, {"centre": 0.0}, r"the centre \[0, 0, 0\] is not on the set: circle is \[-1\] there"),
        (own.circle, {"box": [(-0.1, 0.1), (0.5, 0.9), (-1, 1)], "centre": [0, 0.6, 0]}, "no state of the box"),
        (own.truths, {}, "returns truths"),
        (own.not_a_number, {}, "is NaN at"),
        (own.cube, {}, r"must return shape \(6,\) .* return numbers \(B,\) or \(B, k\), all 0 on the set"),
        (own.of_arrays, {}, "has no gradient by autograd"),
        (own.nothing, {}, r"returns no numbers, shape \(6, 0\); expected \(B,\) or \(B, k\)"),
        (own.in_float32, {}, "computes in float32"),
        (own.apart, {}, r"no state of the box .* was found with apart = 0: its size is at least 0.001"),
        (lambda z: 1e-200 * own.nowhere(z), {}, "no state of the box"),
        (own.alone, {}, "of the box .* the centre alone was found with alone = 0"),
        (own.circle, {"claims": ["convex"]}, "'convex' is not judged on a set"),
        (own.circle, {"sublevel": "max", "f": own.pendulum}, "excludes sublevel 'max'"),
        (own.circle, {"sublevel": 1.0, "box": None}, "needs a box, or a radius"),
        (own.circle, {"proof": "proof.json"}, "cannot be written to a file yet"),
        (own.circle, {"initial": own.circle}, "is not judged on a set|excludes initial"),
        (own.circle, {"sublevel": 1.5, "from_level": 1.4999999999, "box": [(-0.1, 0.1), (0.9, 1.1), (-0.1, 0.1)]}, "no state was found"),
        (None, {"claims": ["kept"], "f": own.pendulum}, "the claim 'kept' needs on"),
    ],
)  # fmt: skip
def test_what_is_no_set_is_refused(h: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stabdeq.check(own.crossed, **{**HANGING, "on": h, **options})


def test_states_on_a_set_are_drawn() -> None:
    from hypothesis import given, settings

    @settings(max_examples=8, deadline=None, database=None)
    @given(testing.states_on_set(own.circle, 3, (-1.1, -1.1, -2), (1.1, 1.1, 2), batch=4))
    def drawn(states: Tensor) -> None:
        assert states.shape == (4, 3)
        assert float(own.circle(states).abs().max()) < 1e-11

    drawn()
