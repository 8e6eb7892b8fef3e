"""Sampling, the falsifier, shrinking and the judge, each against a truth known in closed form."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from analysis.evidence import sampling
from analysis.evidence.claim import Claim
from analysis.evidence.effort import Effort
from analysis.evidence.falsifier import falsify
from analysis.evidence.judge import judge
from analysis.evidence.noise import rounding_noise
from analysis.evidence.regions import Ball, Box, Outside, Pairs, Region
from analysis.evidence.shrink import rounded, shrink
from analysis.evidence.sublevel import Sublevel
from analysis.findings import Verdict
from stabdeq.errors import EvaluationError
from stabdeq.lyapunov import claims
from stabdeq.lyapunov.claims import Violation

CENTRE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
EPS = torch.finfo(torch.float64).eps


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_states_in_a_ball_are_uniform_by_volume() -> None:
    states = sampling.in_ball(20000, CENTRE, 2.0, generator())
    distance = (states - CENTRE).norm(dim=1)
    assert states.dtype == torch.float64
    assert float(distance.max()) <= 2
    # A ball of half the radius holds an eighth of the volume.
    assert float((distance < 1).double().mean()) == pytest.approx(1 / 8, abs=0.01)
    assert float((states - CENTRE).mean(0).norm()) < 0.03


def test_shells_are_log_spaced_and_next_to_the_centre() -> None:
    distance = (sampling.on_shells(64, CENTRE, 1e-4, 1e2, generator()) - CENTRE).norm(dim=1)
    assert float(distance.min()) == pytest.approx(1e-4)
    assert float(distance.max()) == pytest.approx(1e2)
    near = (sampling.on_shells(64, CENTRE, 2 * sampling.INNERMOST, 2e-3, generator()) - CENTRE).norm(dim=1)
    assert float(near.max()) == pytest.approx(2e-3)


@pytest.mark.parametrize("violations", [0, 1, 7, 99])
def test_clopper_pearson_solves_its_binomial_equation(violations: int) -> None:
    rate = sampling.clopper_pearson_upper(violations, 100)
    at_most = sum(math.comb(100, k) * rate**k * (1 - rate) ** (100 - k) for k in range(violations + 1))
    assert at_most == pytest.approx(0.05)
    assert sampling.clopper_pearson_upper(100, 100) == 1
    with pytest.raises(ValueError, match="expected"):
        sampling.clopper_pearson_upper(2, 1)


def square(z: Tensor) -> Tensor:
    return (z - CENTRE).square().sum(1)


REGIONS: list[Region] = [
    Ball(CENTRE, 2.0),
    Box(CENTRE, CENTRE - 1, CENTRE + 2),
    Sublevel(Ball(CENTRE, 5.0), square, 4.0),
    Sublevel(Ball(CENTRE, 5.0), square, 4.0, on_boundary=True),
    Sublevel(Box(CENTRE, CENTRE - 5, CENTRE + 6), square, 4.0, on_boundary=True),
    Sublevel(Box(CENTRE, CENTRE - 5, CENTRE + 6), square, 4.0, lower=1.0),
    Outside(Ball(CENTRE, 2.0), 0.5),
    Pairs(Ball(CENTRE, 2.0)),
]


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: region.words)
def test_a_region_contains_what_it_draws_and_projects(region: Region) -> None:
    far = region.centre + 10 * torch.randn(100, len(region.centre), generator=generator(), dtype=torch.float64)
    for states in (
        region.sample(100, generator()),
        region.shells(100, generator()),
        region.project(far),
        region.project(region.centre.repeat(3, 1)),
    ):
        assert bool(region.contains(states).all())
        assert torch.allclose(region.project(states), states, atol=1e-12)
        assert float((states - region.centre).norm(dim=1).max()) <= region.radius * (1 + 1e-12)


def test_a_sublevel_set_reaches_to_its_level() -> None:
    states = Sublevel(Ball(CENTRE, 5.0), square, 4.0, on_boundary=True).sample(50, generator())
    torch.testing.assert_close(square(states), torch.full((50,), 4.0, dtype=torch.float64))


def test_the_falsifier_finds_the_maximum_of_a_concave_violation() -> None:
    top = torch.tensor([0.3, -0.4], dtype=torch.float64)

    def violation(z: Tensor) -> Violation:
        return Violation(1 - (z - top).square().sum(1), torch.ones(len(z), dtype=torch.float64))

    starts = sampling.in_ball(8, torch.zeros(2, dtype=torch.float64), 1.0, generator())
    step = torch.full((8,), 0.1, dtype=torch.float64)
    for detached in (False, True):
        climbed: Callable[[Tensor], Violation] = violation
        if detached:

            def climbed(z: Tensor) -> Violation:
                return violation(z.detach())

        result = falsify(climbed, starts, lambda z: z, first_step=step, generator=generator())
        assert result.relative == pytest.approx(1, abs=1e-4 if detached else 1e-9)
        assert bool((result.relatives > 0.99).all())
        assert result.evaluations == 8 * 81


def test_the_falsifier_stays_in_the_region_and_reports_what_is_not_finite() -> None:
    region = Ball(torch.zeros(2, dtype=torch.float64), 1.0)

    def violation(z: Tensor) -> Violation:
        return Violation(z[:, 0] + 0 * (0.9 - z[:, 0]).log(), torch.ones(len(z), dtype=torch.float64))

    starts = region.sample(4, generator())
    step = torch.full((4,), 0.1, dtype=torch.float64)
    result = falsify(violation, starts, region.project, first_step=step, generator=generator())
    assert result.not_finite is not None
    assert float(result.not_finite[0]) > 0.9
    assert 0 < result.relative <= 0.9


def test_shrinking_pulls_inward_drops_coordinates_and_rounds() -> None:
    centre = torch.zeros(3, dtype=torch.float64)
    state = torch.tensor([1.234567, 0.3456, -0.1], dtype=torch.float64)
    shrunk = shrink(state, centre, lambda z: z[:, 0] >= 0.4567)
    assert shrunk.tolist() == [0.5, 0.0, 0.0]
    assert shrink(state, centre, lambda z: (z == state).all(1)).equal(state)


def test_rounded_states_print_short() -> None:
    state = torch.tensor([[0.123456789, -0.02]], dtype=torch.float64)
    candidates = rounded(state, torch.zeros(2, dtype=torch.float64))
    assert candidates[:2].tolist() == [[0.1, 0.0], [0.12, -0.02]]


def test_noise_is_that_of_the_largest_term() -> None:
    centre = torch.zeros(2, dtype=torch.float64)
    clean = rounding_noise(lambda z: z.square().sum(1), centre, 1.0, generator())
    noisy = rounding_noise(lambda z: torch.log(1 + z.square().sum(1)), centre, 1.0, generator())
    assert clean < 1e-20
    assert EPS / 16 < noisy < EPS


def decay_claim(alpha: float, **changes: object) -> Claim:
    """V = ||z||^2 along z' = -z decays at rate 2."""

    def violation(z: Tensor) -> Violation:
        return claims.decay(2 * z, -z, z.square().sum(1), alpha)

    settings = {
        "check": "decay",
        "name": "decay",
        "sentence": "V-dot <= -alpha V",
        "violation": violation,
        "tolerance": claims.tolerance(torch.float64, 3),
    }
    return Claim(**(settings | changes))  # pyrefly: ignore


