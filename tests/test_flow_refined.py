"""V along trajectories: an integrator's own error refutes nothing, a true excess does, and no verdict contradicts a proof."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from analysis.audit import audit
from analysis.checks import decay, flow
from analysis.findings import Finding, Verdict
from analysis.measure.subject import prepare
from analysis.measure.trajectories import PRECISIONS
from analysis.replay import Replayer
from analysis.report.report import Report
from stabdeq.config import ArchitectureConfig, LyapunovConfig
from stabdeq.config.kinds import model_config
from stabdeq.lyapunov import InputConvexLyapunov
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Anderson, Solution, solve

# It turns five times as fast as it falls, so that states are carried against whatever stands in the way.
TURN = torch.tensor([[-0.1, -5.0, 0.0], [5.0, -0.1, 0.0], [0.0, 0.0, -0.1]], dtype=torch.float64)


class Foreign:
    """A cell whose field turns around 2 h, with the V given by value and gradient."""

    def __init__(self, value: Callable[[Tensor], tuple[Tensor, Tensor]], alpha: float = 1.0) -> None:
        self.lyapunov = self
        self.value, self.alpha, self.centre = value, alpha, "equilibrium"

    def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(offset)

    def inject(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3]

    def cell(self, z: Tensor, h: Tensor) -> Tensor:
        return z + (z - 2 * h) @ TURN.T

    def readout(self, z: Tensor) -> Tensor:
        return z

    def solve(self, h: Tensor) -> Solution:
        return solve(lambda z: self.cell(z, h), torch.zeros_like(h), Anderson(), tolerance=1e-8, max_evaluations=100)


def square(offset: Tensor) -> tuple[Tensor, Tensor]:
    return offset.square().sum(1), 2 * offset


def walled(offset: Tensor) -> tuple[Tensor, Tensor]:
    """The square, and beyond the plane where the coordinates sum to -0.5 a wall, as steep as the weights of V times 100 make it."""
    wall = (-offset.sum(1) - 0.5).relu()
    value, gradient = square(offset)
    return value + 1e12 * wall, gradient - 1e12 * (wall > 0)[:, None]


def images(count: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 1, 8, 8, generator=generator, dtype=torch.float64), torch.arange(count) % 3


def steep(factor: float) -> Foreign:
    """A turning cell with a V of this library's, all of whose weights are ``factor`` times what they were."""
    torch.manual_seed(0)
    lyapunov = InputConvexLyapunov(3, LyapunovConfig(hidden=8), "equilibrium").double()
    with torch.no_grad():
        for parameter in lyapunov.network.parameters():
            parameter.mul_(factor)
    model = Foreign(square)
    model.lyapunov = lyapunov
    return model


def anchored() -> StabilisedDEQ:
    torch.manual_seed(0)
    architecture = ArchitectureConfig(state_dim=12, lyapunov=LyapunovConfig(hidden=8))
    return StabilisedDEQ(
        model_config("lyadeq-anchored", architecture, image_shape=(1, 8, 8), classes=3, mean=(0.5,), std=(0.3,))
    )


def flow_of(model: Any) -> Finding:
    return audit(model, *images(), checks=["decay"]).named["decay.flow"]


