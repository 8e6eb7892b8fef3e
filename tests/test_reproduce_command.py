"""``stabdeq reproduce``: what it starts, what it shows, and where it writes."""

import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from reproduce_jobs import FakeEngine, call, jobs_of, training, write_attack, write_checkpoint

from analysis.reproduce import plan, run
from analysis.reproduce.plan import STUDIES
from stabdeq.errors import DataError, JobsFailedError

pytestmark = pytest.mark.usefixtures("folder", "repository_on_path")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that the command gets; it is told its jobs by the test."""
    fake = FakeEngine()
    monkeypatch.setattr(run, "LocalEngine", lambda lanes: fake)
    return fake


def test_a_second_run_starts_nothing_and_a_change_starts_the_attacks_alone(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    _, jobs = jobs_of("table1")
    engine.jobs = {job.log: job for job in jobs}
    call("table1")
    assert engine.order == [job.name for job in jobs]
    first = capsys.readouterr()
    assert "0 of 13 jobs are done; to run: 1 trainings, 12 attacks" in first.err
    tables = Path("out/table1.md").read_bytes(), Path("out/table1.json").read_bytes()
    call("table1")
    assert len(engine.order) == len(jobs)
    second = capsys.readouterr()
    assert (second.out, second.err) == (first.out, "")
    assert (Path("out/table1.md").read_bytes(), Path("out/table1.json").read_bytes()) == tables
    changed = [replace(job, limit=99) for job in jobs if job.action in ("ifgsm", "pgd")]
    engine.jobs = {job.log: job for job in changed}
    call("table1", limit=99)
    assert engine.order[len(jobs) :] == [job.name for job in changed]
    assert "8 results of other settings, or older than their checkpoint, are replaced" in capsys.readouterr().err


def test_attacks_of_a_model_that_is_not_trained_to_the_end_do_not_count(engine: FakeEngine) -> None:
    _, jobs = jobs_of("table1")
    engine.jobs = {job.log: job for job in jobs}
    write_checkpoint(jobs[0], epoch=0)
    write_attack(jobs[1], 0.1)
    call("table1")
    assert engine.order == [job.name for job in jobs]


def test_a_failed_job_is_told_after_the_table(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    _, jobs = jobs_of("table1")
    engine.jobs = {job.log: job for job in jobs}
    engine.script = {"digits/deq-seed0/pgd-4": 1}
    with pytest.raises(
        JobsFailedError, match=r"1 jobs failed .* digits/deq-seed0/pgd-4: exit code 1: stabdeq: it went"
    ) as end:
        call("table1")
    assert end.value.exit_code == 1
    assert "1 of 12 results are missing" in " ".join(capsys.readouterr().out.split())


def test_an_interrupted_run_shows_what_is_there(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    _, jobs = jobs_of("table1")
    engine.jobs = {job.log: job for job in jobs}
    engine.script = {jobs[2].name: KeyboardInterrupt()}
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        call("table1")
    assert "of 12 results are missing" in " ".join(capsys.readouterr().out.split())
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_dry_run_prints_what_is_missing_and_writes_nothing(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    call("table1", data="mnist", kinds="deq,lyadeq", seeds="0,1", dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    assert not list(folder.iterdir())
    assert sum(line.startswith("python -P -m stabdeq train mnist ") for line in lines) == 4
    assert sum(line.startswith("python -P -m stabdeq attack ") for line in lines) == 48
    assert lines.index("# trainings") < lines.index("# attacks: each needs its training")
    write_checkpoint(training(data="mnist"))
    call("table1", data="mnist", kinds="deq,lyadeq", seeds="0,1", dry_run=True)
    assert "deq-seed0 " not in "".join(
        line for line in capsys.readouterr().out.splitlines() if " train " in line
    ).replace("lyadeq-seed0", "")


def test_the_data_are_asked_for_before_any_job(engine: FakeEngine) -> None:
    with pytest.raises(DataError, match="no mnist data"):
        call("table1", data="mnist", data_dir=Path("nowhere"))
    assert not engine.order


def test_figures_are_written_beside_their_models_and_in_out(engine: FakeEngine) -> None:
    _, jobs = jobs_of("figure4")
    _, others = jobs_of("figure3", kinds="lyadeq")
    engine.jobs = {job.log: job for job in (*jobs, *others)}
    call("figure4")
    assert {path.name for path in Path("out").glob("figure4*")} == {
        "figure4-digits.png",
        "figure4-digits.svg",
        "figure4.md",
        "figure4.json",
    }
    call("figure3", kinds="lyadeq", limit=12)
    assert {path.name for path in Path("out/digits/lyadeq-seed0").glob("figure3*")} == {"figure3.png", "figure3.svg"}


def test_real_jobs_train_and_attack_digits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    study = replace(STUDIES["table1"], radii={"pgd": (8,)})
    monkeypatch.setattr(plan, "STUDIES", {"table1": study})
    call("table1", limit=None, jobs=2)
    assert re.search(r"PGD n=360 +\d+\.\d\d +\d+\.\d\d", capsys.readouterr().out)
    monkeypatch.setattr(run, "LocalEngine", lambda lanes: pytest.fail("everything is done"))
    call("table1", limit=None)
