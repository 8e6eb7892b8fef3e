"""Reports that are nested too deeply, too large or lack keys are drawn around, and the page says so."""

import json
import random
import re
from dataclasses import replace

import pytest
from sample_report import Page, finding, page_of

from analysis.report import figures, reading
from analysis.report.page import render_html
from analysis.report.report import Report


def nested(depth):
    """Return that many lists, each in the next."""
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("item", [{}, {"check": "decay", "name": "step"}, {"text": None, "value": [1]}])
def test_a_measurement_without_its_keys_is_drawn(item):
    html = page_of({"measurements": [item]})
    assert "Measured, not judged" in html
    assert (item.get("name") or "unnamed") in html


@pytest.mark.parametrize("depth", [450, 600, 5000])
@pytest.mark.parametrize("key", ["claim", "evidence", "verdict", "margin", "witness"])
def test_what_is_nested_deeper_than_any_report_is_not_read_and_said(key, depth):
    item = finding("decay", "x", "A claim.", "REFUTED", 1.0, "Because.", witness={"state": [0.5]})
    deep = {"state": nested(depth), "k": {"a": nested(depth)}}
    report = Report.parse({"findings": [item | {key: deep if key == "witness" else nested(depth)}]})
    gap = "Expected a JSON object with findings, found an object that is nested too deeply: nothing of it was read."
    assert report == Report(gaps=(gap,))
    html = render_html(report)
    Page(html)
    assert gap in html


def refuted(witness):
    """Return a report of one finding, made in Python, where nothing bounds the depth of a witness."""
    return Report(
        findings=(replace(Report.parse({"findings": [{"verdict": "REFUTED"}]}).findings[0], witness=witness),)
    )


@pytest.mark.parametrize("depth", [90, 450, 600, 5000])
def test_a_deep_witness_made_in_python_is_drawn_around(depth):
    Page(render_html(refuted({"state": nested(depth), "k": {"a": nested(depth)}})))


def test_what_is_too_deep_to_show_says_so():
    assert "nested too deeply to show; report.json holds it all" in render_html(refuted({"k": {"a": nested(5000)}}))


def test_a_file_nested_too_deeply_is_no_report(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"findings": nested(99)}))
    assert reading.read_report(path).gaps[-1] == "Not read, since an object was expected: an entry of findings."
    path.write_text(json.dumps({"findings": nested(100)}))
    with pytest.raises(reading.ReportError, match="more than 100 levels"):
        reading.read_report(path)


@pytest.mark.parametrize("schema", [True, 1.0, "1", None])
def test_a_schema_is_a_whole_number(report, schema):
    assert "Expected a report of schema 1" in Report.parse(report | {"schema": schema}).gaps[0]


def too_large(check):
    """Return a series of ``check`` with one more of everything than is drawn."""
    points = list(range(1, 1002))
    spread = {"worst": 1, "lower": 1, "median": 1, "upper": 1}
    return {
        "convergence": {"solvers": {str(index): {"evaluations": [1], "median": [1.0]} for index in range(21)}},
        "decay": {
            "flow": {"times": points, "median": points},
            "raw": {"radii": points, "violation_rate": [0.1] * 1001},
            "margin": {"radii": points, "unprojected": [spread] * 1001, "stabilised": [spread] * 1001},
        },
        "separation": {
            "before": [[1.0] * 501] * 501,
            "after": [[2.0] * 501] * 501,
            "embedding": {
                "labels": list(range(201)),
                "right": [True] * 201,
                "maps": {"before": [[float(index), 1.0] for index in range(201)]},
            },
        },
    }[check]


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("convergence", ["21 are too many solvers to draw"]),
        ("decay", ["1001 are too many points to draw"] * 3),
        ("separation", ["501 are too many classes to draw"] * 2 + ["201 are too many classes to draw"]),
    ],
)
def test_what_is_too_much_for_a_figure_is_said(check, said):
    drawings, missing = figures.draw(check, too_large(check))
    assert not drawings
    assert [words for words in missing if "too many" in words] == missing[-len(said) :]
    assert [words.rpartition("drawn: ")[2] for words in missing if "too many" in words] == [f"{end}." for end in said]


def test_many_checks_are_each_a_section():
    items = [
        {"check": str(index % 500), "name": "x", "verdict": "PROVED", "claim": f"c{index}"} for index in range(1000)
    ]
    measured = [{"check": str(index % 500), "name": "y", "text": f"m{index}", "value": None} for index in range(1000)]
    html = page_of({"findings": items, "measurements": measured, "skipped": [{"check": "7", "reason": "why"}]})
    section = html.split('id="check-8">')[1].split("</details>")[0]
    assert re.findall(r"<li>(.*?)</li>", section) == ["m7: —", "m507: —"]
    assert '<span class="first">7</span>: why' in html
    assert html.count(' id="check-') == 500
    assert len(re.findall(r"<h3>c\d+</h3>", html)) == 1000


def test_long_texts_are_cut_and_the_page_says_so(report):
    long = "y" * 1_000_000
    item = finding(long, long, long, "REFUTED", 1.0, long, witness={long: long, "list": [[long], long]})
    report["findings"].append(item)
    report["checkpoint"] |= {"kind": long, "model": {long: long}, "data": {"name": "d", "classes": [long]}}
    report["series"]["separation"]["classes"] = [long] * 10
    report["series"]["convergence"]["solvers"][long] = report["series"]["convergence"]["solvers"]["picard"]
    html = page_of(report)
    Page(html)
    assert len(html) < 2_000_000
    assert f">{'y' * 20_000} … (cut here; report.json holds it all)<" in html


def test_the_pictures_of_a_page_have_a_bound():
    noise = random.Random(0)
    pixels = [[[noise.randrange(256) for _ in range(128)] for _ in range(128)] for _ in range(3)]
    item = finding("decay", "x", "c", "REFUTED", -1.0, "e", witness={"image": 0, "state": [1.0]})
    html = page_of({"findings": [item] * 60, "images": {"0": {"label": 0, "pixels": pixels}}})
    Page(html)
    assert 10 < html.count("<img ") < 20
    assert len(html) < 1_500_000
    assert "Test image 0 is not drawn: the page would become too large." in html
    assert "The state is not drawn: the page would become too large." in html
