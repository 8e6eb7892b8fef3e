"""What parts hold and how jobs end, without any process: the units of work, the files that were read, who failed and what is kept."""

import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis.findings import Measurement, Skipped
from analysis.findings.finding import not_asked_for
from analysis.report.report import Report
from analysis.shards import jobs
from analysis.shards.attacks import attack_part, joined_attack
from analysis.shards.folder import parts_in
from analysis.shards.part import SUFFIX, Part, _digest, differences, place, read_part, require_free, write_part
from analysis.shards.reports import joined_report, report_part
from analysis.shards.work import Work, digests
from stabdeq.attacks import Outcome
from stabdeq.attacks.result import AttackResult
from stabdeq.errors import ConfigError, ShardError
from stabdeq.locks import LOCK_NAME
from stabdeq.shard import Shard

pytestmark = pytest.mark.usefixtures("short_hunts")

WORK = Work("audit", "torch", {"seed": 1})
PLAIN = WORK.plain | {"units": ["a", "b", "c"], "files": {}, "environment": {}}


def part(index: int, count: int = 2, **result: Any) -> Part:
    return Part(shard=Shard(index, count), work=PLAIN, result={"seconds": 1.0, **result})


# --- jobs ---


class Engine:
    """Does nothing but what ``ends`` says of each shard: an exit code, or an exception of the wait."""

    ends: tuple[int | BaseException, ...] = ()
    stopped = 0

    def __init__(self, count: int) -> None:
        assert count == len(self.ends)

    def submit(self, words: list[str], log: Path) -> "Future[tuple[int, str]]":
        folder = Path(words[-1].removeprefix("--out="))
        shard = Shard.parse(words[-2].removeprefix("--shard="))
        assert log == folder / f"{shard.index}-of-{shard.count}.log"
        log.write_text(f"a line\nwhy {shard}\n")
        end, future = self.ends[shard.index - 1], Future()
        if isinstance(end, BaseException):
            future.set_exception(end)
        else:
            future.set_result((end, ""))
        if end == 0:
            write_part(folder, part(shard.index, shard.count))
        return future

    def stop(self) -> None:
        type(self).stopped += 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "made"
    made.mkdir()
    monkeypatch.setattr(jobs, "mkdtemp", lambda **_: str(made))
    monkeypatch.setattr(jobs, "LocalEngine", Engine)
    monkeypatch.setattr(Engine, "stopped", 0)
    return made


def ending(monkeypatch: pytest.MonkeyPatch, *ends: int | BaseException) -> None:
    monkeypatch.setattr(Engine, "ends", ends)


def test_the_parts_of_all_jobs_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending(monkeypatch, 0, 0, 0)
    assert [found.shard for found in jobs.parts_by_jobs(WORK, 3)] == [Shard(1, 3), Shard(2, 3), Shard(3, 3)]
    assert not folder.exists()
    assert not Engine.stopped


def test_a_job_that_failed_is_told_and_the_parts_of_others_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, 0, 3, 0)
    with pytest.raises(
        ShardError, match="shard 2/3 failed, exit code 3: why 2/3: the parts of 1/3, 3/3 are in"
    ) as said:
        jobs.parts_by_jobs(WORK, 3)
    assert WORK.line(Shard(2, 3), folder) in str(said.value)
    assert len(list(folder.glob(f"*{SUFFIX}"))) == 2


def test_a_machine_that_is_lost_takes_no_part_of_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending(monkeypatch, OSError("the machine\nis gone"), 0)
    with pytest.raises(ShardError, match="shard 1/2 failed, the machine is gone: the parts of 2/2 are in"):
        jobs.parts_by_jobs(WORK, 2)
    assert len(list(folder.glob(f"*{SUFFIX}"))) == 1


