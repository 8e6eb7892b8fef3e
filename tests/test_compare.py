"""Reports side by side: what differs is marked, what is missing is said, and foreign text stays text."""

import copy
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from sample_report import EXPECTED_KEYS

from analysis.commands.compare import print_comparison
from analysis.compare import Comparison, compare_reports, render_comparison
from analysis.report.report import Report
from stabdeq.__main__ import main

HOSTILE = '</td></style><script>alert(1)</script><img src=x onerror="alert(2)">&amp;{{ 7*7 }}\x1b[31m\u202e[red]'
VOID_ELEMENTS = {"meta", "img"}


def finding(check: str, name: str, verdict: str, margin: float | None = None, **values: object) -> dict[str, object]:
    plain = {"check": check, "name": name, "claim": f"The claim {name}.", "verdict": verdict, "margin": margin}
    return plain | {"evidence": "It was seen.", "samples": 128, "seed": 0, "seconds": 1.0, "witness": None} | values


def report_of(kind: str, *findings: dict[str, object], **values: object) -> dict[str, object]:
    return {
        "schema": 1,
        "checkpoint": {"path": f"runs/{kind}", "sha256": kind * 8, "kind": kind, "data": {"name": "mnist"}, "seed": 3},
        "environment": {"date": "2026-01-02", "stabdeq": "0.1.0"},
        "exit_code": 0,
        "findings": list(findings),
        "measurements": [{"check": "spectrum", "name": "radius", "value": 0.5, "text": "the largest radius"}],
        "skipped": [],
        "series": {},
        "sample": {"seed": 0, "images": list(range(128))},
    } | values


def three() -> list[dict[str, object]]:
    """A model that holds, one that is refuted where the first holds, and one without V."""
    holds = report_of(
        "lyadeq-anchored", finding("equilibrium", "unique", "PROVED"), finding("decay", "flow", "SUPPORTED", 0.25)
    )
    fails = report_of(
        "lyadeq",
        finding("equilibrium", "unique", "REFUTED", -708.2, claim="Another wording."),
        finding("decay", "flow", "SUPPORTED", 0.5),
        exit_code=1,
    )
    plain = report_of(
        "deq",
        finding("equilibrium", "unique", "PROVED"),
        finding("convergence", "own solver", "INCONCLUSIVE"),
        exit_code=3,
        skipped=[{"check": "decay", "reason": "no V"}],
        measurements=[],
    )
    return [holds, fails, plain]


def compared(*reports: dict[str, object]) -> Comparison:
    sources = [f"{place}/report.json" for place in range(len(reports))]
    return compare_reports(list(map(Report.parse, reports)), sources)


