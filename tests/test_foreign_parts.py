"""Parts that were changed with their hash, or are of another work: refused in one line, whatever they say."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import tiny_model

from analysis.findings import Measurement
from analysis.report.report import Report
from analysis.shards.attacks import attack_part, joined_attack
from analysis.shards.folder import parts_in
from analysis.shards.part import Part, write_part
from analysis.shards.reports import joined_report, report_part
from analysis.shards.work import Work
from stabdeq.attacks.run import attack
from stabdeq.errors import ShardError
from stabdeq.shard import Shard

Change = Callable[[dict[str, Any]], Any]


def changed(part: Part, change: Change) -> Part:
    """Return ``part`` where a foreign program has changed its work or its result."""
    plain = json.loads(json.dumps({"work": part.work, "result": part.result}))
    change(plain)
    return replace(part, **plain)


@pytest.fixture(scope="module")
def reports() -> list[Part]:
    made = []
    for index, check in enumerate(("spectrum", "separation"), start=1):
        measured = Measurement(check=check, name="size", value=1.0, text="a number")
        report = Report(
            measurements=(measured,), sample={"sha256": "a"}, environment={"torch": "2", "date": str(index)}
        )
        made.append(report_part(Work("audit", "torch", {}), Shard(index, 2), ["spectrum", "separation"], report))
    return made


@pytest.fixture(scope="module")
def attacks() -> list[Part]:
    torch.manual_seed(0)
    model, images, labels = tiny_model().eval(), torch.rand(2, 1, 3, 3), torch.tensor([0, 1])
    settings: dict[str, Any] = {"name": "honest", "steps": 1, "batch_size": 1, "eps": "8/255"}
    shards = [Shard(1, 2), Shard(2, 2)]
    results = [attack(model, images, labels, **settings, shard=shard) for shard in shards]
    parts = [attack_part(Work("attack", "torch", {}), shard, one) for shard, one in zip(shards, results, strict=True)]
    return [changed(part, lambda plain: None) for part in parts]  # as they are read


@pytest.mark.parametrize(
    "change",
    [
        lambda part: part["work"].pop("order"),
        lambda part: part["work"].update(order=["decay"]),
        lambda part: part["work"].update(order=3),
        lambda part: part["work"].update(units=[1, 2]),
        lambda part: part["result"].update(images={"x": 1}),
        lambda part: part["result"].update(series={"spectrum": 3}),
        lambda part: part["result"].update(subject=3),
        lambda part: part["result"].update(measurements=[]),
        lambda part: part["result"]["measurements"].pop(),
    ],
)
def test_a_part_that_holds_no_report_is_refused(reports: list[Part], change: Change) -> None:
    assert [one.check for one in joined_report(reports).measurements] == ["spectrum", "separation"]
    with pytest.raises(ShardError, match="no report of"):
        joined_report([changed(part, change) for part in reports])


def test_a_certification_may_be_silent_and_not_say_what_another_shard_is_to_say() -> None:
    def part(*checks: str) -> Part:
        measured = [Measurement(check=check, name="size", value=1.0, text="a number") for check in checks]
        report = Report(measurements=tuple(measured), environment={"date": "1"})
        return report_part(Work("certify", "torch", {}), Shard(1, 2), ["gain", "radius"], report)

    assert joined_report([part()]).measurements == ()
    with pytest.raises(ShardError, match="shard 1/2 holds no report of gain"):
        joined_report([part("gain", "radius")])


@pytest.mark.parametrize("name", ["sample", "checkpoint", "environment", "command"])
def test_a_report_on_another_subject_is_refused(reports: list[Part], name: str) -> None:
    other = changed(reports[1], lambda part: part["result"][name].update(sha256="b"))
    with pytest.raises(ShardError, match=f"shard 2/2 reports on another subject: {name}.sha256 is b"):
        joined_report([reports[0], other])


@pytest.mark.parametrize(
    "change",
    [
        lambda result: result.update(control=None),
        lambda result: result["outcome"]["robust_correct"].append(True),
        lambda result: result["outcome"].update(robust_correct=[7]),
        lambda result: result["outcome"].update(nonfinite=[[True]]),
        lambda result: result["outcome"].update(broken_by=[99]),
        lambda result: result.update(indices=[-1]),
        lambda result: result.update(indices=[True]),
    ],
)
def test_a_part_that_holds_no_result_of_an_attack_is_refused(attacks: list[Part], change: Change) -> None:
    assert len(joined_attack(attacks).indices) == 2
    with pytest.raises(ShardError, match="holds no result of an attack"):
        joined_attack([attacks[0], changed(attacks[1], lambda part: change(part["result"]))])


@pytest.mark.parametrize("name", ["settings", "subject", "drawn"])
def test_the_result_of_another_attack_is_refused(attacks: list[Part], name: str) -> None:
    other = changed(attacks[1], lambda part: part["result"][name].update(eps=0.5))
    with pytest.raises(ShardError, match=f"shard 2/2 is of another attack: {name}.eps is 0.5"):
        joined_attack([attacks[0], other])


@pytest.mark.parametrize(("name", "value"), [("radius", "0.5"), ("parts", ["pgd"])])
def test_the_result_of_another_ball_or_of_other_attacks_is_refused(attacks: list[Part], name: str, value: Any) -> None:
    other = changed(attacks[1], lambda part: part["result"].update({name: value}))
    with pytest.raises(ShardError, match=f"shard 2/2 is of another attack: {name} is "):
        joined_attack([attacks[0], other])


def test_the_lost_shards_of_a_division_of_any_size_are_counted(reports: list[Part], tmp_path: Path) -> None:
    write_part(tmp_path, replace(reports[0], shard=Shard(1, 10**12)))
    with pytest.raises(ShardError, match=r"999999999999 of 1000000000000 shards missing: 2/1000000000000, .*, \.\.\.:"):
        parts_in(tmp_path)
