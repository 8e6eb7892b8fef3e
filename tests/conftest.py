"""Fixtures that several files share, Hypothesis profiles, and one thread for small tensors.

The environment variable HYPOTHESIS_PROFILE chooses the profile. With STABDEQ_SKIPS=fail, a test fails that would be left out for
want of something that the machine of ``.ci/run`` should have.
"""

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from check_runs import OWN
from command_runs import contents, run
from hypothesis import settings
from pretended_gpu import pretended_gpu
from sample_report import sample_report
from short_hunts import shorten_hunts
from solver_problems import DIM
from tiny_checkpoints import tiny_checkpoint
from training_runs import tiny_data, tiny_recipe

import stabdeq
from stabdeq.checkpoint import save_checkpoint
from stabdeq.solvers import loop
from train.trainer import train

settings.register_profile("dev", max_examples=10, deadline=None)
settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("thorough", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# The tensors are small: threads would cost more than they bring, and may change the order of sums.
torch.set_num_threads(1)


Report = TypeVar("Report", pytest.CollectReport, pytest.TestReport)


def pytest_collection_finish() -> None:
    """What was imported lives to the end: the garbage collector leaves it alone, and comes when there is more to collect."""
    gc.freeze()
    gc.set_threshold(7_000, 10, 10)


HERE = ("127.0.0.1", "::1", "localhost")

# Why a test may be left out even there.
MAY_BE_MISSING = ("needs a GPU", "no MNIST at")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _unless_required((yield))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _unless_required((yield))


def _unless_required(report: Report) -> Report:
    if report.skipped and os.environ.get("STABDEQ_SKIPS") == "fail":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in MAY_BE_MISSING):
            report.outcome = "failed"
            report.longrepr = f"left out, which STABDEQ_SKIPS=fail forbids: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def reached() -> Iterator[list[Any]]:
    """The addresses beyond this machine that tests tried to reach: none is, and at the end there must be none."""
    addresses, connect = [], socket.socket.connect

    def refuse(connection: socket.socket, address: Any) -> None:
        is_here = connection.family not in (socket.AF_INET, socket.AF_INET6) or address[0] in HERE
        if is_here:
            connect(connection, address)
            return
        addresses.append(address)
        raise OSError("tests have no network")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket.socket, "connect", refuse)
        yield addresses
    assert not addresses


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, so that nothing written anywhere below it goes unseen; Python keeps no bytecode of modules there."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return folder


@pytest.fixture
def no_hang() -> Iterator[None]:
    """A test that waits for a pipe fails after a minute, in place of hanging for ever."""

    def give_up(*_: Any) -> None:
        raise AssertionError("it waits for what will never come")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def refusal(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with one line on stderr and change no file; gives that line."""

    def refused(*arguments: str | Path, code: int = 2) -> str:
        capsys.readouterr()
        before, folders = contents(folder), sorted(folder.rglob("*"))
        assert run(*arguments) == code
        line = capsys.readouterr().err
        assert line.startswith("stabdeq: ")
        assert line.endswith("\n")
        assert line.count("\n") == 1
        assert contents(folder) == before
        assert sorted(folder.rglob("*")) == folders
        return line

    return refused


@pytest.fixture
def repository_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a test starts find this repository."""
    monkeypatch.setenv("PYTHONPATH", str(Path(stabdeq.__file__).parents[1]))


@pytest.fixture
def zoo_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """``MODULE:NAME`` finds the zoo beside the tests."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, with the module ``own_functions``, imported anew."""
    (tmp_path / "own_functions.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_functions", raising=False)
    return tmp_path


@pytest.fixture
def report() -> dict[str, Any]:
    """Decoded JSON as an audit writes it, with every verdict, a witness, a skipped check and all series."""
    return sample_report()


@pytest.fixture(scope="module")
def valid_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a tiny checkpoint, once a module."""
    path = tmp_path_factory.mktemp("valid") / "x.safetensors"
    save_checkpoint(path, tiny_checkpoint())
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run that was never stopped, once a module."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(tiny_recipe(), tiny_data(), out)
    return out


@pytest.fixture(scope="module")
def short_hunts() -> Iterator[None]:
    """A module's hunts for counterexamples end after a few steps."""
    with pytest.MonkeyPatch.context() as patched:
        shorten_hunts(patched)
        yield


@pytest.fixture(params=["thinned", "tiled", "thinned and tiled", "one at a time"])
def splitting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Thresholds at which small batches are split as large ones are."""
    tile, crowd = {
        "thinned": (23 * DIM, 1.0),
        "tiled": (7 * DIM, 0.0),
        "thinned and tiled": (9 * DIM, 0.75),
        "one at a time": (1, 1.0),
    }[request.param]
    monkeypatch.setattr(loop, "TILE", tile)
    monkeypatch.setattr(loop, "FEW", 1)
    monkeypatch.setattr(loop, "CROWD", crowd)
    return request.param


REAL_GPU = pytest.param(
    "real",
    marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")],
)


@pytest.fixture(params=["pretended", REAL_GPU])
def gpu(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A GPU, or what is taken for one during the test, which has to use it."""
    with nullcontext() if request.param == "real" else pretended_gpu() as devices:
        yield torch.device("cuda", 0)
    assert devices is None or devices.used
