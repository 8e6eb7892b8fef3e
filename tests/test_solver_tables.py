"""A comparison of solvers from Python: what ``print`` and a notebook show is what the command prints."""

import pytest
import torch
from sample_report import Page
from test_audit import ForeignModel, images

import stabdeq
from analysis.report.solvers import as_html, as_text
from analysis.solver_comparison import Comparison, summarise
from stabdeq.solvers import Picard

HOSTILE = "<b>mine</b>"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    model = ForeignModel(lambda z, h: torch.cos(z) + h, (3,))
    return stabdeq.compare_solvers(model, {HOSTILE: Picard(mixing=0.01)}, *images(2), evaluations=12)


def test_print_and_a_notebook_show_the_same_cells(comparison: Comparison) -> None:
    assert comparison.title == "ForeignModel, 2 images"
    assert repr(comparison) == "<Comparison of 6 solvers on ForeignModel, 2 images>"
    text, html = str(comparison), comparison._repr_html_()
    assert text.startswith("ForeignModel, 2 images: n = ")
    assert "<b>" not in html
    page = Page(html)
    assert page.tags.count("table") == 2
    assert page.tags.count("tr") == 2 * (1 + len(comparison.records))
    (printed,) = (line.split() for line in text.splitlines() if line.startswith("picard") and "%" in line)
    shown = " ".join(" ".join(page.text).split())
    assert " ".join(printed) in shown
    assert "ran out of evaluations at 1e-9" in text
    assert "ran out of evaluations at 1e-9" in shown


def test_what_a_checkpoint_is_stands_above_the_tables(comparison: Comparison) -> None:
    given = {"kind": "deq", "data": {"name": "digits"}}
    named = Comparison(**vars(comparison) | {"checkpoint": given})
    assert named.title == "deq on digits, 2 images"
    assert str(named) == as_text(summarise(comparison), named.title)
    assert named._repr_html_() == as_html(summarise(comparison), named.title)


def test_times_of_seconds_are_whole_numbers_that_no_narrow_terminal_cuts(comparison: Comparison) -> None:
    summary = summarise(comparison)
    for record in summary["solvers"].values():
        for run in record["tolerances"]:
            run["seconds"] = 12.3456
    text = as_text(summary, "slow")
    assert "…" not in text
    assert ">12346" in text