BALL = Ball(torch.zeros(3, dtype=torch.float64), 2.0)
QUICK = Effort(samples=512, starts=16, steps=30)


@pytest.mark.parametrize("seed", range(20))
def test_zero_slack_is_supported_and_a_little_less_refuted(seed: int) -> None:
    finding = judge(decay_claim(2.0), BALL, seed=seed, effort=QUICK)
    assert finding.verdict is Verdict.SUPPORTED
    assert "not a proof" in finding.evidence
    assert "below 0.58 %" in finding.evidence
    finding = judge(decay_claim(2.001), BALL, seed=seed, effort=QUICK)
    assert finding.verdict is Verdict.REFUTED
    assert finding.witness is not None
    assert finding.witness["replayed_excess"] > 0
    assert finding.margin == pytest.approx(-0.001 / 4.001)


def test_a_replay_that_disagrees_refutes_nothing() -> None:
    finding = judge(decay_claim(3.0, replay=decay_claim(1.0).violation), BALL, seed=0, effort=QUICK)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "the paths disagree" in finding.evidence


def test_a_lonely_state_refutes_nothing() -> None:
    def violation(z: Tensor) -> Violation:
        fails = z[:, 0].abs() < 1e-30
        return Violation(torch.where(fails, 1.0, -1.0).double(), torch.ones_like(z[:, 0]))

    class Line(Ball):
        def sample(self, count: int, generator: torch.Generator) -> Tensor:
            states = super().sample(count, generator)
            states[:, 0] = 0
            return states

    region = Line(BALL.centre, 2.0)
    finding = judge(decay_claim(1.0, violation=violation), region, seed=0, effort=QUICK)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "states next to it do not" in finding.evidence


