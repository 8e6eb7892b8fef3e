"""The soak finds a reader that breaks its promise, finds none among ours, and its page says what it found."""

import json
from pathlib import Path

import pytest

from tools.soak import mutate
from tools.soak.page import table

DOCS = Path(__file__).parents[1] / "docs"


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    found = mutate.soak(tmp_path, 180, seed=1)
    assert not found["faults"]
    assert {counts["tries"] for counts in found["kinds"].values()} == {20}
    assert sum(counts["refused"] for counts in found["kinds"].values()) > 100


def test_a_reader_that_breaks_its_promise_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutate, "originals", lambda folder: {"recipes": b"a = 1\n" * 20})
    monkeypatch.setattr(mutate, "READERS", {"recipes": (".toml", lambda path: {}[path])})
    (fault,) = mutate.soak(tmp_path, 1, seed=0)["faults"]
    assert fault["error"].startswith("KeyError")
    assert (tmp_path / fault["file"]).is_file()


def test_the_page_says_what_was_found() -> None:
    found = json.loads((DOCS / "reliability.json").read_text(encoding="utf-8"))
    assert table(found) in (DOCS / "reliability.md").read_text(encoding="utf-8")
