"""Another module under the name of one of ours is named, and never run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_runs import REPOSITORY

import stabdeq

pytestmark = pytest.mark.usefixtures("folder")


def shadowed(arguments: list[str], path: list[Path], folder: Path) -> str:
    """Run Python with ``path`` before our own packages; it must end at once, in one line, with exit code 2."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*path, REPOSITORY]))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("name", ["train", "analysis"])
@pytest.mark.parametrize("beside", [True, False], ids=["beside", "on-PYTHONPATH"])
def test_a_module_that_shadows_ours(name: str, beside: bool, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    module = (folder if beside else elsewhere) / f"{name}.py"
    module.write_text("raise SystemExit('imported')\n")
    line = shadowed(["-m", "stabdeq", "train", "digits"], [] if beside else [elsewhere], folder)
    assert line.startswith(f"stabdeq: 'import {name}' finds {module}, not stabdeq's own {REPOSITORY / name}: ")
    assert "rename that file" in line
    assert "PYTHONPATH" in line
    assert [path.name for path in folder.iterdir() if path.name != "__pycache__"] == [module.name] * beside


def test_a_package_that_shadows_ours_before_the_installed_command(folder: Path, tmp_path: Path) -> None:
    package = tmp_path / "elsewhere" / "train"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    line = shadowed(["-c", "from stabdeq.__main__ import main; main(['--help'])"], [package.parent], folder)
    assert f"'import train' finds {package / '__init__.py'}, not" in line


def test_a_module_imported_before_under_our_name(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = type(sys)("train")
    foreign.__file__ = "/somewhere/train.py"
    monkeypatch.setitem(sys.modules, "train", foreign)
    assert "'import train' finds /somewhere/train.py" in refusal("train", "digits")


def test_a_package_of_ours_that_is_missing(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "analysis", raising=False)
    monkeypatch.setattr("stabdeq.doors.find_spec", lambda name: None)
    assert "'import analysis' finds nothing" in refusal("audit", "x")


def test_folders_of_data_do_not_shadow_ours(folder: Path) -> None:
    """A folder train/ without __init__.py, as image folders have, is not a package."""
    (folder / "train").mkdir()
    (folder / "analysis").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "stabdeq", "--version"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, stabdeq.__version__, "")