def test_ray_has_as_many_shards_as_it_runs_at_a_time_and_begins_lost_ones_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cluster(Engine):
        lanes = 3

        def __init__(self, retries: int) -> None:
            assert retries > 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "RayEngine", Cluster)
    ending(monkeypatch, 0, 0, 1)
    with pytest.raises(ShardError, match="shard 3/3 failed") as said:
        jobs.parts_by_jobs(WORK, None, ray=True)
    (made,) = tmp_path.iterdir()  # below this folder, which the machines share
    assert str(made) in str(said.value)
    ending(monkeypatch, 0, 0)
    assert [found.shard for found in jobs.parts_by_jobs(WORK, 2, ray=True)] == [Shard(1, 2), Shard(2, 2)]
    assert list(tmp_path.iterdir()) == [made]


def test_where_all_failed_nothing_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending(monkeypatch, 4, 5)
    with pytest.raises(ShardError, match=r"shard 1/2 failed, exit code 4: why 1/2$"):
        jobs.parts_by_jobs(WORK, 2)
    assert not folder.exists()


def test_a_job_that_ends_well_without_a_part_has_failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where code of the user's calls os._exit(0)."""
    ending(monkeypatch, 0, 0)
    write = write_part
    monkeypatch.setitem(globals(), "write_part", lambda folder, made: made.shard.index == 1 and write(folder, made))
    with pytest.raises(ShardError, match="shard 2/2 failed, exit code 0 without a part: why 2/2: the parts of 1/2 are"):
        jobs.parts_by_jobs(WORK, 2)
    assert len(list(folder.glob(f"*{SUFFIX}"))) == 1


def test_folders_of_commands_that_were_killed_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "gettempdir", lambda: str(tmp_path))
    with jobs._new_folder(tmp_path) as running:
        names = ("stabdeq-killed", "stabdeq-kept", "stabdeq-training", "other")
        killed, kept, training, other = (tmp_path / name for name in names)
        for folder in (killed, kept, training, other):
            folder.mkdir()
            (folder / "a.part.json").touch()
        for folder in (killed, other):
            (folder / jobs.HELD).touch()
        (training / LOCK_NAME).touch()  # what a training that was killed leaves, to be resumed
        (tmp_path / "stabdeq-link").symlink_to(other)
        with jobs._new_folder(tmp_path) as folder:
            assert sorted(path.name for path in folder.iterdir()) == [jobs.HELD]
            left = {path for path in tmp_path.iterdir() if path.is_dir()}
            assert left == {running, kept, training, other, tmp_path / "stabdeq-link", folder}
        assert list(folder.iterdir()) == []  # what stays is not taken for one that was killed
        assert sorted(path.name for path in other.iterdir()) == [jobs.HELD, "a.part.json"]