class Page(HTMLParser):
    """Collects what a page holds, and fails where elements are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str | None] = []
        self.references: list[str | None] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        self.ids += [value for name, value in attrs if name == "id"]
        self.references += [value for name, value in attrs if name in ("href", "src")]
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def printed(comparison: Comparison, width: int, **options: object) -> str:
    file = io.StringIO()
    print_comparison(comparison, Console(file=file, width=width, **options))  # type: ignore[arg-type]
    return file.getvalue()


# What is compared.


def test_rows_are_claims_by_check_and_differences_are_marked() -> None:
    comparison = compared(*three())
    assert [group.check for group in comparison.groups] == ["equilibrium", "decay", "spectrum", "convergence"]
    rows = {row.name: row for group in comparison.groups for row in group.claims}
    assert {name: row.differs for name, row in rows.items()} == {
        "equilibrium.unique": True,
        "decay.flow": False,
        "convergence.own solver": False,
    }
    unique = rows["equilibrium.unique"]
    assert [(cell.verdict, cell.margin, cell.claim) for cell in unique.cells if not isinstance(cell, str)] == [
        ("PROVED", "", "The claim unique."),
        ("REFUTED", "−708.2", "Another wording."),
        ("PROVED", "", "The claim unique."),
    ]


def test_a_gap_says_why_it_is_one() -> None:
    comparison = compared(*three())
    rows = {row.name: row.cells for group in comparison.groups for row in group.claims}
    assert rows["decay.flow"][2] == "skipped"
    assert rows["convergence.own solver"][:2] == ["not checked", "not checked"]
    (radius,) = (row for group in comparison.groups for row in group.measured)
    assert radius.cells == [("0.5", "the largest radius")] * 2 + [("not checked", "")]
    first = report_of("a", finding("decay", "flow", "PROVED"))
    second = report_of("b", finding("decay", "x", "PROVED"), finding("spectrum", "y", "PROVED"), measurements=[])
    decay, spectrum = compared(first, second).groups
    assert spectrum.measured[0].cells[1] == ("not measured", "")
    assert [row.cells[1] for row in decay.claims if isinstance(row.cells[1], str)] == ["not claimed"]


def test_a_check_that_every_report_skipped_has_no_rows() -> None:
    skipped = [{"check": "decay", "reason": "no V"}]
    reports = [report_of(kind, skipped=skipped, measurements=[]) for kind in "ab"]
    assert compared(*reports).groups == []
    assert "hold no findings" in render_comparison(compared(*reports))


def test_findings_of_one_name_are_rows_of_their_own() -> None:
    doubled = report_of("a", finding("decay", "flow", "PROVED"), finding("decay", "flow", "REFUTED"), exit_code=1)
    (decay, _) = compared(doubled, doubled).groups
    assert [row.name for row in decay.claims] == ["decay.flow", "decay.flow#2"]
    assert not any(row.differs for row in decay.claims)


def test_measurements_of_one_name_are_rows_of_their_own() -> None:
    items = [{"check": "decay", "name": "step", "value": value, "text": "a step"} for value in (1, 2)]
    items.insert(1, {"check": "spectrum", "name": "step", "value": 3, "text": "another"})
    first, second = report_of("a", measurements=items), report_of("b", measurements=items[:1])
    groups = {group.check: group.measured for group in compared(first, second).groups}
    assert [(row.title, [value for value, _ in row.cells]) for row in groups["decay"]] == [
        ("step", ["1", "1"]),
        ("step#2", ["2", "not measured"]),
    ]
    assert [row.title for row in groups["spectrum"]] == ["step"]


def test_many_checks_are_compared_each_with_its_own() -> None:
    findings = [finding(str(number), "x", "PROVED", claim=f"Claim {number}.") for number in range(300)]
    groups = compared(*[report_of("a", *findings, measurements=[])] * 2).groups
    assert [group.check for group in groups] == [str(number) for number in range(300)]
    assert [row.claim for row in groups[7].claims] == ["Claim 7."]


def test_reports_of_one_setting_are_compared_without_a_warning() -> None:
    assert compared(*three()).warnings == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"checkpoint": {"sha256": "z", "data": {"name": "digits"}}},
            "The models were judged on different data sets (A: mnist, B: digits).",
        ),
        (
            {"sample": {"seed": 5, "images": list(range(128))}, "findings": []},
            "The audits have different seeds, so they drew different images and states (A: 0, B: 5).",
        ),
        ({"sample": {"seed": 0, "images": [1]}}, "The audits drew different numbers of images (A: 128, B: 1)."),
        ({"environment": {"stabdeq": "9"}}, "The audits were made by different versions of stabdeq (A: 0.1.0, B: 9)."),
        ({"schema": 7}, "B: Expected a report of schema 1, found schema 7: drawn as far as it is understood."),
    ],
)
def test_what_is_not_comparable_is_said(values: dict[str, object], expected: str) -> None:
    first = report_of("a", finding("decay", "flow", "PROVED"))
    warnings = compared(first, report_of("b", finding("decay", "flow", "PROVED")) | values).warnings
    assert expected in warnings
    assert expected in render_comparison(compared(first, report_of("b") | values))
    assert expected.split("(")[0][:40] in printed(compared(first, report_of("b") | values), 200)


def test_one_checkpoint_twice_is_said() -> None:
    same = report_of("a", finding("decay", "flow", "PROVED"))
    assert compared(same, same).warnings == ["A and B are reports of the same checkpoint."]


def test_an_older_report_tells_its_images_and_seed_by_its_findings() -> None:
    report = report_of("a", finding("equilibrium", "exists", "SUPPORTED", samples=64, seed=9))
    del report["sample"]
    (model, _) = compared(report, report).models
    assert (model.facts["Test images"], model.facts["Seed of the audit"]) == ("64", "9")


def test_more_models_than_letters_have_their_own() -> None:
    comparison = compared(*[report_of(str(number), finding("decay", "flow", "PROVED")) for number in range(28)])
    assert [model.letter for model in comparison.models][24:] == ["Y", "Z", "AA", "AB"]


# The page.


def test_the_page_is_whole_self_contained_and_marks_what_differs() -> None:
    html = render_comparison(compared(*three()))
    page = Page(html)
    text = " ".join(page.text)
    assert len(page.ids) == len(set(page.ids))
    assert {f"#{name}" for name in page.ids} >= set(page.references)
    assert "script" not in page.tags
    assert "http" not in html.replace('http-equiv="Content-Security-Policy"', "")
    assert html.count('<tr class="differs">') == html.count("≠ verdicts differ") == 1
    for words in (
        "3 models compared",
        "lyadeq-anchored on mnist",
        "−708.2",
        "Another wording.",
        "skipped",
        "not checked",
    ):
        assert words in text
    for word in ("PROVED", "SUPPORTED", "REFUTED", "INCONCLUSIVE"):
        assert f'class="badge {word.lower()}"' in html


def hostile(value: object) -> object:
    if isinstance(value, dict):
        return {key: hostile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_text_stays_text() -> None:
    reports = [hostile(copy.deepcopy(report)) for report in three()]
    comparison = compare_reports(list(map(Report.parse, reports)), [HOSTILE] * 3)
    html = render_comparison(comparison)
    page = Page(html)
    assert not {"script", "img"} & set(page.tags)
    assert "\x1b" not in html
    assert "\u202e" not in html
    output = printed(comparison, 100, force_terminal=True, color_system=None)
    assert "\x1b[31m" not in output
    assert "\u202e" not in output
    assert "[red]" in output  # no markup of ours either


@pytest.mark.parametrize("value", [None, 3, "text", [], [1, "a", None], {"a": [1]}])
@pytest.mark.parametrize("key", [*EXPECTED_KEYS, "sample"])
def test_values_of_the_wrong_type_are_compared_around(key: str, value: object) -> None:
    first, second, _ = three()
    comparison = compared(first, second | {key: value}, {})
    Page(render_comparison(comparison))
    printed(comparison, 80)


# The terminal.


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("models", [2, 3, 6])
@pytest.mark.parametrize("force_terminal", [True, False])
def test_terminal_lines_fit(models: int, width: int, force_terminal: bool) -> None:
    reports = [three()[number % 3] for number in range(models)]
    output = printed(compared(*reports), width, force_terminal=force_terminal, color_system=None)
    assert max(map(len, output.splitlines())) <= width
    if not force_terminal:
        assert "\x1b" not in output
        assert not any("\u2500" <= character <= "\u257f" or character == "\x1b" for character in output)


def test_verdicts_stand_in_words_where_they_fit_and_as_symbols_where_not() -> None:
    few, many = printed(compared(*three()), 80), printed(compared(*three(), *three()), 80)
    assert "equilibrium.unique" in few
    assert "✗ REFUTED" in few
    assert "−708.2" in few
    assert "1 of 3 claims end differently." in few
    (row,) = (line for line in many.splitlines() if line.startswith("the cell alone"))
    assert row.split()[-6:] == ["✓", "✗", "✓"] * 2
    assert "✓ PROVED   ◐ SUPPORTED" in many


# The command.


def run(*arguments: str) -> int:
    try:
        main(["compare", *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for name, report in zip("abc", three(), strict=True):
        Path(f"{name}.json").write_text(json.dumps(report))
    return ["a.json", "b.json", "c.json"]


def test_the_command_prints_the_table_and_writes_the_page(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*files, "--out", "compare.html") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "A  lyadeq-anchored on mnist  a.json" in out
    assert out.endswith("wrote compare.html\n")
    assert "3 models compared" in Path("compare.html").read_text(encoding="utf-8")
    before = set(Path().iterdir())
    assert run(*files) == 0
    assert set(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "compare takes two or more reports"),
        (("a.json",), "compare takes two or more reports"),
        (("a.json", "none.json"), "none.json"),
        (("a.json", "cut.json"), "cut.json: the JSON is truncated or broken"),
        (("a.json", "list.json"), "a report is a JSON object"),
        (("a.json", "other.json"), "other.json holds no findings"),
        (("a.json", "b.json", "--out", "b.json"), "--out b.json is one of the reports"),
        (("a.json", "b.json", "--out", "no/c.html"), "there is no directory no"),
    ],
)
def test_bad_input_ends_in_one_line(
    arguments: tuple[str, ...], expected: str, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("cut.json").write_text(Path("a.json").read_text()[:200])
    Path("list.json").write_text("[1]")
    Path("other.json").write_text('{"accuracy": 0.5}')
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("stabdeq: ")
    assert err.count("\n") == 1
    assert expected in err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before
