"""The processes that ``stabdeq reproduce`` starts: they import nothing from the current folder, and end with it."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_runs import REPOSITORY

import stabdeq
from analysis.reproduce import run
from analysis.reproduce.child import ENDS_WITH_ITS_PARENT
from analysis.reproduce.run import LocalEngine, environment, own_home

pytestmark = pytest.mark.usefixtures("folder", "repository_on_path")


def test_a_job_imports_nothing_from_the_current_folder(folder: Path) -> None:
    for name in ("cyclopts", "rich", "json", "analysis", "stabdeq"):
        (folder / f"{name}.py").write_text("raise SystemExit('imported')\n")
    engine = LocalEngine(1)
    assert engine.submit(["--version"], folder / "log").result()[0] == 0
    engine.stop()
    assert (folder / "log").read_text().strip() == stabdeq.__version__


def test_a_job_finds_what_python_found_by_the_folder_it_was_started_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(REPOSITORY)])
    monkeypatch.setattr(sys, "flags", type("Flags", (), {"safe_path": False}))
    assert own_home() == str(REPOSITORY)
    monkeypatch.setenv("PYTHONPATH", "others")
    assert environment(own_home())["PYTHONPATH"] == f"{REPOSITORY}{os.pathsep}others"
    monkeypatch.delenv("PYTHONPATH")
    assert environment(own_home())["PYTHONPATH"] == str(REPOSITORY)
    monkeypatch.setattr(sys, "path", ["/elsewhere", str(REPOSITORY)])
    assert own_home() is None
    assert environment(None) == dict(os.environ)


@pytest.mark.skipif(not ENDS_WITH_ITS_PARENT, reason="the signal at a parent's end is Linux's")
@pytest.mark.parametrize("already", [False, True], ids=["later", "already"])
def test_a_job_ends_with_its_parent_however_that_ends(already: bool) -> None:
    """Both hold the writing end of a pipe, which is at its end when both are gone."""
    reader, writer = os.pipe()
    job = (
        "import os, signal, sys; from analysis.reproduce.child import end_with\n"
        f"end_with({1 if already else 'int(sys.argv[1])'}); os.write({writer}, b'started'); signal.pause()\n"
    )
    parent = (
        "import os, subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {job!r}, str(os.getpid())], pass_fds=[{writer}])\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], pass_fds=[writer]) as process:
        os.close(writer)
        if not already:
            assert os.read(reader, 100) == b"started"
            process.kill()
        assert process.wait() == (0 if already else -signal.SIGKILL)
    assert select.select([reader], [], [], 60)[0]
    assert os.read(reader, 100) == b""
    os.close(reader)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_stopping_ends_what_a_job_started_too(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    code = (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', \"import signal; f = open('pipe', 'w'); f.write('started'); f.flush(); signal.pause()\"])\n"
    )
    monkeypatch.setattr(run, "command_line", lambda arguments: [sys.executable, "-c", code])
    engine = LocalEngine(1)
    running = engine.submit([], folder / "log")
    with (folder / "pipe").open("rb", buffering=0) as pipe:
        assert pipe.read(100) == b"started"
        engine.stop()
        assert select.select([pipe], [], [], 60)[0]
        assert pipe.read(100) == b""
    assert running.result()[0] == -signal.SIGTERM
