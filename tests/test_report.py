"""The report: whole in any browser and any terminal, and honest about what it lacks."""

import copy
import io
import json
import math
import os
import random
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from analysis.report import figures, reading
from analysis.report.page import render_html, write_report
from analysis.report.terminal import print_verdicts
from stabdeq.__main__ import main

HOSTILE = '</td></svg><script>alert(1)</script><img src=x onerror="alert(2)">&amp;{{ 7*7 }}\'\x1b[31m\u202e$\\frac$'
VOID_ELEMENTS = {"meta", "img", "br", "hr", "input", "link"}


def finding(check, name, claim, verdict, margin, evidence, *, witness=None, samples=4096):
    return {
        "check": check,
        "name": name,
        "claim": claim,
        "verdict": verdict,
        "margin": margin,
        "evidence": evidence,
        "samples": samples,
        "tolerance": 1.21e-13,
        "dtype": "float64",
        "seed": 0,
        "seconds": 0.84,
        "witness": witness,
    }


def sample_findings():
    return [
        finding(
            "equilibrium",
            "converged",
            "The cell has an equilibrium for every image examined.",
            "SUPPORTED",
            8.7e-10,
            "Anderson reached a residual below 1e-9 on 360 of 360 images. "
            "The violation rate is below 0.83 % with 95 % confidence.",
            samples=360,
        ),
        finding(
            "equilibrium",
            "preserved",
            "The stabilised field keeps the equilibrium.",
            "PROVED",
            None,
            "V is centred at the equilibrium, where the projection is the identity: F^(z*) = F(z*) = 0.",
            samples=0,
        ),
        finding(
            "positivity",
            "positive",
            "V is zero at its centre and positive everywhere else.",
            "PROVED",
            0.01,
            "The weights that must not be negative are not: the smallest is 0.00031. "
            "V >= eta ||z - c||^2 with eta = 0.01.",
            samples=0,
        ),
        finding(
            "decay",
            "raw_field",
            "The raw field decays at rate 0.1 within distance 10 of the equilibrium.",
            "REFUTED",
            -0.0372,
            "At distance 9.41 from the centre V grows: V-dot + alpha V = 0.0372 relative to its terms, "
            "3.1e11 times the tolerance. The state was found by gradient ascent from 64 starts, shrunk, "
            "and replayed in float64 by differentiating V automatically.",
            witness={
                "image_index": 1204,
                "distance": 9.41,
                "excess": 0.0372,
                "replayed": True,
                "state": [math.sin(index) for index in range(64)],
            },
        ),
        finding(
            "decay",
            "stabilised",
            "The stabilised field decays at rate 0.1 in every state.",
            "SUPPORTED",
            2.3e-14,
            "No violation among 4096 states and 64 ascents of the falsifier. "
            "The violation rate is below 0.073 % with 95 % confidence.",
        ),
        finding(
            "spectrum",
            "stable",
            "The flow is locally stable at every equilibrium examined.",
            "INCONCLUSIVE",
            None,
            "The eigenvalues of 3 of 32 Jacobians have condition numbers up to 4e9, which forbids a verdict "
            "in float64. Examine fewer, better conditioned states, or certify with the GES matrix inequality instead.",
            samples=32,
        ),
    ]


def sample_series():
    steps = list(range(1, 41))
    source = random.Random(0)
    solvers = {}
    for name, rate, share in (("anderson", 0.55, 1.0), ("broyden", 0.68, 1.0), ("picard", 0.9, 0.04)):
        median = [12 * rate**step * (1 + 0.2 * math.sin(step)) + 3e-15 for step in steps]
        lower, upper = [0.3 * value for value in median], [4 * value for value in median]
        solvers[name] = {
            "evaluations": steps,
            "median": median,
            "lower": lower,
            "upper": upper,
            "converged": share,
        }
    turns = [(0.72 * math.sqrt(source.random()), 2 * math.pi * source.random()) for _ in range(128)]
    times = [index / 4 for index in range(81)]
    classes = [str(digit) for digit in range(10)]
    before = [[0.0 if i == j else 4 + 3 * math.sin(i * j + i + j) for j in range(10)] for i in range(10)]
    return {
        "convergence": {"tolerance": 1e-9, "solvers": solvers},
        "spectrum": {"eigenvalues": [[radius * math.cos(turn), radius * math.sin(turn)] for radius, turn in turns]},
        "decay": {
            "flow": {
                "times": times,
                "median": [math.exp(-0.9 * time) for time in times],
                "maximum": [math.exp(-0.13 * time) for time in times],
                "bound": [math.exp(-0.1 * time) for time in times],
            },
            "raw": {
                "radii": [0.01, 0.1, 1.0, 10.0],
                "violation_rate": [0.0, 0.0, 0.002, 0.041],
                "upper": [0.003, 0.003, 0.006, 0.052],
            },
        },
        "separation": {
            "classes": classes,
            "before": before,
            "after": [[0.93 * value for value in row] for row in before],
        },
        "robustness": {
            "eps": [0.0, 1 / 16 / 255, 8 / 255, 1.0],
            "accuracy": [0.97, 0.97, 0.6, 0.0],
            "lower": [0.9, 0.9, 0.5, 0.0],
            "upper": [1.0, 1.0, 0.7, 0.03],
            "clean": 0.97,
            "compared_at": 8 / 255,
            "worst": 0.55,
        },
    }


