"""A check that several processes share by its pieces: joined, they are the check, in its own order, whatever the number of shards."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_shards import WORK, shards, through_files, timeless
from tiny_checkpoints import tiny_model
from torch import Tensor

from analysis.audit import audit, units
from analysis.checks import decay, effort, flow
from analysis.evidence.effort import Effort
from analysis.findings.catalogue import CHECKS
from analysis.measure import phase_plane, subject
from analysis.report.report import Report
from analysis.shards.reports import joined_report, report_part
from stabdeq.cells import EquilibriumCell
from stabdeq.errors import ShardError
from stabdeq.shard import Shard

PIECES = ["decay:claims", "decay:field", "decay:planes"]


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    least = Effort(samples=64, starts=0, steps=2, shells=32)
    monkeypatch.setattr(decay, "SEARCH", least)
    monkeypatch.setattr(effort, "LOOK", least)
    monkeypatch.setattr(subject, "MAX_EVALUATIONS", 30)
    monkeypatch.setattr(decay, "DIRECTIONS", 4)
    monkeypatch.setattr(flow, "TRAJECTORIES", 2)
    for name in ("GRID", "ARROWS", "PATHS", "DIRECTIONS", "ITERATIONS"):
        monkeypatch.setattr(phase_plane, name, 3)


def judged(checks: list[str], shard: Shard, kind: str = "lyadeq-anchored", **changes: Any) -> Report:
    torch.manual_seed(0)
    model, images, labels = tiny_model(kind), torch.rand(3, 1, 3, 3), torch.tensor([0, 1, 0])
    for name, value in changes.items():
        setattr(model, name, value)
    return audit(model, images, labels, checks=checks, seed=1, shard=shard)


def joined(folder: Path, checks: list[str], count: int, **options: Any) -> dict[str, Any]:
    parts = [report_part(WORK, each, units(checks), judged(checks, each, **options)) for each in shards(count)]
    return json.loads(joined_report(through_files(folder, parts)).to_json())


def test_decay_is_shared_by_its_pieces_and_the_others_whole() -> None:
    assert units(["spectrum", "decay", "equilibrium"]) == ["equilibrium", *PIECES, "spectrum"]
    assert tuple(CHECKS["decay"].pieces) == decay.PIECES


def test_the_pieces_joined_are_the_check_in_its_order(tmp_path: Path) -> None:
    checks, kind = ["equilibrium", "decay"], "lyadeq-certified"
    whole = timeless(json.loads(judged(checks, Shard(1, 1), kind).to_json()))
    found = [item["name"] for item in whole["findings"] if item["check"] == "decay"]
    assert found == ["stabilised", "unprojected", "flow"]
    assert list(whole["series"]["decay"]) == ["flow", "raw", "margin", "planes"]
    for count in (2, 4, 7):
        again = timeless(joined(tmp_path / str(count), checks, count, kind=kind))
        assert json.dumps(again) == json.dumps(whole)  # as text: the order, too


class Restless(EquilibriumCell):
    """A map without a fixed point."""

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        return torch.where(z > 0, -1.0, 1.0) + 0 * h


def test_what_no_shard_can_judge_is_said_once(tmp_path: Path) -> None:
    whole = timeless(json.loads(judged(["decay"], Shard(1, 1), cell=Restless()).to_json()))
    assert [item["name"] for item in whole["findings"]] == ["not judged"]
    assert [item["check"] for item in whole["skipped"] if item["asked_for"]] == ["decay"]
    assert timeless(joined(tmp_path, ["decay"], 4, cell=Restless())) == whole


def test_a_piece_that_says_nothing_is_refused() -> None:
    checks = ["decay"]
    parts = [report_part(WORK, each, units(checks), judged(checks, each)) for each in shards(3)]
    empty = replace(parts[2], result=parts[2].result | {"series": {}})
    with pytest.raises(ShardError, match="shard 3/3 holds no report of decay"):
        joined_report([*parts[:2], empty])
