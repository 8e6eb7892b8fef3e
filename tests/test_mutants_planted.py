"""How the faults of ``make mutants`` are planted into functions that are imported already, and which tests they are shown to."""

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tools.mutants import swap as swapping
from tools.mutants.edits import edits
from tools.mutants.lines import Followed, Lines
from tools.mutants.subjects import ROOT
from tools.mutants.swap import swap

SOURCE = """
LIMIT = 3

def add(a, b):
    return a + b

def later(a):
    return lambda: a + 5

pair = [lambda: 7, lambda: 8]

class Kept:
    @property
    def value(self):
        return 9
"""


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, ModuleType]:
    path = tmp_path / "planted_here.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("planted_here", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    swapping.functions.cache_clear()
    return path, module


def number(edit: str) -> int:
    found = [str(one).split(": ", 1)[1] for one in edits(ast.parse(SOURCE))]
    return found.index(edit)


def test_functions_closures_and_methods_take_a_fault(source: tuple[Path, ModuleType]) -> None:
    path, module = source
    kept = module.Kept()
    assert swap(path, number("a + b -> a - b"))
    assert module.add(5, 3) == 2
    assert swap(path, number("5 -> 6"))
    assert module.later(1)() == 7
    assert swap(path, number("9 -> 10"))
    assert kept.value == 10


@pytest.mark.parametrize("edit", ["3 -> 4", "7 -> 8"])
def test_what_runs_at_import_and_lambdas_of_one_line_do_not(source: tuple[Path, ModuleType], edit: str) -> None:
    assert not swap(source[0], number(edit))


def test_a_fault_is_shown_to_the_tests_that_run_its_line_the_quickest_first() -> None:
    tests = {
        "t.py::slow": {"seconds": 2.0, "preparing": 0.0, "lines": {"f.py": [3, 4]}},
        "t.py::quick": {"seconds": 1.0, "preparing": 0.0, "lines": {"f.py": [3]}},
        "t.py::other": {"seconds": 1.5, "preparing": 0.0, "lines": {"g.py": [3]}},
        "t.py::third": {"seconds": 2.5, "preparing": 0.0, "lines": {"f.py": [3]}},
    }
    followed = Followed({"f.py": [1]}, tests)
    assert followed.wanted(ROOT / "f.py", range(3, 4), enough=4) == [
        "t.py::quick",
        "t.py::slow",
    ]  # and 5 seconds are enough
    assert followed.wanted(ROOT / "f.py", range(4, 9), enough=4) == ["t.py::slow"]
    assert followed.wanted(ROOT / "f.py", range(9, 10), enough=4) == []
    assert followed.among(["u.py"]).wanted(ROOT / "f.py", range(3, 4), enough=4) == []
    assert followed.among(["t.py"]) == followed
    assert followed.wanted(ROOT / "f.py", range(1, 2), enough=4) == [
        "t.py::quick",
        "t.py::slow",
    ]  # of the import's file


def test_what_is_prepared_for_a_file_counts_once() -> None:
    tests = {
        "t.py::first": {"seconds": 0.1, "preparing": 2.0, "lines": {"f.py": [3]}},
        "t.py::second": {"seconds": 0.1, "preparing": 2.0, "lines": {"f.py": [3]}},
        "u.py::alone": {"seconds": 1.0, "preparing": 0.0, "lines": {"f.py": [3]}},
    }
    followed = Followed({}, tests)
    assert followed.wanted(ROOT / "f.py", [3], enough=2) == ["u.py::alone"]
    assert followed.wanted(ROOT / "f.py", [3], enough=4) == ["u.py::alone", "t.py::first", "t.py::second"]


def test_the_lines_that_run_are_followed_and_tracing_is_left_as_it_was() -> None:
    path = Path(swapping.__file__)
    lines, before = Lines([path], 1), sys.gettrace()
    ran: dict[str, set[int]] = {str(path.relative_to(ROOT)): set()}
    with lines.following(ran):
        swapping.compiled(path, 0)
    first = swapping.compiled.__code__.co_firstlineno
    (numbers,) = ran.values()
    assert {first + 2, first + 3, first + 4} <= numbers <= {first, first + 2, first + 3, first + 4}
    assert sys.gettrace() is before
