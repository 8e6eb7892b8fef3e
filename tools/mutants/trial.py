"""A run of tests in a forked child, with a fault planted in memory: the files stay as they are.

mutmut and cosmic-ray start a new interpreter for each mutant, which here spends most of its time importing torch; a child forked from
a process that has imported torch, and mostly the tests and what they test, starts at once.
"""

import importlib
import json
import math
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from tools.mutants.subjects import ROOT
from tools.mutants.swap import compiled

# What most tests import, and is not ours.
FOREIGN = (
    "torch",
    "torch._dynamo",
    "torch.func",
    "torchvision",
    "scipy.optimize",
    "scipy.stats",
    "cvxpy",
    "clarabel",
    "flint",
    "sklearn",
)
FOREIGN += (
    "hypothesis",
    "pytest",
    "pydantic",
    "safetensors.torch",
    "rich.console",
    "cyclopts",
    "matplotlib.figure",
    "jinja2",
    "PIL.Image",
)
EXAMPLES = 15  # of Hypothesis; the suite takes 50, so that it notices what is noticed here, and may notice more
MEMORY = 8 * 2**30  # bytes a child may hold


def import_foreign() -> None:
    """Import what the children need."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in FOREIGN:
        importlib.import_module(name)


def plant(path: Path, number: int) -> None:
    """Make this process import ``path`` with its edit ``number``."""
    code = compiled(path, number)
    plain = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, name: str) -> CodeType | None:
        return code if self.path == str(path) else plain(self, name)

    SourceFileLoader.get_code = get_code  # ty: ignore


def run_tests(files: list[Path], *plugins: object) -> int:
    """Run the test ``files`` in this process with pytest, and return its exit status."""
    import pytest

    with tempfile.TemporaryDirectory() as folder:
        quick = ["-p", "no:cacheprovider", "-p", "no:xdist", "--assert", "plain", "--tb", "native"]
        ours = ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), "--basetemp", f"{folder}/tests"]
        return int(pytest.main([*quick, *ours, *map(str, files)], [Quick(), *plugins]))


class Quick:
    """A plugin of pytest: Hypothesis tries few examples, and looks for no smaller one once it has one that fails."""

    def pytest_collection(self) -> None:
        """Choose the profile, once conftest.py has made its own."""
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", settings.get_profile("ci"), phases=phases, max_examples=EXAMPLES)
        settings.load_profile("mutants")


def forked(work: Callable[[Callable[[], None]], Any], seconds: int | None = None) -> Any:
    """Return what ``work`` returns in a child, decoded JSON; a text that says why, where it returns nothing.

    The child is given up as "too slow" once it takes ``seconds`` of the processor, or ten times as long by the clock, in which it
    neither ends nor calls the function it is given.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _work(work, writing, seconds)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = b""
        while is_ready := select.select([pipe], [], [], seconds and 10 * seconds)[0]:
            piece = os.read(pipe.fileno(), 1 << 20)
            if not piece:
                break
            text += piece
    os.killpg(child, signal.SIGKILL)  # with whatever it started itself
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not is_ready or ended == -signal.SIGXCPU:
        return "too slow"
    return json.loads(text) if text.strip() else "crashed"


def _work(work: Callable[[Callable[[], None]], Any], writing: int, seconds: int | None) -> None:
    def alive() -> None:
        _write(writing, b" ")  # JSON after spaces is JSON
        if seconds:
            until = math.ceil(time.process_time()) + seconds
            resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))

    os.setpgid(0, 0)
    try:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        os.environ["PATH"] = (
            ""  # tests that need a C++ compiler find none, and skip themselves: they take a minute each
        )
        os.chdir(ROOT)
        sys.path[:0] = [str(ROOT)]
        alive()
        _write(writing, json.dumps(work(alive)).encode())
    except BaseException:
        _write(writing, json.dumps(f"crashed: {traceback.format_exc().splitlines()[-1]}").encode())
    finally:
        os._exit(0)


def _write(writing: int, text: bytes) -> None:
    while text:
        text = text[os.write(writing, text) :]
