"""The faults that ``make mutants`` plants: what they are, that each compiles, and that the table of subjects is true."""

import ast
import json
from collections.abc import Callable

import pytest

from tools.mutants import __main__
from tools.mutants.__main__ import _drawn, summary
from tools.mutants.edits import edits
from tools.mutants.page import by_reason, by_subject
from tools.mutants.subjects import ROOT, SUBJECTS
from tools.mutants.trial import forked

SOURCE = '''
"""Words."""
LIMIT: int = 3

def f(x: int | None, y=0.5, *, low=1):
    """More words."""
    if x is None:
        raise ValueError("1 < 2")
    for i in range(x):
        x += i
        if i < 2 and not x:
            continue
        g(low=x)
    assert x > 0, "words"
    return -x if x.any() else (x - 1) * y
'''


def test_every_kind_of_edit() -> None:
    found = [str(edit).split(": ", 1)[1] for edit in edits(ast.parse(SOURCE))]
    for expected in (
        "3 -> 4",
        "3 -> 2",
        "0.5 -> 1.0",
        "x is None -> x is not None",
        "if x is None: -> if True:",
        "raise ValueError('1 < 2') -> pass",
        "x += i -> pass",
        "i < 2 -> i >= 2",
        "i < 2 and (not x) -> i < 2 or not x",
        "not x -> x",
        "continue -> break",
        "g(low=x) -> pass",
        "g(low=x) -> g(high=x)",
        "x.any -> x.all",
        "-x -> x",
        "-x if x.any() else (x - 1) * y -> (x - 1) * y if x.any() else -x",
        "(x - 1) * y -> (x - 1) / y",
        "x - 1 -> x + 1",
        "return -x if x.any() else (x - 1) * y -> return None",
    ):
        assert expected in found
    # Neither words, nor types, nor what an assertion or an error says.
    assert not any("words" in words or "int | None" in words or "x > 0" in words for words in found)


def test_each_edit_changes_the_file_and_compiles() -> None:
    for number, planted in enumerate(edits(ast.parse(SOURCE))):
        tree = ast.parse(SOURCE)
        edits(tree)[number].make()
        assert ast.dump(tree) != ast.dump(ast.parse(SOURCE)), planted
        compile(tree, "f.py", "exec")
        assert planted.old.lineno in planted.lines


def test_the_draw_is_repeatable_and_takes_from_all_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    few_subjects = {name: SUBJECTS[name] for name in ("projection", "lyapunov")}
    monkeypatch.setattr(__main__, "SUBJECTS", few_subjects)
    few, more = _drawn(4, seed=3), _drawn(8, seed=3)
    assert [str(mutant) for mutant in few] == [str(mutant) for mutant in more[: len(few)]]
    assert [mutant.subject for mutant in few] == 2 * list(few_subjects)
    assert [str(mutant) for mutant in few] != [str(mutant) for mutant in _drawn(4, seed=4)]


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_table_names_files_that_exist(name: str) -> None:
    assert SUBJECTS[name].sources()
    assert all(path.is_file() for path in SUBJECTS[name].test_files())


def test_a_child_answers_crashes_or_takes_too_long() -> None:
    def refuse(alive: Callable[[], None]) -> None:
        raise ValueError("no")

    def hang(alive: Callable[[], None]) -> None:
        while True:
            pass

    assert forked(lambda alive: [1, None], 60) == [1, None]
    assert forked(refuse, 60) == "crashed: ValueError: no"
    assert forked(hang, 1) == "too slow"


def test_the_summary_counts_and_names_survivors() -> None:
    results = [
        {"subject": "a", "killed_by": "tests/x.py::test", "shown_to": 3, "mutant": "f.py:1: 1 -> 2"},
        {"subject": "a", "killed_by": None, "shown_to": 3, "mutant": "f.py:2: 1 -> 2"},
        {"subject": "b", "killed_by": None, "shown_to": 0, "mutant": "g.py:3: 1 -> 2"},
    ]
    text = summary(results)
    assert "1 of 3 killed (33.3%)" in text
    assert "1 of 2 killed (50%): a" in text
    assert "survived: f.py:2: 1 -> 2" in text
    assert "survived, no test runs it: g.py:3: 1 -> 2" in text


def test_the_page_says_what_was_found() -> None:
    docs = ROOT / "docs"
    found = json.loads((docs / "mutants.json").read_text(encoding="utf-8"))
    page = (docs / "reliability.md").read_text(encoding="utf-8")
    assert by_subject(found) in page
    assert by_reason(found) in page
    assert f"{sum(one['tried'] for one in found['subjects'].values())} were tried" in page
    left = sum(one["tried"] - one["killed"] for one in found["subjects"].values())
    assert sum(map(len, found["survivors"].values())) == left
