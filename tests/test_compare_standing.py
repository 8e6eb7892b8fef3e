"""What differs comes first, and a changed verdict, a claim that a model does not make, and one not judged are told apart."""

from test_compare import compared, finding, printed, report_of, three

from analysis.compare import Gap, Standing, render_comparison

ALIKE, OTHER, MISSING = finding("equilibrium", "exists", "PROVED"), "PROVED", finding("spectrum", "stable", "PROVED")


def pair() -> list[dict[str, object]]:
    """Two reports that have one claim alike, one with another verdict, one of another rate, and one that the second does not make."""
    rates = [finding("decay", "raw", "PROVED", claim=f"V-dot <= -{rate} V.") for rate in (0.1, 0.5)]
    first = report_of("a", ALIKE, finding("decay", "flow", OTHER), rates[0], MISSING)
    return [first, report_of("b", ALIKE, finding("decay", "flow", "REFUTED"), rates[1], exit_code=1)]


def test_what_differs_stands_before_what_is_missing_and_what_is_alike() -> None:
    comparison = compared(*pair())
    names = {
        word: [row.name for group in groups for row in group.rows(word)]
        for word, groups in comparison.standings.items()
    }
    assert list(names.items()) == [
        (Standing.DIFFERS, ["decay.flow"]),
        (Standing.OTHERWISE, ["decay.raw"]),
        (Standing.MISSING, ["spectrum.stable"]),
        (Standing.ALIKE, ["equilibrium.exists"]),
    ]
    page = render_comparison(comparison)
    for text in (page, printed(comparison, 100), printed(comparison, 45)):
        places = [text.index(word) for word in Standing]
        assert places == sorted(places)
        assert (
            text.index("decay.flow")
            < text.index("decay.raw")
            < text.index("spectrum.stable")
            < text.index("equilibrium.exists")
        )
    said = "1 of 4 claims end differently. 1 says something else. 1 is not in every report: 1 not claimed."
    assert page.index(said) < page.index("<nav")
    assert said in " ".join(printed(comparison, 100).split())


def test_reports_that_agree_have_one_part() -> None:
    comparison = compared(pair()[0], pair()[0])
    assert list(comparison.standings) == [Standing.ALIKE]
    assert "Verdicts that differ" not in render_comparison(comparison)
    assert "0 of 4 claims end differently.\n" in printed(comparison, 100)


def test_why_a_claim_is_missing_is_told_in_words_and_in_symbols() -> None:
    comparison = compared(*three(), report_of("b", ALIKE))
    flow = next(row for row in comparison.claims if row.name == "decay.flow")
    assert flow.cells[2:] == [Gap.SKIPPED, Gap.NOT_CHECKED]
    assert not flow.is_unclaimed
    assert comparison.skipped == ["C skipped decay: no V"]
    assert "C skipped decay: no V" in render_comparison(comparison)
    narrow = printed(comparison, 60)
    marks = [line.split()[-4:] for line in narrow.splitlines() if line.startswith(("V falls", "every audited"))]
    assert marks == [["-", "-", "-", "✓"], ["◐", "◐", ".", "."]]
    assert "- not claimed . not judged" in " ".join(narrow.split())
    assert "C skipped decay: no V" in narrow


def test_a_check_that_could_not_be_made_is_not_one_without_claims() -> None:
    reason = "no equilibrium was found"
    left_open = report_of(
        "b", finding("decay", "not judged", "INCONCLUSIVE"), skipped=[{"check": "decay", "reason": reason}], exit_code=3
    )
    comparison = compared(report_of("a", finding("decay", "flow", "PROVED")), left_open)
    cells = {row.name: [cell for cell in row.cells if isinstance(cell, Gap)] for row in comparison.claims}
    assert cells == {"decay.flow": [Gap.SKIPPED], "decay.not judged": [Gap.JUDGED]}
    assert comparison.sentence == "0 of 2 claims end differently. 2 are not in every report: 2 not judged."