@pytest.mark.parametrize("factor", [30.0, 100.0])
def test_no_flow_is_refuted_beside_a_proved_decay(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first path errs by some 1e-6 here, where the walls of V are steep: more than this tolerance."""
    monkeypatch.setattr(flow, "TOLERANCE", 1e-8)
    monkeypatch.setattr(flow, "HORIZON", 1.0)
    found = audit(steep(factor), *images(), checks=["decay"]).named
    assert found["decay.stabilised"].verdict == "PROVED"
    assert found["decay.flow"].verdict != "REFUTED"


def test_a_path_that_the_integrator_takes_through_a_wall_is_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "HORIZON", 0.25)
    found = flow_of(Foreign(walled))
    assert found.verdict == "INCONCLUSIVE"
    assert "integrator's error" in found.evidence
    assert found.margin is None


def misled(field: Tensor, z: Tensor, centre: Tensor, lyapunov: Any) -> Tensor:
    """A field along which V falls at rate 0.9 in place of 1."""
    return -0.45 * (z - centre)


def test_a_field_that_decays_too_slowly_is_refuted_with_its_excess(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Foreign(square)
    monkeypatch.setattr("analysis.measure.subject.stabilised_field", misled)
    found = flow_of(model)
    assert found.verdict == "REFUTED"
    assert found.margin == pytest.approx(flow.TOLERANCE - (torch.tensor(0.5).exp().item() - 1), rel=1e-6)


def test_a_small_excess_is_refuted_where_two_paths_agree_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def slower(field: Tensor, z: Tensor, centre: Tensor, lyapunov: Any) -> Tensor:
        return -(0.5 - 1e-5) * (z - centre)

    monkeypatch.setattr("analysis.measure.subject.stabilised_field", slower)
    found = flow_of(Foreign(square))
    assert found.verdict == "REFUTED"
    assert found.margin == pytest.approx(flow.TOLERANCE - 1e-4, rel=1e-2)


def test_what_is_proved_along_the_field_is_not_refuted_along_its_trajectories(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Foreign(square)
    subject = prepare(model, *images())
    monkeypatch.setattr("analysis.measure.subject.stabilised_field", misled)
    assert flow.judge_flow(subject, is_proved=False)[0].verdict == "REFUTED"
    found, _ = flow.judge_flow(subject, is_proved=True)
    assert found.verdict == "INCONCLUSIVE"
    assert "proved" in found.evidence


def test_a_v_that_is_not_finite_along_the_way_refutes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(offset: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = square(offset)
        return torch.where(value < 0.1, torch.nan, value), gradient

    monkeypatch.setattr("analysis.measure.subject.stabilised_field", misled)  # so the field is finite, and V is not
    found = flow_of(Foreign(broken))
    assert found.verdict == "INCONCLUSIVE"
    assert "not finite" in found.evidence


@pytest.mark.parametrize("is_walled", [True, False])
def test_a_replay_follows_the_same_rule(is_walled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "EVALUATIONS", 4000)
    model = Foreign(square)
    with monkeypatch.context() as patch:
        patch.setattr("analysis.measure.subject.stabilised_field", misled)
        report = Report.parse(json.loads(audit(model, *images(), checks=["decay"]).to_json()))
        finding = report.named["decay.flow"]
        fetch = lambda places: tuple(part[places] for part in images())  # noqa: E731
        again = Replayer(report=report, model=model, fetch=fetch).replay(finding)
        assert again.refutes
        assert again.is_same_amount
    replayer = Replayer(report=report, model=Foreign(walled if is_walled else square), fetch=fetch)
    assert not replayer.replay(finding).refutes


def test_each_path_is_finer_than_the_last() -> None:
    for coarse, fine in itertools.pairwise(PRECISIONS):
        assert fine.relative <= coarse.relative / 100
        assert fine.absolute <= coarse.absolute / 100


@pytest.mark.parametrize("model", [steep(1.0), anchored()])
def test_a_proof_needs_no_word_of_doubt_and_no_margin_below_zero(model: Any) -> None:
    proofs = [finding for finding in audit(model, *images()).findings if finding.verdict == "PROVED"]
    assert {"stabilised", "convex", "positive"} <= {finding.name for finding in proofs}
    for finding in proofs:
        assert "not a proof" not in finding.evidence
        assert finding.margin is None or finding.margin >= 0


def test_the_decay_that_was_seen_to_fail_proves_no_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A projection that is broken is seen, whatever the weights of V prove of the right one."""
    monkeypatch.setattr("analysis.measure.subject.stabilised_field", misled)
    found = audit(steep(1.0), *images(), checks=["decay"]).named
    assert found["decay.stabilised"].verdict == "REFUTED"
    assert found["decay.flow"].verdict == "REFUTED"


def test_a_flow_is_proved_only_where_the_decay_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search for the decay that is left open, as by a NaN, leaves a flow that holds SUPPORTED by its trajectories."""
    searched = decay._stabilised
    assert flow_of(anchored()).verdict == "PROVED"
    monkeypatch.setattr(
        decay, "_stabilised", lambda subject: replace(searched(subject), verdict=Verdict.INCONCLUSIVE, margin=None)
    )
    assert flow_of(anchored()).verdict == "SUPPORTED"
