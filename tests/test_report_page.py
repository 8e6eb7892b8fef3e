"""The page of a report: whole in any browser, and honest about what it lacks."""

import copy
import json
import math
import os
import re

import pytest
from sample_report import EXPECTED_KEYS, Page, finding, page_of, printed

from analysis.findings.values import mapping
from analysis.report import figures
from analysis.report.formulas import typeset
from analysis.report.page import write_report
from analysis.report.report import Report
from stabdeq.errors import FileError

HOSTILE = '</td></svg><script>alert(1)</script><img src=x onerror="alert(2)">&amp;{{ 7*7 }}\'\x1b[31m\u202e$\\frac$'


def hostile(value, *, free_keys=False):
    """Return ``value`` with every text in it an attack, and so every key that a checkpoint or a check may choose."""
    if isinstance(value, dict):
        return {
            key + HOSTILE * free_keys: hostile(item, free_keys=key in ("witness", "model", "environment", "solvers"))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_page_is_well_formed_and_self_contained(report):
    html = page_of(report)
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    local = [reference for reference in page.references if reference.startswith("#")]
    assert set(page.references) - set(local) == {
        ref for ref in page.references if ref.startswith("data:image/png;base64,")
    }
    assert {reference[1:] for reference in local} <= set(page.ids)
    assert "script" not in page.tags
    assert "http" not in html.replace('http-equiv="Content-Security-Policy"', "")
    assert not re.search(r"@import|url\((?!#)|src=[\"']?//", html)
    assert len(html) < 1_000_000


def test_a_second_page_compiles_no_template(monkeypatch):
    page_of({})
    monkeypatch.setattr("jinja2.Environment.compile", lambda *_: pytest.fail("compiled again"))
    page_of({})


def test_page_shows_every_verdict_figure_and_witness(report):
    html = page_of(report)
    text = " ".join(Page(html).text)
    for item in report["findings"]:
        assert typeset(item["claim"]) in html
        assert typeset(item["evidence"]) in html
    for words in (
        "One claim is refuted",
        "lyadeq-anchored on digits",
        "1204",
        "not among the checks asked for",
    ):
        assert words in text
    assert "Exit code" not in text
    drawings = sum(len(figures.draw(check, series)[0]) for check, series in report["series"].items())
    assert html.count("<figure>") == html.count("<figcaption>") == drawings >= 7
    assert html.count('role="img" aria-label="') == drawings + 1  # the witness's state
    assert "64 values, Euclidean norm" in text


def test_the_accuracy_is_drawn_from_eps_0_on(report):
    (drawn,), missing = figures.draw("robustness", report["series"]["robustness"])
    assert not missing
    assert drawn.table.rows[0][:2] == [0.0, 0.97]
    assert drawn.table.rows[2][:2] == [8.0, 0.6]
    assert "97 % at 0; 97 % at 0.0625; 60 % at 8; 0 % at 255" in drawn.alternative
    for words in ("100 %", "clean, 97 %", "worst of all attacks, 55 %"):
        assert words in drawn.svg


def test_figures_follow_the_colour_scheme_of_the_page(report):
    drawings, missing = figures.draw("convergence", report["series"]["convergence"])
    assert not missing
    assert "var(--series-1)" in drawings[0].svg
    assert "#0101" not in drawings[0].svg
    assert [row[0] for row in drawings[0].table.rows] == ["anderson"] * 40 + ["broyden"] * 40 + ["picard"] * 40


def test_files_are_strict_json_and_the_page_drawn_from_it(report, tmp_path):
    report["findings"][0]["margin"] = math.nan
    report["findings"][1]["witness"] = {"state": (math.inf, -math.inf, 1.0), "name": "\ud800 é"}
    json_path, html_path = write_report(Report.parse(report), tmp_path / "new" / "run")
    text = json_path.read_text(encoding="utf-8")
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read["findings"][0]["margin"] == "nan"
    assert read["findings"][1]["witness"] == {"state": ["inf", "-inf", 1.0], "name": "\ud800 é"}
    html = html_path.read_text(encoding="utf-8")
    assert html == page_of(read)
    assert "NaN" in html
    assert "[infinite, −infinite, 1]" in html


def test_a_failed_write_leaves_the_old_report_whole(report, tmp_path, monkeypatch):
    write_report(Report.parse(report), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"report.json", "report.html"}

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match=r"report\.json could not be written \(disk full\): make room"):
        write_report(Report.parse(report | {"findings": []}), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_json_cannot_hold_is_refused_before_anything_is_written(report, tmp_path):
    report["findings"][0]["witness"] = {"state": object()}
    with pytest.raises(TypeError):
        write_report(Report.parse(report), tmp_path)
    assert not list(tmp_path.iterdir())


def test_hostile_text_stays_text(report):
    html = page_of(hostile(report))
    page = Page(html)
    assert not {"script", "img"} & set(page.tags)
    assert html.count("<figure>") >= 7
    assert "{{ 7*7 }}" in html.split("<h1>")[1].split("</h1>")[0]
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "<script>alert(1)</script>" in "".join(page.text)
    output = printed(hostile(report), 100, force_terminal=True, color_system=None)
    assert "\x1b[31m" not in output
    assert "\u202e" not in output


@pytest.mark.parametrize("key", EXPECTED_KEYS)
def test_a_missing_key_is_said(report, key):
    report["series"] = {}
    del report[key]
    said = Report.parse(report).gaps
    assert any("no schema number" in gap or key in gap for gap in said)
    html = page_of(report)
    Page(html)
    assert 'class="gap"' in html
    assert "Gaps in the report" in printed(report, 80)


@pytest.mark.parametrize("check", ["convergence", "spectrum", "decay", "separation", "robustness"])
@pytest.mark.parametrize(
    "series",
    [None, {}, [], {"solvers": {"a": {"median": ["nan"]}}, "flow": {"times": [1]}, "before": [[1, 2]]}],
)
def test_a_missing_series_is_said(report, check, series):
    report["series"] = {check: series}
    drawings, missing = figures.draw(check, mapping(series))
    assert drawings == []
    html = page_of(report)
    Page(html)
    assert missing
    assert all(sentence in html for sentence in missing)


@pytest.mark.parametrize("value", [None, 3, "text", [], [1, "a", None], {"a": [1]}])
@pytest.mark.parametrize("key", EXPECTED_KEYS)
def test_values_of_the_wrong_type_are_drawn_around(report, key, value):
    report["series"] = {}
    report[key] = value
    Page(page_of(report))
    printed(report, 80)


def test_an_empty_report_is_drawn():
    Page(page_of({}))
    assert "No claim was judged" in printed({}, 80)


def test_an_unknown_schema_is_said_and_drawn(report):
    html = page_of(report | {"schema": 7})
    assert "Expected a report of schema 1, found schema 7" in html
    assert report["findings"][0]["claim"] in html


def test_an_exit_code_at_odds_with_the_findings_is_said(report):
    assert Report.parse(report).gaps == ()
    assert Report.parse(report | {"exit_code": 0}).gaps == ("The report's exit code is 0, but its findings ask for 1.",)


def test_an_unknown_verdict_is_never_counted_as_good(report):
    report["findings"] = [finding("decay", "x", "A claim.", "CERTAINLY", 1.0, "Because.")]
    assert Report.parse(report).counts == {
        "PROVED": 0,
        "SUPPORTED": 0,
        "UNKNOWN": 1,
        "INCONCLUSIVE": 0,
        "REFUTED": 0,
    }
    assert Report.parse(report).verdict == "INCONCLUSIVE"
    assert "UNKNOWN" in printed(report, 80)


def test_a_large_report_stays_small(report):
    count = 200
    matrix = [[float(i != j) + i * j / 1e5 for j in range(count)] for i in range(count)]
    report["series"]["separation"] = {
        "classes": [f"class {i}" for i in range(count)],
        "before": matrix,
        "after": matrix,
    }
    report["series"]["spectrum"]["eigenvalues"] = [[math.cos(i) / 2, math.sin(3 * i) / 2] for i in range(20_000)]
    report["findings"][3]["witness"]["state"] = [[[0.123456789] * 64] * 64] * 3
    html = page_of(report)
    Page(html)
    assert len(html.encode()) < 3_000_000
    assert "report.json holds them all" in html
    assert "3 × 64 × 64 values" in html


def test_a_report_is_not_changed_by_drawing_it(report, tmp_path):
    before, parsed = copy.deepcopy(report), Report.parse(report)
    write_report(parsed, tmp_path)
    printed(report, 80)
    assert report == before
    assert parsed == Report.parse(before)


def test_no_two_findings_have_one_name():
    names = ["a", "a", "a#2", "a", "b", "a#2"]
    ids = Report.parse({"findings": [{"check": "x", "name": name} for name in names]}).named
    assert list(ids) == ["x.a", "x.a#2", "x.a#2#2", "x.a#3", "x.b", "x.a#2#3"]
    assert len(Report.parse({"findings": [{}] * 5000}).named) == 5000
