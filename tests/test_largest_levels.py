"""The largest level at which a claim holds, of systems where it is known, and the effort that the search for it takes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import stabdeq
from analysis.evidence.regions import Ball, Box
from analysis.evidence.sublevel import Sublevel
from analysis.findings import Finding, Verdict
from analysis.user_function.function import load_function
from analysis.user_function.levels import JUDGEMENTS, TRIALS, _least_level
from analysis.user_function.subject import Subject

pytestmark = pytest.mark.usefixtures("short_hunts")

CENTRE = torch.zeros(2, dtype=torch.float64)


def square(z: Tensor) -> Tensor:
    return z.square().sum(1)


def inside_the_circle(z: Tensor) -> Tensor:
    """V-dot = -2 V (1 - V) for V = |z|^2: below 0 for V < 1."""
    return -z * (1 - square(z))[:, None]


def between_circles(z: Tensor) -> Tensor:
    """V-dot = -2 V (V - 1/4) (1 - V): below 0 for 1/4 < V < 1."""
    return inside_the_circle(z) * (square(z) - 0.25)[:, None]


def judged(value: Callable[[Tensor], Tensor] = square, claim: str = "decrease", **options: Any) -> Finding:
    options = {"samples": 2048, "starts": 16, "box": (-2, 2), **options}
    (finding,) = stabdeq.check(value, dim=2, sublevel="max", claims=[claim], **options).findings
    return finding


@pytest.mark.parametrize("claim", ["decrease", "invariant", "attraction"])
def test_the_known_level(claim: str) -> None:
    finding = judged(claim=claim, f=inside_the_circle)
    assert finding.verdict.name == "PROVED"
    assert finding.witness is not None
    assert 0.99 < finding.witness["level"] < 1 <= finding.witness["refuted_level"] < 1.01
    assert "is the largest not refuted" in finding.evidence


@pytest.mark.parametrize("region", [{"box": (-2, 2)}, {"radius": 2.0, "box": None}, {"box": None}])
def test_above_a_lower_level(region: dict[str, Any]) -> None:
    finding = judged(f=between_circles, from_level=0.26, **region)
    assert finding.verdict.name == "PROVED"
    assert finding.witness is not None
    assert 0.99 < finding.witness["level"] < 1
    assert "{0.26 <= V <= " in finding.claim


def test_a_lower_level_beyond_the_first_radius() -> None:
    finding = judged(f=lambda z: -z * (9 - square(z))[:, None], from_level=4.0, box=None)
    assert finding.verdict.name == "PROVED"
    assert finding.witness is not None
    assert 8.9 < finding.witness["level"] < 9


def test_claims_off_the_flow_leave_the_lower_levels_out() -> None:
    """V < 0 for |z|^2 < 0.1, and positive is claimed of the states of higher levels alone."""
    report = stabdeq.check(
        lambda z: square(z) - 0.1,
        inside_the_circle,
        dim=2,
        box=(-2, 2),
        sublevel="max",
        from_level=0.1,
        claims=["positive", "decrease"],
        samples=2048,
        starts=16,
    )
    assert [finding.verdict.name for finding in report.findings] == ["PROVED", "PROVED"]


def test_attraction_above_a_lower_level() -> None:
    """What lies below the lower level is drawn to the centre by the linearisation."""
    finding = judged(claim="attraction", f=inside_the_circle, from_level=0.01)
    assert finding.verdict.name == "PROVED"
    assert finding.witness is not None
    assert 0.99 < finding.witness["level"] < 1


@pytest.mark.parametrize("lower", [None, 0.1])
@pytest.mark.parametrize("claim", ["decrease", "attraction"])
def test_along_steps(claim: str, lower: float | None) -> None:
    """z+ = z (1/2 + V/2): V falls for V < 1, and no step leaves the set."""
    finding = judged(claim=claim, step=lambda z: z * (1 + square(z))[:, None] / 2, from_level=lower)
    assert finding.verdict.name in ("PROVED", "SUPPORTED")
    assert finding.witness is not None
    assert 0.98 < finding.witness["level"] < 1


def test_the_least_level_out_of_which_a_step_leads_is_descended_to() -> None:
    """Of a population with its mean, V falls at every step, and from V = 2.134 on steps lead out of the box at the edge, by a fine grid."""

    def step(z: Tensor) -> Tensor:
        n, mean = z[:, 0] + 1, z[:, 1] + 1
        return torch.stack([n * torch.exp(0.8 * (1 - 0.7 * n - 0.3 * mean)) - 1, (mean + n) / 2 - 1], 1)

    def value(z: Tensor) -> Tensor:
        return z[:, 0] ** 2 + 0.3 * z[:, 1] ** 2

    box = Box(CENTRE, CENTRE - 0.9, CENTRE + 4)
    functions = load_function(value, 2, "value"), load_function(step, 2, "velocity")
    subject = Subject(*functions, Sublevel(box, value, 2.4), 0.05, in_steps=True)
    finding = subject.finding("invariant", Verdict.REFUTED, "", witness={"state": [-0.9, 2.3]})
    assert 2.13 < _least_level(subject, finding, box) < 2.16


def test_the_base_may_bound_a_set_that_no_step_leaves() -> None:
    """V = |z|^2 is at most 8 in the box, and 4 on the largest circle; z / 2 leaves no set within the box."""
    finding = judged(claim="invariant", step=lambda z: z / 2)
    assert finding.verdict.name == "PROVED"
    assert 7.8 < float(finding.claim.split("{V <= ")[1].split("}")[0]) < 8
    assert "V is hardly larger within the box" in finding.evidence


def test_a_hole_that_is_needed_is_named() -> None:
    finding = judged(f=between_circles)
    assert finding.verdict.name == "REFUTED"
    assert "fails next to the centre, where V is 0, give --from-level or --inner-radius" in finding.evidence
    finding = judged(f=between_circles, from_level=0.2)
    assert finding.verdict.name == "REFUTED"
    assert "next to the level 0.2, give a larger --from-level" in finding.evidence


def test_no_claim_of_smaller_sets_is_refuted_by_a_witness_of_a_larger_one() -> None:
    finding = judged(f=between_circles)
    assert "some sublevel set" not in finding.claim
    assert finding.witness is not None
    level = float(finding.claim.split("{V <= ")[1].split("}")[0])
    assert finding.witness["value"] <= level


def test_the_levels_tried_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a V-dot that fails in a needle the bisection goes on for long; it ends, and says what it knew."""
    from analysis.user_function import judgement

    tried: list[float] = []
    true = judgement._tried

    def counted(subject: Any, name: str) -> Finding:
        tried.append(subject.level)
        return true(subject, name)

    monkeypatch.setattr(judgement, "_tried", counted)
    finding = judged(f=lambda z: -z * (1 - 1e6 * square(z))[:, None])
    assert len(tried) <= TRIALS + JUDGEMENTS
    assert f"Of {len(tried)} levels tried" in finding.evidence
    tried.clear()
    judged(f=lambda z: z)
    assert len(tried) <= TRIALS + JUDGEMENTS


