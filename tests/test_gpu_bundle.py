"""What is carried to a machine with a GPU is whole: run from the unpacked file, by its own script."""

import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

pytest.importorskip("torchdeq")

from benchmarks.gpu import bundle
from benchmarks.gpu.setting import CUDA_TESTS, FULL


def test_the_script_runs_from_the_unpacked_bundle(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures.tar"
    with tarfile.open(pictures, "w") as archive:
        archive.add(Path(__file__), "train/a/1.png")
    bundle.write(tmp_path / "bundle.tar", [], pictures)
    with tarfile.open(tmp_path / "bundle.tar") as whole:
        whole.extractall(tmp_path / "there", filter="data")
    there = tmp_path / "there"
    (there / "site").mkdir()  # as if the wheels had been installed: here they are
    (there / "out").mkdir()  # of a run before
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["sh", str(there / "run.sh"), "--tiny"]
    end = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    # It reads the pictures that came with it, and says that this file is none: so the tree, its script and the archive agree.
    assert (there / "images" / "train" / "a" / "1.png").is_file()
    assert "images" in end.stderr.splitlines()[-1]
    assert "DataError" in end.stderr, end.stderr
    assert (there / "out2").is_dir()
    assert not list((there / "out").iterdir())
    shutil.copytree(there / "images", tmp_path / "mine")
    command += ["--data-dir", "mine"]
    end = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "mine holds 1 class folders" in end.stderr


def test_the_wheels_are_those_that_such_a_machine_lacks() -> None:
    names = {package.partition("==")[0] for package in bundle.missing()}
    assert names >= {"cyclopts", "pydantic", "pydantic-core", "torchdeq", "rich"}
    assert not names & {"torch", "numpy", "scipy", "stabdeq", "cvxpy", "scs", "pillow"}


def test_the_tests_for_a_gpu_are_found_with_the_packages_that_such_a_machine_has() -> None:
    there = bundle._closure((*bundle.PRESENT, "stabdeq", *bundle.BESIDE), set(bundle.NOT_NEEDED))
    asked = [
        path
        for path in Path(__file__).parent.glob("test_*.py")
        if "gpu: torch.device" in path.read_text() and path != Path(__file__)
    ]
    assert sorted(f"tests/{path.name}" for path in asked) == list(CUDA_TESTS)
    lacking = [
        module
        for module, owners in packages_distributions().items()
        if not there.intersection(map(bundle._normal, owners)) and module.isidentifier()
    ]
    assert {"yaml", "cvxpy"} <= set(lacking)
    code = (
        f"import sys; sys.modules |= dict.fromkeys({lacking!r}); import pytest; "
        f"sys.exit(pytest.main([*{FULL.tests!r}, '--collect-only', '-p', 'no:cacheprovider', '-p', 'pytest_timeout']))"
    )
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # those of packages that are not there
    end = subprocess.run([sys.executable, "-c", code], cwd=bundle.ROOT, env=environment, capture_output=True, text=True)
    assert end.returncode == 0, end.stdout + end.stderr
    assert "test_a_training_with_a_compiled_solver" in end.stdout


def test_a_bundle_that_is_too_large_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundle, "download", lambda *_: [])
    monkeypatch.setattr(bundle, "AT_MOST", 1000)
    assert bundle.main(["--out", str(tmp_path / "bundle.tar")]) == 1
    assert "larger than" in capsys.readouterr().err
