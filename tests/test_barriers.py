"""Barrier certificates: what is true is proved, what is false refuted by states that are, and what is empty is not judged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import barrier_problems as own
import pytest
import torch
from check_runs import run
from short_hunts import shorten_hunts
from torch import Tensor

import stabdeq
from analysis.evidence.regions import Ball, Box
from analysis.evidence.zero_set import ZeroSet, find_zero_set
from analysis.findings import Finding, Verdict
from analysis.proofs.barriers import prove_barrier, prove_on_set
from analysis.proofs.box_search import Proof, Unproved
from analysis.user_function.barrier import sign_where_zero
from analysis.user_function.function import load_function
from analysis.user_function.subject import Subject
from stabdeq.errors import ConfigError

Function = Callable[[Tensor], Tensor]
QUICK: dict[str, Any] = {"samples": 1024, "starts": 8, "boxes": 20000}
PLACE: dict[str, Any] = {"dim": 2, "box": (-4, 4)}
ORIGIN = torch.zeros(2, dtype=torch.float64)
BASE = Box(ORIGIN, ORIGIN - 4, ORIGIN + 4)


def judged(B: Any, f: Any = None, **options: Any) -> dict[str, Finding]:
    return {one.check: one for one in stabdeq.check(B, f, **{**PLACE, **QUICK, **options}).findings}


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    return {name: one.verdict.name for name, one in found.items()}


def disc(square: float) -> Function:
    return lambda z: z.square().sum(1) - square


def outside(square: float) -> Function:
    return lambda z: square - z.square().sum(1)


# What is true.


@pytest.mark.parametrize(
    ("B", "f", "initial", "unsafe", "place"),
    [
        (own.circle, own.spiral_in, own.inner_disc, own.far_out, {}),
        (own.circle, own.spiral_in, own.inner_disc, own.far_out, {"box": None, "radius": 4.0}),
        (own.circle, own.spiral_in, own.inner_disc, own.corner_box, {}),
        (own.prajna_barrier, own.prajna_flow, own.prajna_initial, own.prajna_unsafe, {"box": (-3, 3)}),
    ],
)
def test_a_barrier_is_proved_with_what_follows(
    B: Function,
    f: Function,
    initial: Function,
    unsafe: Function,
    place: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shorten_hunts(monkeypatch)
    found = judged(B, f, initial=initial, unsafe=unsafe, **place)
    assert verdicts(found) == {"initial": "PROVED", "unsafe": "PROVED", "barrier": "PROVED"}
    assert found["barrier"].evidence.startswith("Nothing that starts in the initial set reaches the unsafe set before")


def test_an_energy_that_only_never_rises_keeps_from_the_unsafe_set_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """B-dot = -z2^2 is 0 where the oscillator turns, and B = 0 there too: barrier is not proved, decay at the rate 0 is."""
    shorten_hunts(monkeypatch)

    def oscillator(z: Tensor) -> Tensor:
        return torch.stack([z[:, 1], -z[:, 0] - z[:, 1] / 2], 1)

    sets: dict[str, Any] = {"initial": disc(0.25), "unsafe": lambda z: -disc(2.25)(z)}
    strict = judged(disc(1.0), oscillator, **sets)
    assert strict["barrier"].verdict is not Verdict.PROVED
    found = judged(disc(1.0), oscillator, **sets, alpha=0, claims=["initial", "unsafe", "decay"])
    assert verdicts(found) == dict.fromkeys(["initial", "unsafe", "decay"], "PROVED")
    assert found["decay"].evidence.startswith("Nothing that starts in the initial set reaches the unsafe set")
    hole = judged(disc(1.0), oscillator, **sets, alpha=0, claims=["initial", "unsafe", "decay"], inner_radius=0.1)
    assert "Nothing that starts" not in hole["decay"].evidence


def test_a_barrier_in_steps_is_proved() -> None:
    found = judged(own.circle, step=lambda z: 0.9 * own.rotation(z), initial=own.inner_disc, unsafe=own.far_out)
    assert set(verdicts(found).values()) == {"PROVED"}
    assert found["barrier"].claim == "B(z+) <= 0 wherever B(z) <= 0 on the box [-4, 4]^2."


def test_one_set_alone_allows_the_claims_about_it() -> None:
    assert verdicts(judged(own.circle, initial=own.inner_disc)) == {"initial": "PROVED"}
    found = judged(own.circle, own.spiral_in, unsafe=own.far_out)
    assert verdicts(found) == {"unsafe": "PROVED", "barrier": "PROVED"}
    assert "Nothing that starts" not in found["barrier"].evidence


# What is false.


@pytest.mark.parametrize(("share", "verdict"), [(0.99, "PROVED"), (1.01, "REFUTED"), (1.0001, "REFUTED")])
def test_a_level_moved_a_little_is_seen(share: float, verdict: str) -> None:
    found = judged(own.circle, initial=disc(share))
    found |= judged(own.circle, unsafe=outside(1 / share))
    assert verdicts(found) == {"initial": verdict, "unsafe": verdict}
    for name, one in found.items():
        if verdict == "REFUTED":
            assert one.witness is not None
            square = float(torch.tensor(one.witness["state"], dtype=torch.float64).square().sum())
            assert 1 < square <= share if name == "initial" else 1 / share <= square <= 1


def test_a_barrier_of_the_wrong_sign_is_refuted() -> None:
    found = judged(own.outside_circle, own.spiral_in, initial=own.inner_disc, unsafe=own.far_out)
    assert verdicts(found) == {"initial": "REFUTED", "unsafe": "REFUTED", "barrier": "REFUTED"}


def test_what_crosses_the_barrier_is_refuted_where_it_is_0() -> None:
    found = judged(own.circle, own.spiral_out, claims=["barrier"])["barrier"]
    assert found.verdict is Verdict.REFUTED
    assert found.witness is not None
    state = torch.tensor([found.witness["state"]], dtype=torch.float64)
    assert abs(float(own.circle(state))) < 1e-7
    assert "ball arithmetic" in found.witness["replayed_by"]
    assert "on which B changes its sign for certain" in found.evidence
    found = judged(own.circle, step=lambda z: 1.02 * own.rotation(z), claims=["barrier"])["barrier"]
    assert found.verdict is Verdict.REFUTED
    assert found.witness is not None
    before = torch.tensor([found.witness["state"]], dtype=torch.float64)
    assert float(own.circle(before)) <= 0 < float(own.circle(1.02 * own.rotation(before)))


def test_a_flow_along_the_barrier_does_not_fall() -> None:
    found = judged(own.circle, own.rotation, claims=["barrier"])["barrier"]
    assert found.verdict in (Verdict.REFUTED, Verdict.INCONCLUSIVE)
    # Turned, no machine number with B = 0 is met: then it stays open.
    turned = torch.tensor([[0.7, 0.1], [-0.3, 0.9]], dtype=torch.float64)
    found = judged(
        lambda z: own.circle(z @ turned.T),
        lambda z: own.rotation(z @ turned.T) @ turned.inverse().T,
        claims=["barrier"],
    )["barrier"]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "need not be a machine number" in found.evidence


def test_a_flow_that_crosses_in_a_narrow_sector_is_refuted() -> None:
    def leaky(z: Tensor) -> Tensor:
        x, y = z.unbind(1)
        return -z + 3 * z * torch.exp(-1000 * ((x - 0.6) ** 2 + (y - 0.8) ** 2))[:, None]

    found = judged(own.circle, leaky, claims=["barrier"])["barrier"]
    assert found.verdict is Verdict.REFUTED


def test_a_barrier_around_a_small_bubble_is_refuted() -> None:
    # At the bubble the flow -z goes in on one side and out on the other.
    found = judged(own.bubble, lambda z: -z, claims=["barrier"], starts=64, samples=8192)["barrier"]
    assert found.verdict is Verdict.REFUTED
    assert found.witness is not None
    assert found.witness["state"] == pytest.approx([1.5, 0], abs=2e-3)


@pytest.mark.parametrize("seed", range(2))
def test_quadratic_barriers_get_their_known_verdicts(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    roots = torch.randn(3, 2, 2, generator=generator, dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64)
    P, Q, A = roots[0] @ roots[0].T + eye / 3, roots[1] @ roots[1].T + eye / 3, roots[2]

    def largest(top: Tensor, bottom: Tensor) -> float:
        return float(torch.linalg.eigvals(torch.linalg.solve(bottom, top)).real.max())

    for share, verdict in ((0.98, "PROVED"), (1.02, "REFUTED")):
        level = share / largest(P, Q)
        moved = A - (largest(A.T @ P + P @ A, P) / 2 + 1 - share) * eye
        found = judged(
            lambda z: (z @ P * z).sum(1) - 1,
            lambda z, moved=moved: z @ moved.T,
            initial=lambda z, level=level: (z @ Q * z).sum(1) - level,
        )
        assert verdicts(found) == {"initial": verdict, "barrier": verdict}


def test_an_unsafe_set_on_which_b_is_0_is_refuted() -> None:
    assert verdicts(judged(own.ramp, unsafe=own.inner_disc)) == {"unsafe": "REFUTED"}


# What cannot be judged.


def test_arrays_are_refuted_to_rounding_and_never_proved() -> None:
    found = judged(own.array_circle, own.array_spiral_out, initial=own.array_disc)
    assert verdicts(found) == {"initial": "SUPPORTED", "barrier": "REFUTED"}
    assert found["barrier"].evidence.startswith("Violated, to rounding,")


@pytest.mark.parametrize("lost", ["initial", "unsafe"])
def test_nothing_follows_where_one_set_is_not_proved(lost: str) -> None:
    sets: dict[str, Any] = {"initial": own.inner_disc, "unsafe": own.far_out} | {lost: own.nowhere}
    for claims in (["initial", "unsafe", "barrier"], ["initial", "unsafe", "decay"]):
        found = judged(disc(1.0), lambda z: -z, **sets, alpha=0 if "decay" in claims else None, claims=claims)
        kept = {name: "PROVED" for name in claims if name != lost}
        assert verdicts(found) == kept | {lost: "INCONCLUSIVE"}
        assert not any("Nothing that starts" in finding.evidence for finding in found.values())


def test_sets_without_a_state_leave_the_claim_open() -> None:
    found = judged(own.circle, own.spiral_in, initial=own.nowhere, unsafe=own.far_out)
    assert verdicts(found) == {"initial": "INCONCLUSIVE", "unsafe": "PROVED", "barrier": "PROVED"}
    assert (
        "No state of the initial set was found in the box [-4, 4]^2: nowhere is at least 1 there"
        in found["initial"].evidence
    )
    assert "Nothing that starts" not in found["barrier"].evidence
    found = judged(own.nowhere, own.spiral_in, claims=["barrier"])
    assert verdicts(found) == {"barrier": "INCONCLUSIVE"}
    assert "one sign at all states tried" in found["barrier"].evidence


@pytest.mark.parametrize("B", [own.jumping, own.not_a_number])
def test_a_barrier_that_jumps_or_is_nan_is_left_open(B: Function) -> None:
    assert verdicts(judged(B, own.spiral_in, claims=["barrier"])) == {"barrier": "INCONCLUSIVE"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"initial": own.truths},
            "the initial set: truths returns truths; expected numbers that are at most 0 in the set",
        ),
        ({"initial": own.spiral_in}, "the initial set: spiral_in must"),
        ({"initial": own.inner_disc, "unsafe": lambda z: z[:, 0] - 0.3}, r"sets? meet: at \[.*B would have to be"),
        ({"initial": own.inner_disc, "sublevel": 1.0}, "judged on a ball or a box: give radius or box"),
        ({"initial": own.inner_disc, "alpha": 1.0}, "alpha is for the claim decay, and judged are initial, barrier"),
        (
            {"initial": own.inner_disc, "claims": ["barrier"]},
            "initial is for the claim initial, and judged are barrier",
        ),
        (
            {"initial": own.inner_disc, "inner_radius": 0.1},
            "inner_radius is for the claim positive or decrease or decay",
        ),
        ({"claims": ["unsafe"]}, "the claim 'unsafe' needs unsafe"),
        (
            {"f": None, "uncertain": lambda z, d: -z + d, "disturbance": (-1, 1), "initial": own.inner_disc},
            "along dynamics without disturbances: give f in place of uncertain",
        ),
    ],
)
def test_bad_input_says_what_was_expected(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        judged(own.circle, **{"f": own.spiral_in, **options})


def test_a_barrier_needs_dynamics_by_name() -> None:
    with pytest.raises(ConfigError, match="the claim 'barrier' needs dynamics"):
        judged(own.circle, claims=["barrier"])


def test_a_lyapunov_function_is_judged_as_before_without_sets() -> None:
    assert "barrier" not in verdicts(judged(lambda z: z.square().sum(1), own.spiral_in))


# Proofs alone, and the states with B = 0.


@pytest.mark.parametrize("share", [1.0, 1 + 1e-9, 1.01])
def test_what_is_false_or_only_just_true_is_never_proved(share: float) -> None:
    for bound, is_positive in ((disc(share), False), (outside(1 / share), True)):
        found = prove_on_set(own.circle, bound, BASE, "", strictly_positive=is_positive, max_boxes=3000)
        assert isinstance(found, Unproved)
    assert isinstance(prove_barrier(own.circle, own.rotation, BASE, max_boxes=3000), Unproved)
    assert isinstance(prove_barrier(own.jumping, own.spiral_in, BASE, max_boxes=3000), Unproved)
    assert isinstance(prove_barrier(own.circle, own.spiral_in, BASE, max_boxes=3000), Proof)


@pytest.mark.parametrize("base", [BASE, Ball(ORIGIN + 0.5, 1.2)])
def test_states_are_moved_to_where_b_is_0(base: Box | Ball) -> None:
    zeros = find_zero_set(base, own.circle, lambda z: 2 * z, 1.0)
    assert isinstance(zeros, ZeroSet)
    generator = torch.Generator().manual_seed(0)
    for states in (
        zeros.sample(500, generator),
        zeros.shells(500, generator),
        zeros.project(base.sample(500, generator)),
    ):
        assert float(own.circle(states).abs().max()) < 1e-14
        assert bool(zeros.contains(states).all())
    exact = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert torch.equal(zeros.project(exact), exact)
    assert not bool(zeros.contains(torch.tensor([[0.999, 0.0]], dtype=torch.float64)).any())


def test_a_sign_is_certain_only_next_to_a_state_with_b_0() -> None:
    def signed_at(B: Function, state: list[float], f: Function = own.spiral_out) -> int | None:
        value, velocity = load_function(B, 2, "value"), load_function(f, 2, "velocity")
        return sign_where_zero(Subject(value, velocity, BASE), torch.tensor(state, dtype=torch.float64))[0]

    assert signed_at(own.circle, [0.6, 0.8]) == 1
    assert signed_at(own.outside_circle, [0.6, 0.8]) == -1
    # It rises everywhere, and is 0 nowhere.
    assert signed_at(lambda z: (8 * z[:, 0]).exp(), [0.0, 0.0], lambda z: z * 0 + 1) is None
    assert signed_at(lambda z: z.abs().amax(1) - 1, [1.0 - 1e-15, 0.3]) == 1
    # At the corner B has no slope.
    assert signed_at(lambda z: z.abs().amax(1) - 1, [1.0 - 1e-15, 1.0 - 1e-15]) is None


# The command.


@pytest.mark.usefixtures("zoo_on_path")
def test_the_command_judges_three_claims(tmp_path: Path) -> None:
    sets = ["--initial", "barrier_problems:inner_disc", "--unsafe", "barrier_problems:far_out"]
    place = ["--dim", "2", "--box=-4:4,-4:4", "--samples", "1024", "--starts", "8"]
    code, findings = run(
        ["barrier_problems:circle", "--dynamics", "barrier_problems:spiral_in", *place, *sets, "--require", "proved"],
        tmp_path,
    )
    assert code == 0
    assert list(findings) == ["initial", "unsafe", "barrier"]
    assert {one["verdict"] for one in findings.values()} == {"PROVED"}
    assert findings["unsafe"]["claim"] == "B > 0 on the unsafe set within the box [-4, 4]^2."
    code, findings = run(
        ["barrier_problems:circle", "--dynamics", "barrier_problems:spiral_out", *place, *sets], tmp_path
    )
    assert code == 1
    assert {name: one["verdict"] for name, one in findings.items()} == {
        "initial": "PROVED",
        "unsafe": "PROVED",
        "barrier": "REFUTED",
    }
