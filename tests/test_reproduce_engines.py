"""What runs the jobs of ``stabdeq reproduce``, on this machine and by Ray."""

import os
import signal
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from reproduce_jobs import FakeEngine, call, jobs_of

from analysis.reproduce import run
from analysis.reproduce.run import LocalEngine, RayEngine, run_jobs
from stabdeq.errors import ConfigError

pytestmark = pytest.mark.usefixtures("folder", "repository_on_path")


def test_attacks_follow_their_training_and_one_failure_does_not_stop_the_others() -> None:
    _, jobs = jobs_of("table3", "cifar10", "resnet56,resnet56-trades")
    script = {"cifar10/resnet56-seed0": 1, "cifar10/resnet56-trades-seed0/pgd-8": 137}
    engine, lines = FakeEngine(jobs, script), []
    failures = run_jobs(jobs, engine, lines.append)
    assert engine.order == [
        "cifar10/resnet56-seed0",
        "cifar10/resnet56-trades-seed0",
        *(f"cifar10/resnet56-trades-seed0/{attack}-8" for attack in ("ifgsm", "pgd", "honest")),
    ]
    assert set(failures) == {
        "cifar10/resnet56-seed0",
        *(f"cifar10/resnet56-seed0/{attack}-8" for attack in ("ifgsm", "pgd", "honest")),
        "cifar10/resnet56-trades-seed0/pgd-8",
    }
    assert failures["cifar10/resnet56-seed0"].startswith("exit code 1: stabdeq: it went wrong (see out")
    assert failures["cifar10/resnet56-seed0/pgd-8"] == "its training failed"
    assert "8/8" in lines[-1]
    assert "about 0 s left" in lines[-1]


def test_a_job_that_leaves_nothing_or_an_engine_that_breaks_is_a_failure() -> None:
    _, jobs = jobs_of("table1")
    script = {"digits/deq-seed0/pgd-2": None, "digits/deq-seed0/pgd-4": OSError("the machine is gone")}
    failures = run_jobs(jobs, FakeEngine(jobs, script), lambda line: None)
    assert failures == {
        "digits/deq-seed0/pgd-2": "it ended well, and left another result than asked",
        "digits/deq-seed0/pgd-4": "the machine is gone",
    }


def test_an_interrupt_stops_the_engine_and_goes_on() -> None:
    _, jobs = jobs_of("table1")
    engine = FakeEngine(jobs, {jobs[3].name: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, engine, lambda line: None)
    assert engine.stopped


def python(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let a local engine run ``code`` in place of stabdeq."""
    monkeypatch.setattr(run, "command_line", lambda arguments: [sys.executable, "-c", code, *arguments])


def test_the_local_engine_keeps_the_output_and_the_exit_code(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    python(monkeypatch, "import os, sys; print(os.environ.get('OMP_NUM_THREADS'), sys.argv[1]); sys.exit(3)")
    for lanes, threads in ((1, "None"), (2, "1")):
        engine = LocalEngine(lanes)
        assert engine.submit(["a b"], folder / "log").result()[0] == 3
        assert (folder / "log").read_text() == f"{threads} a b\n"
        engine.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_stopping_the_local_engine_ends_its_process_and_starts_no_more(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    os.mkfifo(folder / "pipe")
    python(monkeypatch, "import signal; open('pipe', 'w').close(); signal.pause()")
    engine = LocalEngine(1)
    running, queued = (engine.submit([], folder / name) for name in ("first", "second"))
    (folder / "pipe").read_bytes()  # waits until the first one runs
    engine.stop()
    assert running.result()[0] == -signal.SIGTERM
    assert queued.cancelled() or queued.result()[0] == 130


def test_without_ray_nothing_is_run_or_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="pip install ray"):
        call("table1", ray=True)
    assert not Path("out").exists()
    assert capsys.readouterr().out == ""


def test_ray_gets_command_lines(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    asked: dict[str, Any] = {}

    def remote(**resources: Any) -> Any:
        asked.update(resources)
        return lambda function: SimpleNamespace(
            remote=lambda *a: SimpleNamespace(future=lambda: finished(function(*a)))
        )

    def finished(value: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(value)
        return future

    resources = {"CPU": 8.0, "GPU": 2.0}
    fake = SimpleNamespace(
        init=lambda **_: None, cluster_resources=lambda: resources, remote=remote, shutdown=lambda: asked.clear()
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    python(monkeypatch, "import os, sys; print(os.getcwd(), sys.argv[1:]); sys.exit(4)")
    engine = RayEngine()
    assert (engine.lanes, asked["num_gpus"], asked["num_cpus"]) == (2, 1, 1)
    assert engine.submit(["train"], Path("log")).result()[0] == 4
    assert (folder / "log").read_text() == f"{folder} ['train']\n"
    engine.stop()
    assert not asked
