"""A comparison names its rows in words: claims by their titles, with the names that commands take below, and numbers by what they are."""

from sample_report import Page
from test_compare import compared, finding, printed, report_of

from analysis.compare import render_comparison

FLOW, UNIQUE = "V falls as promised along whole trajectories", "the cell alone has one equilibrium only"
STABILISED = "the stabilised model has one equilibrium only"


def unique(claim: str, verdict: str) -> dict[str, object]:
    return finding("equilibrium", "unique", verdict) | {"claim": claim}


def test_a_row_begins_with_the_claim_in_a_few_words() -> None:
    comparison = compared(report_of("a", finding("decay", "flow", "PROVED"), finding("mine", "own", "PROVED")))
    assert [row.title for row in comparison.claims] == [FLOW, "mine: own"]
    page = " ".join(Page(render_comparison(comparison)).text)
    for text in (page, printed(comparison, 100), printed(comparison, 60)):
        assert text.index("falls as promised") < text.index("decay.flow") < text.index("mine: own")


def test_a_claim_that_is_another_in_another_report_is_told_by_both_titles() -> None:
    stabilised = unique("That is the only one of the stabilised field.", "PROVED")
    comparison = compared(report_of("a", unique("One.", "PROVED")), report_of("b", stabilised), report_of("c"))
    assert [row.title for row in comparison.claims] == [f"{UNIQUE} / {STABILISED}"]


def test_numbers_are_told_by_what_they_are() -> None:
    measured = [
        {"check": check, "name": name, "value": 0.5, "text": "So it is."}
        for check, name in (("convergence", "picard"), ("spectrum", "numerical abscissa"), ("mine", "a number"))
    ]
    comparison = compared(report_of("a") | {"measurements": measured})
    titles = [row.title for group in comparison.groups for row in group.measured]
    assert sorted(titles) == [
        "a number",
        "largest eigenvalue of the symmetric part of J - I",
        "share of images on which picard arrives",
    ]
    assert "share of images on which picard arrives" in " ".join(printed(comparison, 100).split())
