"""Curves of certified accuracy: what they say of a report, in its page and beside others."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from analysis.compare import compare_reports, render_comparison
from analysis.report import figures
from analysis.report.figures.certified import certified_curve
from analysis.report.page import render_html
from analysis.report.report import Report
from stabdeq.__main__ import main

CERTIFY = {
    "radii": {"labels": [0, 1, 2, 3], "predicted": [0, 1, 2, 0], "radius": [0.0, 0.5, 1.0, 9.0]},
    "linf": {
        "labels": [0, 1, 2, 3],
        "eps": {"0.1": 0.1, "2/255": 2 / 255},
        "certified": {"2/255": [True, True, False, False], "0.1": [True, False, False, False]},
    },
}
ROBUSTNESS = {"eps": [0.0, 2 / 255, 0.1], "accuracy": [0.75, 0.5, 0.25], "lower": [], "upper": [], "clean": 0.75}
FINDINGS = [{"check": name, "name": name, "claim": "It holds.", "verdict": "PROVED"} for name in ("radius", "linf")]


def plain(**series: Any) -> dict[str, Any]:
    return {"schema": 1, "subject": "a model", "findings": FINDINGS, "series": copy.deepcopy(series)}


def test_the_l2_curve_counts_images_that_are_right_with_at_least_the_radius() -> None:
    curve = certified_curve("it", CERTIFY, "l2")
    assert curve is not None
    share = dict(zip(curve.radii, curve.shares, strict=True))
    assert (curve.radii[0], curve.radii[-1]) == (0, 1)  # the radius of a wrong image does not count
    assert (share[0.0], share[0.5], share[0.505], share[1.0]) == (0.75, 0.5, 0.25, 0.25)
    assert curve.shares == sorted(curve.shares, reverse=True)


def test_the_linf_curve_has_its_eps_in_order() -> None:
    curve = certified_curve("it", CERTIFY, "linf")
    assert curve is not None
    assert curve.radii == pytest.approx([2, 25.5])
    assert curve.shares == [0.5, 0.25]


@pytest.mark.parametrize(
    "series",
    [
        {},
        {"radii": [], "linf": 3},
        {
            "radii": {"radius": [1.0], "labels": [], "predicted": []},
            "linf": {"eps": {}, "certified": {"2/255": [True]}},
        },
        {"radii": {"radius": "inf"}, "linf": {"eps": {"a": "x"}, "certified": {"a": [True]}}},
        {"radii": {"radius": []}, "linf": {"eps": {"a": 0.1}, "certified": {"a": "all"}}},
    ],
)
def test_what_holds_no_curve_gives_none(series: dict[str, Any]) -> None:
    assert certified_curve("it", series, "l2") is None
    assert certified_curve("it", series, "linf") is None


def test_what_is_not_finite_is_certified_nowhere_it_should_not() -> None:
    series = {"radii": {"labels": [0, 0], "predicted": [0, 0], "radius": ["nan", "inf"]}}
    curve = certified_curve("it", series, "l2")
    assert curve is not None
    assert set(curve.shares) == {0.5}


def test_a_certification_has_a_page_with_both_figures(tmp_path: Path) -> None:
    path = tmp_path / "certified.json"
    path.write_text(json.dumps(plain(certify=CERTIFY)))
    main(["report", str(path)])
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 2
    assert "certified 50 % at 2; certified 25 % at 25.5" in page
    assert "clean, 75 %" in page
    assert "<h2>certify</h2>" not in page


def test_a_page_says_which_curve_it_cannot_draw() -> None:
    damaged = copy.deepcopy(CERTIFY)
    damaged["radii"]["radius"] = "lost"
    page = render_html(Report.parse(plain(certify=damaged)))
    assert page.count("<figure>") == 1
    assert "“Certified accuracy in l2” is not drawn: the report holds no usable numbers for it." in page


def test_what_was_not_certified_is_no_gap() -> None:
    page = render_html(Report.parse(plain(certify={"affine_balls": {}})))
    assert "is not drawn" not in page
    assert "<figure>" not in page


def compared(*reports: dict[str, Any]) -> Any:
    return compare_reports([Report.parse(report) for report in reports], [str(place) for place in range(len(reports))])


def test_a_comparison_draws_all_models_and_an_attack_beside_them() -> None:
    other = copy.deepcopy(CERTIFY)
    other["linf"]["certified"]["0.1"] = [False] * 4
    comparison = compared(plain(certify=CERTIFY), plain(certify=other), plain(robustness=ROBUSTNESS))
    l2, linf = comparison.drawings
    assert {row[0] for row in l2.table.rows} == {"A certified", "B certified"}
    assert linf.table.rows == [
        ["A certified", pytest.approx(2), 0.5],
        ["A certified", pytest.approx(25.5), 0.25],
        ["B certified", pytest.approx(2), 0.5],
        ["B certified", pytest.approx(25.5), 0.0],
        ["C under PGD", 0.0, 0.75],
        ["C under PGD", pytest.approx(2), 0.5],
        ["C under PGD", pytest.approx(25.5), 0.25],
    ]
    assert "a stronger one may lower" in linf.caption
    assert "PGD" not in l2.caption
    page = render_comparison(comparison)
    assert page.count("<figure>") == 2
    assert 'href="#certified"' in page


def test_a_comparison_without_certificates_has_no_such_section() -> None:
    comparison = compared(plain(robustness=ROBUSTNESS), plain())
    assert (comparison.drawings, comparison.missing) == ([], [])
    assert 'id="certified"' not in render_comparison(comparison)


def test_too_many_curves_are_said_and_not_drawn() -> None:
    comparison = compared(*[plain(certify=CERTIFY)] * 21)
    assert comparison.drawings == []
    assert len(comparison.missing) == 2
    assert "21 are too many curves to draw" in render_comparison(comparison)


def test_ten_thousand_radii_make_no_large_figure() -> None:
    count = 10_000
    series = {
        "radii": {"labels": [0] * count, "predicted": [0] * count, "radius": [math.sin(k) + 1 for k in range(count)]}
    }
    (drawn,), missing = figures.draw("radius", series)
    assert not missing
    assert len(drawn.svg) < 50_000
    assert 15 <= len(drawn.table.rows) <= 25
