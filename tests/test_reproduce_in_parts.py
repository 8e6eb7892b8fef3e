"""A table in the time that it is given, and from folders of images."""

import json
import os
from pathlib import Path

import pytest
from data_files import write_folder
from reproduce_jobs import FakeEngine, call, jobs_of, training, write_attack, write_checkpoint

from analysis.reproduce import run
from analysis.reproduce.jobs import Attack
from analysis.reproduce.plan import STUDIES, select
from analysis.reproduce.run import run_jobs
from analysis.reproduce.times import Times
from stabdeq.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("folder", "repository_on_path")


def test_time_left_is_that_of_like_jobs_and_says_where_it_is_more() -> None:
    _, jobs = jobs_of("table1")
    times = Times(jobs)
    pgd = [job for job in jobs if job.action == "pgd"]
    assert times.left(pgd, 1) == "more than 0 s left"
    times.note(pgd[0], 50.0)
    times.note(pgd[1], 70.0)
    assert times.left(pgd, 1) == "about 4 min 0 s left"
    assert times.left(pgd, 2) == "about 2 min 0 s left"
    assert times.left(jobs, 1) == "more than 4 min 0 s left"


def test_the_epochs_of_a_training_tell_what_it_and_its_like_will_take() -> None:
    begun, fresh, other = training(epochs=10), training(epochs=10, seed=1), training(epochs=10, data="mnist")
    begun.metrics.parent.mkdir(parents=True)
    lines = [json.dumps({"epoch": epoch, "seconds": seconds}) for epoch, seconds in ((1, 30.0), (2, 20.0), (3, 22.0))]
    begun.metrics.write_text("\n".join([*lines, '{"epoch": 4, "test_accuracy": 1.0}', "cut off {"]))
    times = Times([begun, fresh, other])
    assert [times.expected(job) for job in (begun, fresh, other)] == [7 * 22.0, 10 * 22.0, None]
    assert times.left([begun, fresh], 2) == "about 3 min 7 s left"


@pytest.mark.parametrize(
    "line",
    [
        '{"epoch": 4, "seconds": NaN}',
        '{"epoch": 4, "seconds": "inf"}',
        '{"epoch": 4, "seconds": -1}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_an_odd_line_of_metrics_tells_no_time(line: str) -> None:
    begun = training(epochs=10)
    begun.metrics.parent.mkdir(parents=True)
    begun.metrics.write_text(f'{{"epoch": 1, "seconds": 30.0}}\n{line}', encoding="latin-1")
    assert Times([begun]).left([begun], 1) == "about 4 min 30 s left"


def test_metrics_in_a_pipe_are_not_waited_for(no_hang: None) -> None:
    begun = training(epochs=10)
    begun.metrics.parent.mkdir(parents=True)
    os.mkfifo(begun.metrics)
    assert Times([begun]).expected(begun) is None


def test_when_the_time_is_over_the_rest_waits_for_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    _, jobs = jobs_of("table1")
    clock = iter(range(1000))
    monkeypatch.setattr(run.time, "monotonic", lambda: next(clock))
    engine, lines = FakeEngine(jobs), []
    assert run_jobs(jobs, engine, lines.append, seconds=1.5) == {}
    assert engine.stopped
    assert engine.order == [jobs[0].name]
    assert lines[-1].startswith("the time is over; next: ")
    assert lines[-1].endswith("left: run the same command again")
    undone = [job for job in jobs if not job.is_done()]
    again = FakeEngine(undone)
    run_jobs(undone, again, lines.append)
    assert all(job.is_done() for job in jobs)


def test_a_data_set_read_as_a_folder() -> None:
    job = training(data="cifar10", data_dir=Path("images"), as_folder=True)
    words = job.command()
    assert words[words.index("--set") + 1] == "data.name=folder"
    assert words[words.index("--data-dir") + 1] == "images/cifar10"
    attack = Attack(training=job, attack="pgd", eps=2, limit=100)
    assert attack.command()[attack.command().index("--data-dir") + 1] == "images/cifar10"
    write_checkpoint(job, data={"name": "folder"})
    assert job.is_done()
    write_attack(attack, 0.5, data="folder")
    assert attack.is_done()
    write_attack(attack, 0.5)
    assert not attack.is_done()
    with pytest.raises(ConfigError, match=r"trained with data\.name = folder, not cifar10"):
        training(data="cifar10").is_done()


def test_of_a_folder_all_images_are_those_in_it() -> None:
    write_folder(Path("images/cifar10/test"), {"a": 7, "b": 5})
    job = training(data="cifar10", data_dir=Path("images"), as_folder=True)
    assert [Attack(training=job, attack="pgd", eps=2, limit=limit).count for limit in (None, 5, 100)] == [12, 5, 12]


def test_a_model_that_is_not_trained_to_the_end_is_not_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (begun, waiting) = jobs_of("figure3", kinds="lyadeq,deq-orth")
    engine = FakeEngine()
    monkeypatch.setattr(run, "LocalEngine", lambda lanes: engine)
    monkeypatch.setattr(run, "run_jobs", lambda *_, **__: {})  # the time is over at once
    call("figure3", kinds="lyadeq,deq-orth", hours=1e-9)
    write_checkpoint(begun, epoch=0)
    call("figure3", kinds="lyadeq,deq-orth", hours=1e-9)
    assert not list(Path("out").rglob("figure3*"))
    assert not waiting.checkpoint.exists()


def test_a_figure_says_what_is_missing_in_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "run_jobs", lambda *_, **__: {})
    call("figure4", hours=1e-9)
    assert "27 of 27 results are missing" in capsys.readouterr().out


def test_folders_must_be_there_before_any_job(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--data-dir"):
        call("table1", data="cifar10", folders=True)
    with pytest.raises(ConfigError, match="without --download"):
        call("table1", data="cifar10", folders=True, data_dir=Path("images"), download=True)
    with pytest.raises(DataError, match=r"images.cifar10"):
        call("table1", data="cifar10", folders=True, data_dir=Path("images"))


def test_a_folder_that_is_not_divided_is_refused_before_any_job() -> None:
    write_folder(Path("images/cifar10"), {"a": 20, "b": 20})
    with pytest.raises(ConfigError, match="there is no test"):
        call("table1", data="cifar10", folders=True, data_dir=Path("images"))


def test_a_figure_of_states_reads_the_folder_of_its_data_set() -> None:
    write_folder(Path("images/cifar10/train"), {"a": 20, "b": 20})
    write_folder(Path("images/cifar10/test"), {"a": 7, "b": 7})
    of_folders = {"kinds": "lyadeq", "folders": True, "data_dir": Path("images")}
    lyadeq = select(STUDIES["figure3"], "cifar10", "lyadeq").systems[0]
    job = training(data="cifar10", system=lyadeq, as_folder=True, data_dir=Path("images"))
    write_checkpoint(job, data={"name": "folder"})
    call("figure3", data="cifar10", limit=12, **of_folders)
    assert job.checkpoint.with_name("figure3.png").is_file()
