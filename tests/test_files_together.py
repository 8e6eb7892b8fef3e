"""Files that belong together, a report and its page among them, are of one run, wherever the program is killed."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sample_report import sample_report

from analysis.report.report import Report
from stabdeq.files import replace_files

NAMES = ("report.json", "report.html", "junit.xml", "summary.md")
KILLED = range(12)  # more than all calls that touch a file


class Killed(BaseException):
    """Stands for the end of the program: nothing after it is done."""


def kill_at(call: int, patch: pytest.MonkeyPatch) -> None:
    """Let the ``call``-th of what changes a folder not happen, nor any after it."""
    calls = iter(range(10**6))

    def or_killed(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if next(calls) >= call:
                raise Killed
            return function(*arguments, **options)

        return run

    for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink")):
        patch.setattr(owner, name, or_killed(getattr(owner, name)))


def standing(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).exists()}


@pytest.mark.parametrize("call", KILLED)
def test_no_kill_leaves_files_of_two_calls(call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_files({tmp_path / name: b"old" for name in NAMES})
    with monkeypatch.context() as patch:
        kill_at(call, patch)
        try:
            replace_files({tmp_path / name: b"new" for name in NAMES})
            done = True
        except Killed:
            done = False
    found = standing(tmp_path)
    assert len(set(found.values())) == 1
    assert "report.json" in found
    assert not done or found == dict.fromkeys(NAMES, b"new")
    assert call > 0 or found == dict.fromkeys(NAMES, b"old")


def save(folder: Path, **changes: Any) -> None:
    report = Report.parse(sample_report() | {"series": {}} | changes)
    report.save(folder, junit=folder / "junit.xml", markdown=folder / "summary.md")


@pytest.mark.parametrize("call", KILLED)
def test_no_kill_leaves_a_report_beside_the_page_of_another(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, subject="the first model")
    with monkeypatch.context() as patch:
        kill_at(call, patch)
        with suppress(Killed):
            save(tmp_path, subject="the second model")
    found = standing(tmp_path).values()
    assert all(b"the first model" in one for one in found) or all(b"the second model" in one for one in found)


def test_what_cannot_be_drawn_or_written_leaves_the_old_files(tmp_path: Path) -> None:
    save(tmp_path)
    before = standing(tmp_path)
    with pytest.raises(TypeError):
        Report(series={"decay": {"path": tmp_path}}).save(tmp_path)
    assert standing(tmp_path) == before