def test_nan_and_failures_are_inconclusive_with_their_state() -> None:
    def undefined(z: Tensor) -> Violation:
        return Violation(-1 + 0 * (1 - z[:, 0]).log(), torch.ones_like(z[:, 0]))

    finding = judge(decay_claim(1.0, violation=undefined), BALL, seed=0, effort=QUICK)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.witness is not None
    assert finding.witness["state"][0] > 1

    def failing(z: Tensor) -> Violation:
        raise EvaluationError("V fails", [1.0, 2.0, 3.0])

    finding = judge(decay_claim(1.0, violation=failing), BALL, seed=0, effort=QUICK)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.witness == {"state": [1.0, 2.0, 3.0]}


def test_a_violation_outweighs_nan_elsewhere() -> None:
    def violation(z: Tensor) -> Violation:
        return Violation(1 + 0 * (1 - z[:, 0]).log(), torch.ones_like(z[:, 0]))

    finding = judge(decay_claim(1.0, violation=violation), BALL, seed=0, effort=QUICK)
    assert finding.verdict is Verdict.REFUTED


def test_strict_claims_fail_at_equality_clear_of_the_centre() -> None:
    def along_one_axis(z: Tensor) -> Violation:
        return claims.decay(z, torch.cat([-z[:, :1], torch.zeros_like(z[:, 1:])], 1), torch.zeros_like(z[:, 0]), 0.0)

    claim = decay_claim(1.0, violation=along_one_axis, strict=True)
    finding = judge(claim, BALL, seed=0, effort=Effort(samples=512, starts=16, steps=80))
    assert finding.verdict is Verdict.REFUTED
    assert finding.witness is not None
    assert abs(finding.witness["state"][0]) < 1e-6

    def vanishing_at_centre(z: Tensor) -> Violation:
        plain = claims.decay(z, -(z**3), torch.zeros_like(z[:, 0]), 0.0)
        return Violation(plain.excess, z.norm(dim=1) ** 2)

    claim = decay_claim(1.0, violation=vanishing_at_centre, strict=True)
    assert judge(claim, BALL, seed=0, effort=QUICK).verdict is Verdict.SUPPORTED


def test_more_seconds_mean_more_states(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    once = judge(decay_claim(2.0), BALL, seed=0, effort=QUICK)
    longer = judge(decay_claim(2.0), BALL, seed=0, effort=replace(QUICK, seconds=3.0))
    assert "Of 512 drawn" in once.evidence
    assert "Of 1536 drawn" in longer.evidence


@pytest.mark.parametrize("seed", range(5))
def test_a_pocket_in_the_plane_is_found(seed: int) -> None:
    pocket = torch.tensor([0.6, 0.8], dtype=torch.float64)

    def violation(z: Tensor) -> Violation:
        dent = 500 * (0.05**2 - (z - pocket).square().sum(1)).clamp(min=0)
        square = z.square().sum(1)
        return Violation(dent - square, square)

    region = Ball(torch.zeros(2, dtype=torch.float64), 2.0)
    finding = judge(decay_claim(1.0, violation=violation), region, seed=seed, effort=Effort())
    assert finding.verdict is Verdict.REFUTED
    assert finding.witness is not None
    assert math.dist(finding.witness["state"], pocket.tolist()) < 0.05
