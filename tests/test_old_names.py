"""Options that have a new name: both work for one version, the old one with a note, and only one may be given."""

from typing import Any

import pytest
from cyclopts import CycloptsError

from stabdeq.__main__ import build_app, main
from stabdeq.arguments import count_and_file
from stabdeq.errors import ConfigError

# (the command line up to the option, the parameter in Python, the new name, the old one, a value as text and as read)
RENAMED = [
    (("attack", "x"), "limit", "--images", "--limit", "5", (5,)),
    (("audit", "x"), "samples", "--images", "--samples", "5", (5,)),
    (("certify", "x"), "limit", "--images", "--limit", "5", (5,)),
    (("solvers", "x"), "limit", "--images", "--limit", "5", (5,)),
    (("robust-data", "x", "--out", "o"), "limit", "--images", "--limit", "5", 5),
    (("reproduce", "table1"), "limit", "--images", "--limit", "5", 5),
    (("reproduce", "table1"), "honest_limit", "--honest-images", "--honest-limit", "5", 5),
    (("check", "m:V", "--dim", "2"), "centre", "--centre", "--center", "-1,2", "-1,2"),
]


@pytest.mark.parametrize(("start", "parameter", "new", "old", "text", "value"), RENAMED)
def test_the_old_name_works_with_a_note(
    start: tuple[str, ...],
    parameter: str,
    new: str,
    old: str,
    text: str,
    value: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def parsed(*options: str) -> Any:
        _, bound, _ = build_app().parse_args([*start, *options], exit_on_error=False, print_error=False)
        return bound.arguments.get(parameter)

    assert parsed(new, text) == parsed(f"{new}={text}") == value
    assert capsys.readouterr() == ("", "")
    assert parsed(old, text) == value
    assert capsys.readouterr().err == f"stabdeq: {old} is now {new}\n"
    if isinstance(value, tuple):  # it may be given twice, to name a number and a file
        with pytest.raises(ConfigError, match="one number and one file"):
            count_and_file(parsed(new, text, old, text))
        return
    with pytest.raises(CycloptsError, match="specified multiple times"):
        parsed(new, text, old, text)


@pytest.mark.parametrize(("start", "parameter", "new", "old", "text", "value"), RENAMED[:-1])
@pytest.mark.parametrize("wrong", ["0", "1.5", "few"])
def test_a_count_is_a_whole_number_from_1_up(
    start: tuple[str, ...],
    parameter: str,
    new: str,
    old: str,
    text: str,
    value: object,
    wrong: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if isinstance(value, tuple) and wrong == "few":  # a path
        return
    for name in (new, old):
        with pytest.raises(SystemExit) as end:
            main([*start, name, wrong])
        assert end.value.code == 2
        *_, told = capsys.readouterr().err.splitlines()
        assert (
            f'"{wrong}" for {new}' in told
            or f'"{wrong}" is not a whole number' in told
            or f'"{wrong}" for {old}' in told
        )