def test_no_level_is_tried_after_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    from analysis.user_function import levels

    monkeypatch.setattr(levels.time, "monotonic", lambda: math.inf)
    finding = judged(f=inside_the_circle)
    assert finding.verdict.name == "INCONCLUSIVE"
    assert "the time was over" in finding.evidence


class TestReach:
    """Where a ray leaves {V <= level}."""

    def test_evaluations_are_few_where_v_is_smooth(self) -> None:
        counted = 0

        def value(z: Tensor) -> Tensor:
            nonlocal counted
            counted += len(z)
            return torch.tanh(square(z))

        region = Sublevel(Ball(CENTRE, 2.0), value, 0.5, 0.1)
        states = region.sample(1000, torch.Generator().manual_seed(0))
        assert counted < 110 * 1000  # 65 steps, twice 7 parts, and what narrows two crossings
        counted = 0
        region.project(states)
        assert counted < 70 * 1000  # the steps alone tell that a state lies inside, but of those next to an end

    @pytest.mark.parametrize(
        ("value", "level", "expected"),
        [
            (square, 0.5, 0.5**0.5),
            (lambda z: square(z) + (square(z) > 0.3**2).double(), 0.5, 0.3),  # a jump
            (lambda z: square(z) / (square(z) < 0.49).double(), 0.6, 0.7),  # infinite beyond
            (lambda z: square(z).square() / square(z), 0.25, 0.5),  # NaN at the centre
            (lambda z: (square(z) - 0.36) ** 9, 0.0, 0.6),  # flat at the crossing
            (lambda z: torch.sin(9 * square(z).sqrt()), 0.5, math.pi / 54),  # the first of several crossings
            (square, 9.0, 2.0),  # the base ends first
            (lambda z: square(z) + 1, 0.5, 0.0),  # none of the ray
        ],
    )
    def test_known_answers(self, value: Callable[[Tensor], Tensor], level: float, expected: float) -> None:
        angles = torch.linspace(0, 6, 50, dtype=torch.float64)
        rays = torch.stack([angles.cos(), angles.sin()], 1)
        reach = Sublevel(Ball(CENTRE, 2.0), value, level).reach(rays)
        assert torch.allclose(reach, torch.full_like(reach, expected), rtol=0, atol=1e-13)
        within = value(CENTRE + reach * rays) <= level
        assert bool(within.all()) == (expected > 0)

    def test_a_state_is_moved_only_if_it_lies_outside(self) -> None:
        region = Sublevel(Ball(CENTRE, 2.0), square, 0.5, 0.1)
        states = Ball(CENTRE, 2.0).sample(2000, torch.Generator().manual_seed(0))
        value = square(states)
        moved, inside = region.project(states), region.contains(states)
        assert torch.equal(inside, (value <= 0.5) & (value >= 0.1))
        assert torch.equal(moved[inside], states[inside])
        expected = torch.where(value > 0.5, value.new_tensor(0.5), value.new_tensor(0.1))
        assert torch.allclose(square(moved)[~inside], expected[~inside], rtol=1e-12, atol=0)
        assert region.contains(moved).all()
