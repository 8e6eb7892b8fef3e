"""SECURITY.md promises the limits that the code has, and names what is there."""

import re
from importlib import import_module
from typing import Any

import pytest
from command_runs import REPOSITORY

from stabdeq.checkpoint_metadata import MOST

PAGE = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+) \| (\d+) \| `([\w.]+):(\w+)(?:\[(\w+)\])?` \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("what", "limit", "module", "name", "key"), ROWS, ids=[row[0] for row in ROWS])
def test_a_limit_is_that_of_the_code(what: str, limit: str, module: str, name: str, key: str) -> None:
    value: Any = getattr(import_module(module), name)
    assert int(limit) == (value[key] if key else value), what


def test_all_limits_of_a_checkpoint_are_on_the_page() -> None:
    assert {key for *_, key in ROWS if key} == set(MOST)
    assert len(ROWS) == PAGE.count("` | - |") + len(MOST)


def test_what_the_page_names_is_there() -> None:
    for path in re.findall(r"`(\w+(?:/\w+)*\.py)`", PAGE):
        assert (REPOSITORY / path).is_file(), path