@pytest.fixture
def report():
    """A report as an audit writes it, with every verdict, a witness, a skipped check and all series."""
    return {
        "schema": 1,
        "checkpoint": {
            "path": "runs/demo/checkpoint.safetensors",
            "sha256": "9f2c1e6a" * 8,
            "kind": "lyadeq-anchored",
            "model": {
                "dim": 64,
                "hidden": 128,
                "alpha": 0.1,
                "eta": 0.01,
                "stability": "anchored",
                "head": "orthogonal",
            },
            "data": {"name": "digits", "classes": [str(digit) for digit in range(10)]},
            "epoch": 40,
            "seed": 0,
        },
        "environment": {
            "python": "3.11.2",
            "torch": "2.15.0",
            "stabdeq": "0.1.0",
            "platform": "Linux x86_64",
            "date": "2025-03-01",
        },
        "exit_code": 1,
        "findings": sample_findings(),
        "measurements": [
            {
                "check": "spectrum",
                "name": "abscissa",
                "value": 0.7134,
                "text": "Largest real part of the Jacobian's eigenvalues, median over images",
            },
            {
                "check": "decay",
                "name": "largest_step",
                "value": 0.25,
                "text": "Largest Euler step that still lowers V on every trajectory",
            },
            {
                "check": "separation",
                "name": "ratio",
                "value": 0.93,
                "text": "Mean class distance after the orthogonal map, relative to before",
            },
            {
                "check": "convergence",
                "name": "anderson",
                "value": 19.0,
                "text": "Evaluations that Anderson needs for 1e-9, median",
            },
        ],
        "skipped": [{"check": "convexity", "reason": "not among the checks asked for"}],
        "series": sample_series(),
    }


