"""Results of attacks that others wrote: one that lacks a figure, or has another thing in its place, is refused or made anew."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reproduce_jobs import jobs_of, write_attack, write_checkpoint
from small_models import images, model

from analysis.shards.attacks import attack_part, joined_attack
from analysis.shards.part import Part
from analysis.shards.work import Work
from stabdeq.attacks.run import attack
from stabdeq.errors import ShardError
from stabdeq.shard import WHOLE


@pytest.fixture(scope="module")
def part() -> Part:
    result = attack(model().eval(), images(2), torch.tensor([0, 1]), name="pgd", steps=1)
    return attack_part(Work("attack", "torch", {}), WHOLE, result)


@pytest.mark.parametrize(
    "change",
    [
        lambda result: result["settings"].pop("clamp_normalised"),
        lambda result: result["settings"].pop("attack"),
        lambda result: result["subject"].pop("data"),
        lambda result: result.update(radius={}, subject=3),
        lambda result: result.update(
            indices=[],
            drawn={"images": 0},
            **{name: {key: [] for key in result[name]} for name in ("control", "outcome")},
        ),
    ],
)
def test_a_part_without_what_is_shown_is_refused(change: Callable[[dict[str, Any]], Any], part: Part) -> None:
    assert joined_attack([part]).settings["steps"] == 1
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in part.result.items()}
    change(result)
    with pytest.raises(ShardError, match="holds no result of an attack"):
        joined_attack([Part(shard=part.shard, work=part.work, result=result)])


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy": {"clean": "0.9", "robust": 0.5, "worst": 0.5}},
        {"accuracy": {"clean": 0.9, "robust": 0.5}},
        {"accuracy": {"clean": 0.9, "robust": 50, "worst": 0.5}},
        {"accuracy": 0.9},
        {"unconverged": {"clean": 0.0}},
        {"unconverged": {"robust": "none"}},
        {"warnings": [3]},
        {"warnings": None},
    ],
)
def test_a_result_without_its_figures_is_not_done(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, (training, job, *_) = jobs_of("table1")
    write_checkpoint(training)
    write_attack(job, 0.5, unconverged={"robust": None})
    assert job.is_done()
    job.result.write_text(json.dumps(json.loads(job.result.read_text()) | changes))
    assert not job.is_done()
