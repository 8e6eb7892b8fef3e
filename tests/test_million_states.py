"""States of up to a million numbers: how many are looked at beside a proof, and what is then left out, and said to be."""

import json
from typing import Any

import pytest
import torch
from tiny_checkpoints import tiny_model
from torch import Tensor

from analysis.audit import audit
from analysis.checks import decay, flow
from analysis.checks.effort import LOOK, LOOKED, looking
from analysis.evidence.effort import Effort
from analysis.evidence.judge import judge
from analysis.evidence.regions import Ball
from analysis.findings import Finding
from analysis.measure import phase_plane, rows
from analysis.measure.subject import prepare
from analysis.report.figures.decay import flow as flow_figure
from analysis.report.figures.series import NotDrawnError
from analysis.report.report import Report
from benchmarks.large_states import model_of
from stabdeq.lyapunov.claims import Violation
from stabdeq.model import StabilisedDEQ

QUICK = Effort(samples=32, starts=0, steps=1, shells=32)


def prepared(kind: str = "lyadeq-anchored") -> Any:
    torch.manual_seed(0)
    return prepare(tiny_model(kind), torch.rand(3, 1, 3, 3), torch.tensor([0, 1, 0]))


def test_beside_a_proof_fewer_states_are_looked_at_as_they_grow_and_no_climb_of_the_largest() -> None:
    assert looking(1025) == looking(16384) == LOOK
    efforts = [looking(2**power) for power in range(10, 25)]
    for least, more in zip(efforts[1:], efforts, strict=False):
        assert (least.samples, least.shells, least.starts) <= (more.samples, more.shells, more.starts)
    million = looking(2**20)
    assert (million.samples, million.shells, million.starts) == (32, 32, 0)


def test_without_starts_nothing_climbs_and_each_shell_is_met() -> None:
    seen: list[Tensor] = []

    def violation(states: Tensor) -> Violation:
        assert not states.requires_grad
        seen.append(states)
        return Violation(states[:, 0] - 2, torch.ones(len(states), dtype=torch.float64))

    claim: Any = decay.Claim(
        check="positivity", name="positive", sentence="x <= 2.", violation=violation, tolerance=1e-9
    )
    found = judge(claim, Ball(torch.zeros(5).double(), 1.0), seed=0, effort=QUICK)
    assert (found.verdict, found.samples) == ("SUPPORTED", 64)
    distances = torch.cat(seen).norm(dim=1).sort().values
    assert float(distances[0]) == pytest.approx(1e-9)
    assert int((distances < 1e-3).sum()) > 16


def judged(monkeypatch: pytest.MonkeyPatch, kind: str = "lyadeq-anchored") -> tuple[Finding, dict[str, Any]]:
    monkeypatch.setattr(decay, "SEARCH", QUICK)
    monkeypatch.setattr(decay, "LARGEST", 3)
    monkeypatch.setattr(phase_plane, "LARGEST", 3)
    found = decay.check(prepared(kind), ["claims", "planes"])
    return next(one for one in found.findings if one.name == "flow"), found.series


def test_beside_a_proof_no_trajectory_of_large_states_is_followed_and_no_plane_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*given: Any) -> None:
        raise AssertionError("a trajectory was followed")

    monkeypatch.setattr(flow, "trajectories", refused)
    finding, series = judged(monkeypatch)
    assert (finding.verdict, finding.samples, finding.margin) == ("PROVED", 0, None)
    assert (
        "exp(alpha t) V never rises along a trajectory. No trajectory was followed: states have 4 numbers"
        in finding.evidence
    )
    assert series["planes"] == {"not_drawn": "planes are drawn of states of up to 3 numbers, and these have 4"}
    with pytest.raises(NotDrawnError, match="states have 4 numbers"):
        flow_figure("V along trajectories", series)
    assert Report.parse(json.loads(Report(findings=(finding,), series={"decay": series}).to_json())).findings == (
        finding,
    )


def test_where_nothing_is_proved_they_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.measure.subject.is_structured", lambda lyapunov: False)
    finding, series = judged(monkeypatch)
    assert (finding.verdict, finding.samples) == ("SUPPORTED", 3)
    assert len(series["flow"]["times"]) == flow.TIMES


def test_the_images_of_a_large_state_are_evaluated_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = prepared()
    offsets = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = decay._across_images(subject, offsets, stabilised=False)
    sizes: list[int] = []

    def counted(z: Tensor, which: Tensor) -> Tensor:
        sizes.append(len(z))
        return field(z, which)

    field = subject.field
    object.__setattr__(subject, "field", counted)
    monkeypatch.setattr(rows, "NUMBERS", 2 * 4)
    monkeypatch.setattr(decay, "EVALUATED", 1)
    parts = decay._across_images(subject, offsets, stabilised=False)
    assert max(sizes) == 2
    torch.testing.assert_close(parts.excess, whole.excess, rtol=1e-12, atol=0)
    torch.testing.assert_close(parts.scale, whole.scale, rtol=1e-12, atol=0)
    # At the least, one offset is looked at with all three images.
    sizes.clear()
    monkeypatch.setattr(rows, "NUMBERS", 2**18)
    decay._across_images(subject, offsets, stabilised=False)
    assert sizes == [3] * 5


def test_around_the_centres_of_large_states_fewer_directions_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = prepared()
    assert decay._directions(subject) == decay.DIRECTIONS
    for numbers, expected in ((3 * decay.IMAGES * 4, 3), (1, 1)):
        monkeypatch.setattr(decay, "NUMBERS", numbers)
        assert decay._directions(subject) == expected


def test_of_all_images_the_worst_counts() -> None:
    subject = prepared()
    offsets = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    each = [decay._violation(subject, offsets, torch.full((5,), image), False) for image in range(3)]
    worst = torch.stack([one.relative for one in each]).amax(0)
    torch.testing.assert_close(decay._across_images(subject, offsets, False).relative, worst, rtol=1e-12, atol=0)


@pytest.mark.parametrize("network", ["convolutional", "separable"])
def test_the_benchmarks_model_is_proved_at_a_size_where_nothing_climbs(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a million numbers, with all sizes a thousand times smaller."""
    for module in (decay, phase_plane):
        monkeypatch.setattr(module, "LARGEST", 1024)
    monkeypatch.setattr("analysis.checks.effort.LOOKED", LOOKED // 2**9)
    monkeypatch.setattr(decay, "NUMBERS", 1)
    model = model_of(12, 8, "convolution", network)
    assert isinstance(model, StabilisedDEQ)
    images = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    report = audit(model, images, torch.tensor([0]), checks=["positivity", "convexity", "decay"])
    assert {finding.verdict for finding in report.findings} == {"PROVED"}
    assert [finding.samples for finding in report.findings] == [1, 64, 64, 64, 0]
