"""Claims that were proved or refuted and were not so: of steps, of holes, on the boundary of a level, and in their words."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import stabdeq
from analysis.evidence.membership import surely_contains
from analysis.evidence.regions import Ball, Outside
from analysis.evidence.sublevel import Sublevel
from analysis.findings import Finding
from analysis.proofs.rest import Rest
from analysis.user_function.function import load_function
from analysis.user_function.in_region import certain_sign
from analysis.user_function.subject import Subject

Function = Callable[[Tensor], Tensor]


def square(z: Tensor) -> Tensor:
    return z.square().sum(1)


def rotation(z: Tensor) -> Tensor:
    return torch.stack([-z[:, 1], z[:, 0]], 1)


def findings(value: Function, velocity: Function | None = None, *, dim: int = 2, **options: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in stabdeq.check(value, velocity, dim=dim, **options).findings}


def test_a_rate_of_steps_draws_nothing_where_v_is_negative() -> None:
    """All but the centre tends to the circle of radius 1/2, on which V = -3/4 and V(z+) = V <= 0.9 V."""

    def step(z: Tensor) -> Tensor:
        return rotation(z) * (1 - 0.3 * (square(z) - 0.25))[:, None]

    options: dict[str, Any] = {"sublevel": 0.5, "radius": 1.4, "samples": 4096, "boxes": 2048}
    found = findings(
        lambda z: square(z) - 1, step=step, kappa=0.1, claims=["decrease", "invariant", "attraction"], **options
    )
    verdicts = {name: finding.verdict.name for name, finding in found.items()}
    assert verdicts == {"decrease": "PROVED", "invariant": "PROVED", "attraction": "INCONCLUSIVE"}


def test_a_set_that_the_hole_holds_need_not_keep_its_trajectories() -> None:
    """Trajectories from outside of a narrow peak of V, above the level, cross it on their way to the centre."""
    peak = 0.98 * torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)

    def value(z: Tensor) -> Tensor:
        return square(z) + 0.5 * torch.exp(-1e5 * square(z - peak))

    within = (peak / 0.98)[None] * 0.9999
    assert float(value(within)) < 1 < float(value(peak[None]))
    found = findings(
        value,
        lambda z: -z,
        dim=3,
        sublevel=1.0,
        radius=2.0,
        inner_radius=1.3,
        claims=["attraction"],
        samples=512,
        starts=4,
        boxes=1024,
    )["attraction"]
    assert found.verdict.name == "SUPPORTED"
    assert "that nothing leaves it is not proved" in found.evidence


@pytest.mark.parametrize(("surplus", "verdict"), [(0.0, "SUPPORTED"), (1e-9, "REFUTED")])
def test_a_limit_cycle_is_an_invariant_boundary(surplus: float, verdict: str) -> None:
    """V-dot = 2 V (1 + surplus - V): no float64 state lies on the circle V = 1, and next to it, inside, V rises."""

    def velocity(z: Tensor) -> Tensor:
        return rotation(z) + z * (1 + surplus - square(z))[:, None]

    found = findings(square, velocity, sublevel=1.0, radius=2.0, claims=["invariant"], samples=2048, boxes=1024)
    assert found["invariant"].verdict.name == verdict


def test_a_state_beyond_the_level_refutes_nothing() -> None:
    trial = torch.eye(5, 2, dtype=torch.float64)
    functions = load_function(square, 2, "value", trial=trial), load_function(rotation, 2, "velocity", trial=trial)
    base = Ball(torch.zeros(2, dtype=torch.float64), 2.0)
    subject = Subject(*functions, Sublevel(base, functions[0], 1.0), in_steps=True)
    beyond = torch.tensor([1 + 2.0**-41, 0.0], dtype=torch.float64)  # where z+ is beyond it, too
    assert surely_contains(subject.region, beyond)
    signs = {name: certain_sign(subject, name) for name in ("decrease", "invariant")}
    assert {name: sign and sign(beyond)[0] for name, sign in signs.items()} == {"decrease": None, "invariant": None}


def test_a_state_beyond_the_base_is_in_no_sublevel_set() -> None:
    base = Ball(torch.zeros(2, dtype=torch.float64), 1.0)
    beyond = torch.tensor([1 + 2.0**-41, 0.0], dtype=torch.float64)
    assert not surely_contains(Sublevel(base, square, 4.0), beyond)


def test_what_is_proved_is_said_of_the_whole_set() -> None:
    """Trajectories may move behind what rays from the centre see of a sublevel set."""
    found = findings(square, lambda z: -z, sublevel=0.5, claims=["decrease", "invariant", "attraction"], samples=1024)
    assert [finding.verdict.name for finding in found.values()] == ["PROVED"] * 3
    assert not any("seen along rays" in finding.claim for finding in found.values())


def test_words_say_no_more_than_numbers() -> None:
    rest = Rest(1.149e-14, 1.9699)
    assert (rest.nearness, rest.reach) == ("1.2e-14", "1.96")
    ball = Ball(torch.zeros(2, dtype=torch.float64), 1.0)
    assert "further than 0.12345649 from" in Outside(ball, 0.12345649).words


def test_one_start_is_enough() -> None:
    found = findings(square, lambda z: -z, claims=["decrease"], samples=256, starts=1, boxes=16)
    assert found["decrease"].verdict.name == "PROVED"


def test_steps_that_jump_are_not_shown_to_attract() -> None:
    """V falls at every state, by less and less as |z| comes down to 1/2, below which steps are other ones: |z| tends to 1/2."""

    def step(z: Tensor) -> Tensor:
        size = z.norm(dim=1, keepdim=True)
        return torch.where(size > 0.5, z * (0.5 + (size - 0.5) / 2) / size, z / 2)

    found = stabdeq.check(lambda z: z.square().sum(1), step=step, dim=2, sublevel=0.9, claims=["attraction"])
    assert found.findings[0].verdict.name != "PROVED"


def test_a_function_that_raises_far_out_ends_no_check_of_the_equilibrium() -> None:
    def velocity(z: Tensor) -> Tensor:
        if len(z) > 2000:  # as one that has not the memory for many states
            raise ValueError("too many states")
        return 1e-3 - z

    found = stabdeq.check(lambda z: z.square().sum(1), velocity, dim=2, claims=["equilibrium"])
    assert found.findings[0].verdict.name in ("REFUTED", "INCONCLUSIVE")
