"""Shares in percent: no text says 100 of less than all, or 0 of more than none, and all texts are made in one place."""

import re
from pathlib import Path

import pytest

from analysis.report.page import _rounds_to
from analysis.report.quantities import quantity
from analysis.reproduce.table import Cell
from stabdeq.percent import percent, percent_in_digits

ROOT = Path(__file__).parents[1]
# Of the rest, upper bounds of rates may be 100, and ticks of an axis and a constant are what they are.
_BY_HAND = re.compile(r":[^{}:]*\.\d%\}|\{100(?:\.0)? \* (?!bound:|value:|RESOLVED:)[^{}]*\} ?%")


@pytest.mark.parametrize("count", [3, 300, 26032, 10**9])
@pytest.mark.parametrize("digits", [0, 1, 2, 3])
def test_less_than_all_is_not_100_and_more_than_none_is_not_0(count: int, digits: int) -> None:
    for said in (lambda share: percent(share, digits), lambda share: percent_in_digits(share, digits + 2)):
        none, one, most, every = (float(said(right / count).rstrip(" %").strip()) for right in (0, 1, count - 1, count))
        assert none == 0 < one < 100
        assert 0 < most < every == 100


def test_what_is_neither_is_rounded() -> None:
    assert [percent(0.12345, digits) for digits in (0, 1, 2)] == ["12%", "12.3%", "12.35%"]
    assert [percent_in_digits(0.12345, digits) for digits in (2, 3, 4)] == ["12 %", "12.3 %", "12.35 %"]
    assert percent(float("nan")) == "nan%"


def test_tables_of_reproduced_accuracies_and_numbers_of_pages_keep_to_it() -> None:
    assert Cell(values=(100.0, 99.993), asked=2).text() == "99.99±0.00"
    assert Cell(values=(100.0,)).text() == "100.00"
    assert (quantity(0.99996), quantity(1.0)) == ("0.9999", "1")
    assert _rounds_to(0.99996, "99.99", "%")  # so that the page does not say it twice
    assert not _rounds_to(0.99, "99.99", "%")


def test_no_other_place_makes_them() -> None:
    assert _BY_HAND.search('f"{share:.2%}"')
    assert _BY_HAND.search('f"{accuracy:>12.2%}"')
    assert _BY_HAND.search('f"{100 * clean:.3g} %"')
    files = [
        file for folder in ("stabdeq", "analysis", "train", "benchmarks") for file in (ROOT / folder).rglob("*.py")
    ]
    assert len(files) > 200
    made = {file.name: _BY_HAND.findall(file.read_text(encoding="utf-8")) for file in files}
    assert {name: found for name, found in made.items() if found} == {}
