"""A run of tests in a forked child, with a fault planted in memory: the files stay as they are.

mutmut and cosmic-ray start a new interpreter for each mutant, which here spends most of its time importing torch; a child forked from
a process that has imported torch and all else that is not ours starts at once.
"""

import ast
import importlib
import json
import os
import resource
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from tools.mutants.edits import edits
from tools.mutants.subjects import ROOT

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
    tree = ast.parse(path.read_text())
    edits(tree)[number].make()
    code = compile(tree, str(path), "exec")
    plain = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, name: str) -> CodeType | None:
        return code if self.path == str(path) else plain(self, name)

    SourceFileLoader.get_code = get_code  # ty: ignore


def run_tests(files: list[Path], *plugins: object, stop: bool) -> int:
    """Run the test ``files`` in this process with pytest, and return its exit status."""
    import pytest

    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--rootdir",
            str(ROOT),
            "-c",
            str(ROOT / "pyproject.toml"),
        ]
        arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # Hypothesis, which was imported before
        arguments += ["--basetemp", f"{folder}/tests", *(["-x"] if stop else []), *map(str, files)]
        return int(pytest.main(arguments, [Quick(), *plugins]))


class Quick:
    """A plugin of pytest: Hypothesis tries few examples, and looks for no smaller one once it has one that fails."""

    def pytest_collection(self) -> None:
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", settings.get_profile("ci"), phases=phases, max_examples=EXAMPLES)
        settings.load_profile("mutants")


def forked(work: Callable[[], Any], seconds: float) -> Any:
    """Return what ``work`` returns in a child, decoded JSON; "too slow" or "crashed" where it returns nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _work(work, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            text = b""
            while select.select([pipe], [], [], seconds)[0]:
                piece = os.read(pipe.fileno(), 1 << 20)
                if not piece:
                    return json.loads(text) if text else "crashed"
                text += piece
            return "too slow"
    finally:
        os.killpg(child, signal.SIGKILL)  # with whatever it started itself
        os.waitpid(child, 0)


def _work(work: Callable[[], Any], writing: int) -> None:
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
        _write(writing, work())
    except BaseException:
        _write(writing, f"crashed: {traceback.format_exc().splitlines()[-1]}")
    finally:
        os._exit(0)


def _write(writing: int, answer: object) -> None:
    text = json.dumps(answer).encode()
    while text:
        text = text[os.write(writing, text) :]
