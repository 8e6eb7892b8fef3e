"""``stabdeq doctor``: what is missing, too old or hidden is told, with what it is for, and decides the exit code."""

import os
import subprocess
import sys
import webbrowser
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from command_runs import REPOSITORY, run

from stabdeq import installation
from stabdeq.cpu_features import cpu_features

pytestmark = pytest.mark.usefixtures("folder")
REAL = installation.distribution


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the package ``name`` be not installed."""

    def distribution(wanted: str) -> Any:
        if wanted == name:
            raise PackageNotFoundError(name)
        return REAL(wanted)

    monkeypatch.setattr(installation, "distribution", distribution)


def line(text: str, name: str) -> str:
    """The line about ``name``."""
    return next(line for line in text.splitlines() if f"  {name} " in line)


def test_all_that_is_needed_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    text = capsys.readouterr().out
    for name in ("stabdeq", "python", "torch", "safetensors", "cvxpy", "pillow", "GPU", "CPU features", "C++ compiler"):
        assert line(text, name)
    assert "MISSING" not in text
    assert text.endswith("All that is needed is there.\n")


def test_a_package_that_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "cvxpy")
    assert run("doctor") == 2
    text = capsys.readouterr().out
    assert line(text, "cvxpy").startswith("MISSING")
    assert "pip install 'cvxpy>=" in line(text, "cvxpy")
    assert text.endswith("To be mended: cvxpy.\n")


def test_an_optional_package_that_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "ray")
    assert run("doctor") == 0
    assert "it is for stabdeq reproduce --ray" in line(capsys.readouterr().out, "ray")


def test_without_its_own_metadata(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "stabdeq")
    assert run("doctor") == 2
    assert "stabdeq is not installed" in capsys.readouterr().out


def test_a_package_that_is_too_old() -> None:
    assert installation.package("torch", "2.11").standing == "ok"
    found = installation.package("torch", "1000.1")
    assert found.standing == "missing"
    assert "is too old: pip install 'torch>=1000.1'" in found.words


@pytest.mark.parametrize("name", ["safetensors.py", "torch.py", "sklearn/__init__.py"])
def test_a_file_that_hides_a_package_is_named_and_not_run(name: str, folder: Path) -> None:
    hiding = folder / name
    hiding.parent.mkdir(exist_ok=True)
    hiding.write_text("raise SystemExit('it ran')\n")
    done = subprocess.run(
        [sys.executable, "-m", "stabdeq", "doctor"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert f"hidden by {hiding}: rename that" in done.stdout
    assert "it ran" not in done.stdout + done.stderr


def test_a_torch_that_does_not_work(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> int:
        raise RuntimeError("a library is missing")

    monkeypatch.setattr("torch.get_num_threads", broken)
    assert run("doctor") == 2
    assert "RuntimeError: a library is missing: install torch anew" in line(capsys.readouterr().out, "torch works")


def test_what_is_optional_and_not_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_browser() -> None:
        raise webbrowser.Error("none")

    monkeypatch.setattr(webbrowser, "get", no_browser)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run("doctor") == 0
    text = capsys.readouterr().out
    assert "it is for report.html" in line(text, "browser")
    assert "it is for model.solver.compiled=true" in line(text, "C++ compiler")
    assert line(text, "GPU").startswith("-")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("avx2 amx_bf16", "trains faster"),
        ("avx2 avx512_bf16", "trains faster"),
        ("avx2 avx512f", "which has no instructions for it"),
        (None, "cannot be told"),
    ],
)
def test_features_of_the_cpu(flags: str | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, **_: Any) -> str:
        if flags is None:
            raise FileNotFoundError(path)
        return f"flags : fpu {flags}\n"

    monkeypatch.setattr(Path, "read_text", read)
    cpu_features.cache_clear()
    try:
        assert words in installation._cpu().words
    finally:
        cpu_features.cache_clear()