def test_an_interrupt_stops_the_jobs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending(monkeypatch, 0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        jobs.parts_by_jobs(WORK, 2)
    assert Engine.stopped == 1
    assert not folder.exists()


# --- works and parts ---


def test_a_part_is_made_again_where_times_alone_differ() -> None:
    one = part(1, found=[{"seconds": 1, "date": "x", "value": 2}], kept=[1, [2]])
    assert one.is_again(part(1, found=[{"seconds": 3, "date": "y", "value": 2}], kept=[1, [2]]))
    for other in (
        part(2, found=[{"value": 2}], kept=[1, [2]]),
        part(1, found=[{"value": 3}], kept=[1, [2]]),
        part(1, found=[{"value": 2}], kept=[1, [3]]),
        replace(one, work={**PLAIN, "units": ["a"]}),
    ):
        assert not one.is_again(other)
    assert [part(index).units for index in (1, 2)] == [["a", "c"], ["b"]]


def test_works_differ_in_words() -> None:
    told = list(differences({"a": 1, "b": {"c": 2}, "d": 4}, {"a": 1, "b": {"c": 3, "e": "x" * 90}}))
    assert told == ["b.c is 2, not 3", f"b.e is not given, not {'x' * 80}", "d is 4, not not given"]


def test_the_words_of_a_work(tmp_path: Path) -> None:
    work = Work("check", "m.py:f", {"seed": -1, "quick": True, "slow": False, "none": None, "checks": ("a", "b")})
    words = ["check", "m.py:f", "--seed=-1", "--quick", "--checks=a", "--checks=b", "--shard=1/2", f"--out={tmp_path}"]
    assert work.words(Shard(1, 2), tmp_path) == words
    assert work.line(Shard(1, 2), tmp_path).startswith("stabdeq check m.py:f --seed=-1 --quick")


def test_the_files_of_a_work_are_hashed(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    file.write_text("x")
    found = digests(Work("check", str(file), {"dynamics": "json:loads", "step": None, "unsafe": "nothing.py:f"}))
    assert sorted(found) == ["dynamics", "subject", "unsafe"]
    assert found["subject"].startswith("2d711642b726b044")  # of "x"
    assert len(found["dynamics"]) == 64
    assert found["unsafe"] == ""


@pytest.mark.parametrize("option", ["dynamics", "step", "uncertain", "initial", "unsafe", "on"])
def test_the_code_that_any_option_names_is_hashed(option: str) -> None:
    assert len(digests(Work("check", "nothing.py:f", {option: "json:loads"}))[option]) == 64


def test_the_place_of_another_works_part_is_not_free(tmp_path: Path) -> None:
    require_free(tmp_path / "new", WORK, Shard(1, 2))
    path = write_part(tmp_path, part(1))
    assert path == place(tmp_path, "audit", Shard(1, 2)) == tmp_path / "audit-1-of-2.part.json"
    require_free(tmp_path, WORK, Shard(1, 2))
    require_free(tmp_path, replace(WORK, options={"seed": 2}), Shard(2, 2))
    with pytest.raises(ShardError, match=r"options\.seed is 1, not 2"):
        require_free(tmp_path, replace(WORK, options={"seed": 2}), Shard(1, 2))


def schema(plain: dict[str, Any]) -> None:
    plain["part"]["schema"] = 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plain: plain.update(sha256="0" * 64), "changed since it was written"),
        (schema, "changed since it was written"),
        (lambda plain: plain.pop("part"), "no part that --shard wrote"),
    ],
)
def test_a_changed_part_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    path = write_part(tmp_path, part(1))
    assert read_part(path) == part(1)
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(ShardError, match=said):
        read_part(path)


def test_a_part_that_says_two_things_is_refused(tmp_path: Path) -> None:
    path = write_part(tmp_path, part(1))
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 1, "schema": 1'))
    with pytest.raises(ShardError, match="the key 'schema' stands twice"):
        read_part(path)


@pytest.mark.parametrize("depth", [101, 600, 900])
def test_a_part_nested_deeper_than_any_is_refused(depth: int, tmp_path: Path) -> None:
    """At 600 JSON is still read, and what walks it in Python runs out of stack."""
    whole = write_part(tmp_path, part(1)).read_text()
    deep = whole.replace('"result": {', f'"result": {{"a": {"[" * depth + "]" * depth}, ')
    plain = json.loads(deep)["part"]
    (tmp_path / "deep.part.json").write_text(deep.replace(json.loads(whole)["sha256"], _digest(plain)))
    with pytest.raises(ShardError, match="nested more than 100 levels deep"):
        parts_in(tmp_path)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "a/2", "1/b", "1", "", "²/3", "-1/2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected I/N"):
        Shard.parse(text)


# --- attacks ---


def result(*indices: int, sha256: str | None = None, by: int = -1) -> AttackResult:
    flags = torch.ones(len(indices), dtype=torch.bool)
    outcome = Outcome(flags, flags, ~flags, ~flags, flags, None, torch.full((len(indices),), by))
    return AttackResult(
        subject={"checkpoint": None, "sha256": sha256, "kind": "x", "data": None},
        settings={"attack": "honest", "norm": "linf", "batch_size": 2, "clamp_normalised": False},
        radius="0.1",
        parts=("a", "b"),
        indices=torch.tensor(indices, dtype=torch.int64),
        drawn={"images": 5, "sha256": "ff"},
        control=replace(outcome, robust_correct=torch.tensor([index == 4 for index in indices])),
        outcome=outcome,
    )


def attacked(tmp_path: Path, *results: AttackResult) -> list[Part]:
    made = [attack_part(WORK, Shard(place, len(results)), one) for place, one in enumerate(results, 1)]
    return [read_part(write_part(tmp_path, one)) for one in made]