class Page(HTMLParser):
    """Collects what a page holds, and fails where elements are not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.ids, self.references, self.text = [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        assert not any(name.startswith("on") for name in names)
        self.ids += [value for name, value in attrs if name == "id"]
        self.references += [value for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def printed(report, width, **options):
    """Return what the terminal shows at ``width``."""
    file = io.StringIO()
    print_verdicts(report, Console(file=file, width=width, **options))
    return file.getvalue()


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
    html = render_html(report)
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


def test_page_shows_every_verdict_figure_and_witness(report):
    html = render_html(report)
    text = " ".join(Page(html).text)
    for item in report["findings"]:
        assert item["claim"] in text
        assert item["evidence"] in text
    for words in (
        "One claim is refuted",
        "Exit code 1",
        "lyadeq-anchored on digits",
        "1204",
        "not among the checks asked for",
    ):
        assert words in text
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
    json_path, html_path = write_report(report, tmp_path / "new" / "run")
    text = json_path.read_text(encoding="utf-8")
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read["findings"][0]["margin"] == "nan"
    assert read["findings"][1]["witness"] == {"state": ["inf", "-inf", 1.0], "name": "\ud800 é"}
    html = html_path.read_text(encoding="utf-8")
    assert html == render_html(read)
    assert "NaN" in html
    assert "[infinite, −infinite, 1]" in html


def test_a_failed_write_leaves_the_old_report_whole(report, tmp_path, monkeypatch):
    write_report(report, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"report.json", "report.html"}

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(report | {"exit_code": 0}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_json_cannot_hold_is_refused_before_anything_is_written(report, tmp_path):
    report["findings"][0]["witness"] = {"state": object()}
    with pytest.raises(TypeError):
        write_report(report, tmp_path)
    assert not list(tmp_path.iterdir())


def test_hostile_text_stays_text(report):
    html = render_html(hostile(report))
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


@pytest.mark.parametrize("key", [*reading.EXPECTED_KEYS])
def test_a_missing_key_is_said(report, key):
    report["series"] = {}
    del report[key]
    said = reading.gaps(report)
    assert any("no schema number" in gap or key in gap for gap in said)
    html = render_html(report)
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
    drawings, missing = figures.draw(check, reading.mapping(series))
    assert drawings == []
    html = render_html(report)
    Page(html)
    assert missing
    assert all(sentence in html for sentence in missing)


@pytest.mark.parametrize("value", [None, 3, "text", [], [1, "a", None], {"a": [1]}])
@pytest.mark.parametrize("key", [*reading.EXPECTED_KEYS])
def test_values_of_the_wrong_type_are_drawn_around(report, key, value):
    report["series"] = {}
    report[key] = value
    Page(render_html(report))
    printed(report, 80)


def test_an_empty_report_is_drawn():
    Page(render_html({}))
    assert "No claim was judged" in printed({}, 80)


def test_an_unknown_schema_is_said_and_drawn(report):
    html = render_html(report | {"schema": 7})
    assert "Expected a report of schema 1, found schema 7" in html
    assert report["findings"][0]["claim"] in html


def test_an_exit_code_at_odds_with_the_findings_is_said(report):
    assert reading.gaps(report) == []
    assert reading.gaps(report | {"exit_code": 0}) == ["The report's exit code is 0, but its findings ask for 1."]


def test_an_unknown_verdict_is_never_counted_as_good(report):
    report["findings"] = [finding("decay", "x", "A claim.", "CERTAINLY", 1.0, "Because.")]
    assert reading.verdict_counts(report) == {
        "PROVED": 0,
        "SUPPORTED": 0,
        "UNKNOWN": 1,
        "INCONCLUSIVE": 0,
        "REFUTED": 0,
    }
    assert reading.outcome(report)[0] == "INCONCLUSIVE"
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
    html = render_html(report)
    Page(html)
    assert len(html.encode()) < 3_000_000
    assert "report.json holds them all" in html
    assert "3 × 64 × 64 values" in html


@pytest.mark.parametrize("width", [80, 100, 120, 160])
@pytest.mark.parametrize("force_terminal", [True, False])
def test_terminal_lines_fit(report, width, force_terminal):
    output = printed(report, width, force_terminal=force_terminal, color_system=None)
    assert max(map(len, output.splitlines())) <= width
    assert not any(line != line.rstrip() for line in output.splitlines()) or force_terminal


def test_terminal_explains_in_full_what_is_refuted_or_open(report):
    for width in (80, 120):
        output = printed(report, width)
        # Words in order, whatever columns and line ends stand between.
        for item in report["findings"]:
            if item["verdict"] in ("REFUTED", "INCONCLUSIVE"):
                assert all(word in output for word in item["evidence"].split())
    assert output.index("REFUTED") < output.index("INCONCLUSIVE") < output.index("SUPPORTED") < output.index("PROVED")
    assert "2 ✓ PROVED   2 ◐ SUPPORTED   1 ? INCONCLUSIVE   1 ✗ REFUTED" in output
    assert "convexity: not among the checks asked for" in output


def test_piped_output_is_plain(report):
    output = printed(report, 80)
    assert "\x1b" not in output
    assert not re.search("[\u2500-\u257f]", output)


def test_output_without_unicode_is_still_printed(report):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="cp1252", errors="strict")
    print_verdicts(report, Console(file=file, width=80))
    file.flush()
    assert "x REFUTED" in raw.getvalue().decode("cp1252")


def test_a_report_is_not_changed_by_drawing_it(report, tmp_path):
    before = copy.deepcopy(report)
    write_report(report, tmp_path)
    printed(report, 80)
    assert report == before


def test_no_two_findings_have_one_name():
    names = ["a", "a", "a#2", "a", "b", "a#2"]
    ids = reading.finding_ids({"findings": [{"check": "x", "name": name} for name in names]})
    assert ids == ["x.a", "x.a#2", "x.a#2#2", "x.a#3", "x.b", "x.a#2#3"]
    assert len(reading.finding_ids({"findings": [{}] * 5000})) == 5000


def nested(depth):
    """Return that many lists, each in the next."""
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("item", [{}, {"check": "decay", "name": "step"}, {"text": None, "value": [1]}])
def test_a_measurement_without_its_keys_is_drawn(item):
    html = render_html({"measurements": [item]})
    assert "Measured, not judged" in html
    assert (item.get("name") or "unnamed") in html


@pytest.mark.parametrize("depth", [450, 600, 5000])
@pytest.mark.parametrize("key", ["claim", "evidence", "verdict", "margin", "witness"])
def test_deep_nesting_is_drawn_around(key, depth):
    item = finding("decay", "x", "A claim.", "REFUTED", 1.0, "Because.", witness={"state": [0.5]})
    deep = {"state": nested(depth), "k": {"a": nested(depth)}}
    Page(render_html({"findings": [item | {key: deep if key == "witness" else nested(depth)}]}))


def test_what_is_too_deep_to_show_says_so():
    html = render_html({"findings": [finding("a", "b", "c", "REFUTED", None, "d", witness={"k": {"a": nested(5000)}})]})
    assert "nested too deeply to show; report.json holds it all" in html


def test_a_file_nested_too_deeply_is_no_report(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"findings": nested(99)}))
    assert reading.read_report(path)["findings"]
    path.write_text(json.dumps({"findings": nested(100)}))
    with pytest.raises(reading.ReportError, match="more than 100 levels"):
        reading.read_report(path)


@pytest.mark.parametrize("schema", [True, 1.0, "1", None])
def test_a_schema_is_a_whole_number(report, schema):
    assert "Expected a report of schema 1" in reading.gaps(report | {"schema": schema})[0]


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main(["report", *map(str, arguments)])
    return int(end.value.code or 0)


def test_the_command_prints_a_path_as_it_stands(report, tmp_path, capsys):
    folder = tmp_path / "[" / "x]"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report))
    main(["report", str(folder / "report.json")])
    assert capsys.readouterr().out == f"wrote {folder / 'report.html'}\n"


def test_the_command_refuses_what_is_no_file_and_its_own_input(report, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(".") == 2
    assert "give the report.json" in capsys.readouterr().err
    (tmp_path / "x.html").write_text(json.dumps(report))
    assert run("x.html") == 2
    assert "x.html: the page would overwrite the report" in capsys.readouterr().err
    assert json.loads((tmp_path / "x.html").read_text()) == report


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
            "after": [[1.0] * 501] * 501,
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
    html = render_html({"findings": items, "skipped": [{"check": "7", "reason": "why"}]})
    section = html.split('<section id="check-8">')[1].split("</section>")[0]
    assert re.findall(r"<h3>(.*?)</h3>", section) == ["c7", "c507"]
    assert "Skipped: why" in section
    assert html.count('<section id="check-') == 500


def test_long_texts_are_cut_and_the_page_says_so(report):
    long = "y" * 1_000_000
    item = finding(long, long, long, "REFUTED", 1.0, long, witness={long: long, "list": [[long], long]})
    report["findings"].append(item)
    report["checkpoint"] |= {"kind": long, "model": {long: long}, "data": {"name": "d", "classes": [long]}}
    report["series"]["separation"]["classes"] = [long] * 10
    report["series"]["convergence"]["solvers"][long] = report["series"]["convergence"]["solvers"]["picard"]
    html = render_html(report)
    Page(html)
    assert len(html) < 2_000_000
    assert f">{'y' * 20_000} … (cut here; report.json holds it all)<" in html


def test_the_pictures_of_a_page_have_a_bound():
    noise = random.Random(0)
    pixels = [[[noise.randrange(256) for _ in range(128)] for _ in range(128)] for _ in range(3)]
    refuted = finding("decay", "x", "c", "REFUTED", -1.0, "e", witness={"image": 0, "state": [1.0]})
    html = render_html({"findings": [refuted] * 60, "images": {"0": {"label": 0, "pixels": pixels}}})
    Page(html)
    assert 10 < html.count("<img ") < 20
    assert len(html) < 1_500_000
    assert "Test image 0 is not drawn: the page would become too large." in html
    assert "The state is not drawn: the page would become too large." in html
