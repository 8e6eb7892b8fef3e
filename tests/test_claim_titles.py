"""Claims in a few words: each of ours has such a title, no two of one report the same, and the page lists them."""

import pytest
from sample_report import Page, page_of

from analysis.findings.catalogue import rows
from analysis.findings.rows import CERTIFIED, OF_A_FUNCTION
from analysis.report.header import MOST_NAMED, which
from analysis.report.report import Report

AUDITED = [row for check in rows() for row in check.claims]


@pytest.mark.parametrize("claims", [AUDITED, CERTIFIED, OF_A_FUNCTION], ids=["audit", "certify", "check"])
def test_every_claim_has_a_title_of_its_own_that_is_short_and_no_key(claims):
    titles = [row.title for row in claims]
    assert len(set(titles)) == len(titles)
    for title in titles:
        assert 1 < len(title.split()) <= 9, title
        assert "_" not in title


def head_of(*findings):
    """Return what a reader sees before the first claim of a report of ``findings``, each (check, name, claim, verdict)."""
    keys = ("check", "name", "claim", "verdict")
    html = page_of({"findings": [dict(zip(keys, finding, strict=True)) for finding in findings]})
    return " ".join(Page(html.split("<header")[1].split("</header>")[0].partition(">")[2]).text)


def test_that_the_cell_has_one_equilibrium_and_that_the_stabilised_model_has_are_told_apart():
    sentence = "Where the cell has an equilibrium z*, that is the only one of the stabilised field."
    alone = head_of(("equilibrium", "unique", "Where the cell has one, it is its only one.", "SUPPORTED"))
    stabilised = head_of(("equilibrium", "unique", sentence, "PROVED"))
    assert "the cell alone has one equilibrium only" in alone
    assert "the stabilised model has one equilibrium only" in stabilised


def test_of_many_claims_the_page_lists_some_and_says_how_many_more():
    found = [{"check": "<b>", "name": f"claim_{number}", "verdict": "PROVED"} for number in range(MOST_NAMED + 3)]
    listed = which(Report.parse({"findings": found}))["PROVED"]
    assert listed[0] == "<b>: claim 0"
    assert listed[MOST_NAMED:] == ["3 more"]
    assert "<b>" not in page_of({"findings": found})