def test_a_part_of_an_attack_tells_its_batches_and_what_was_read(tmp_path: Path) -> None:
    named, unnamed = attacked(tmp_path, result(0, 1, sha256="ee"), result(2))
    assert named.work["units"] == [0, 1, 2]  # 5 images, 2 at a time
    assert named.work["files"] == {"subject": "ee", "images": "ff"}
    assert unnamed.work["files"]["subject"] != "ee"
    assert named.work["environment"]["device"] in ("cpu", "cuda")


def test_the_images_of_all_parts_are_joined_in_order(tmp_path: Path) -> None:
    joined = joined_attack(attacked(tmp_path, result(0, 1, 4, by=2), result(3, 2)))
    assert joined.indices.tolist() == [0, 1, 2, 3, 4]
    assert joined.outcome.broken_by is not None
    assert joined.outcome.broken_by.tolist() == [2, 2, -1, -1, 2]
    assert joined.outcome.robust_converged is None
    assert joined.control.robust_correct.tolist() == [False, False, False, False, True]


@pytest.mark.parametrize("second", [(3,), (3, 1), (3, 2, 1)])
def test_an_image_that_is_missing_or_there_twice_is_told(second: tuple[int, ...], tmp_path: Path) -> None:
    count = len({0, 1, 4, *second})
    with pytest.raises(ShardError, match=f"the parts have {count} images of 5 that were drawn"):
        joined_attack(attacked(tmp_path, result(0, 1, 4), result(*second)))


@pytest.mark.parametrize("by", [2, 3])
def test_no_image_is_broken_by_a_part_that_is_not_there(by: int, tmp_path: Path) -> None:
    parts = attacked(tmp_path, result(0, 1, 4, by=by), result(3, 2))
    if by > 2:
        with pytest.raises(ShardError, match="no result of an attack"):
            joined_attack(parts)
    else:
        assert joined_attack(parts).standing["b"] == 2 / 5


# --- reports ---


def report(*checks: str, date: str = "2", sha256: str | None = None) -> Report:
    """Of ``checks`` the first is skipped, the others are measured."""
    left_out = (Skipped(check=checks[0], reason="there is none"), *not_asked_for(["decay", "flow"]))
    return Report(
        measurements=tuple(Measurement(check=name, name="size", value=1.0, text="a number") for name in checks[1:]),
        skipped=left_out,
        series={name: {"xs": [1.0]} for name in checks},
        images={str(len(checks[-1])): {"label": 1}},
        certificates={checks[0]: {"rate": 1.0}},
        checkpoint={"sha256": sha256} if sha256 else {},
        environment={"date": date},
    )


def test_reports_are_joined_in_the_order_of_the_work(tmp_path: Path) -> None:
    units, order = ["separation", "spectrum,convergence", "equilibrium"], ["equilibrium", "spectrum", "separation"]
    order += ["convergence"]
    one = report_part(WORK, Shard(1, 2), units, report("equilibrium", "separation", date="1"), order)
    other = report_part(WORK, Shard(2, 2), units, report("convergence", "spectrum"), order)
    joined = joined_report([read_part(write_part(tmp_path, each)) for each in (one, other)])
    assert [item.check for item in joined.measurements] == ["spectrum", "separation"]
    assert [item.check for item in joined.skipped] == ["equilibrium", "convergence", "decay", "flow"]
    assert list(joined.series) == order
    assert joined.environment["date"] == "1"
    assert list(joined.certificates) == ["equilibrium", "convergence"]
    assert list(joined.images) == ["8", "10"]  # by their numbers


def test_a_part_of_a_report_tells_what_was_read() -> None:
    named = report_part(WORK, Shard(1, 1), ["spectrum,separation"], report("spectrum", "separation", sha256="ee"))
    assert named.work["files"] == {"subject": "ee", "images": None}
    assert named.work["order"] == ["spectrum", "separation"]
    assert named.work["units"] == ["spectrum,separation"]
    unnamed = report_part(WORK, Shard(1, 1), ["spectrum"], report("spectrum"))
    assert unnamed.work["files"]["subject"] != "ee"
