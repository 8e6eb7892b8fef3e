"""A report as one value: whatever JSON it is read from it is read, and what it holds is drawn and written whole."""

import io
import json
import math
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
import torch
from command_runs import save_untrained
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sample_report import Page, sample_report
from small_models import images, model

from analysis.audit import audit
from analysis.certify import certify
from analysis.check import check
from analysis.commands.compare import print_comparison
from analysis.compare import compare_reports, render_comparison
from analysis.findings import Finding, Measurement, Skipped, Verdict
from analysis.findings.catalogue import CHECKS
from analysis.report.junit import junit_xml
from analysis.report.markdown import to_markdown
from analysis.report.page import render_html
from analysis.report.report import Report
from analysis.report.terminal import print_verdicts
from stabdeq.errors import ConfigError

pytestmark = pytest.mark.usefixtures("short_hunts")

TEXTS = st.text(st.characters(), max_size=5) | st.sampled_from(["nan", "inf", "</td><script>", "decay", "\x1b[31m"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)
VERDICTS = st.sampled_from([*Verdict, "PERHAPS"]) | JSON
# What a report holds, each value of the right type or of any.
ITEMS = {
    "findings": st.fixed_dictionaries(
        {},
        optional={
            "verdict": VERDICTS,
            "check": st.sampled_from(list(CHECKS)) | JSON,
            "name": JSON,
            "claim": JSON,
            "evidence": JSON,
            "margin": JSON,
            "samples": JSON,
            "tolerance": JSON,
            "dtype": JSON,
            "seed": JSON,
            "seconds": JSON,
            "witness": st.dictionaries(st.sampled_from(["image", "images", "state", "point", "x"]), JSON) | JSON,
        },
    ),
    "measurements": st.fixed_dictionaries({}, optional={"check": JSON, "name": JSON, "value": JSON, "text": JSON}),
    "skipped": st.fixed_dictionaries({}, optional={"check": JSON, "reason": JSON}),
}
REPORTS = st.fixed_dictionaries(
    {},
    optional={key: st.lists(item | JSON, max_size=3) | JSON for key, item in ITEMS.items()}
    | {
        "series": st.dictionaries(st.sampled_from(list(CHECKS)), JSON, max_size=2) | JSON,
        "checkpoint": st.fixed_dictionaries({}, optional={"kind": JSON, "data": JSON, "path": JSON}) | JSON,
    }
    | dict.fromkeys(("schema", "exit_code", "environment", "sample", "images", "certificates", "subject"), JSON),
)


def reread(report: Report) -> Report:
    return Report.parse(json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON")))


def named_data(value: Any) -> Any:
    """Return ``value`` with lists for tuples, and what is not finite by its name, as JSON holds them."""
    if isinstance(value, dict):
        return {key: named_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [named_data(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def alike(first: Report, second: Report) -> bool:
    """Return whether both say the same, where NaN is NaN and a series' number that is not finite may be its name."""
    return named_data(vars_of(first)) == named_data(vars_of(second))


def vars_of(report: Report) -> dict[str, Any]:
    listed = {key: [vars(item) for item in getattr(report, key)] for key in ("findings", "measurements", "skipped")}
    return {key: getattr(report, key) for key in Report.__dataclass_fields__} | listed


# Reading.


@given(REPORTS | JSON)
def test_any_json_is_read_and_what_was_read_stays(plain: Any) -> None:
    report = Report.parse(plain)
    again = reread(report)
    assert again.to_json() == report.to_json()
    assert alike(again, replace(report, gaps=again.gaps))
    # What could not be read is told once: it is not written again.
    assert not any(gap.startswith("Not read") for gap in again.gaps)
    assert reread(again).gaps == again.gaps


@given(REPORTS)
def test_all_that_is_read_can_be_shown(plain: dict[str, Any]) -> None:
    report = Report.parse(plain)
    html = render_html(report)
    page = Page(html)
    assert "script" not in page.tags
    text = " ".join("".join(page.text).split())
    assert all(" ".join(gap.split()) in text for gap in report.gaps)
    output = io.StringIO()
    print_verdicts(report, Console(file=output, width=100, force_terminal=True, color_system=None))
    assert "\x1b[31m" not in output.getvalue()
    assert report.sentence in " ".join(output.getvalue().split())
    junit_xml(report)
    assert to_markdown(report).startswith("## ")
    comparison = compare_reports([report, report], ["a", "b"])
    Page(render_comparison(comparison))
    print_comparison(comparison, Console(file=output, width=80))
    assert repr(report).startswith("<Report on ")
    assert len(report.named) == len(report.findings) == sum(report.counts.values()) == len(report.worst_first)
    assert report.holds == (report.exit_code == 0)
    for name in report.named:
        assert report[name].findings


@pytest.mark.parametrize("plain", [None, 3, "text", [{"findings": []}], True])
def test_what_is_no_object_is_an_empty_report_that_says_so(plain: Any) -> None:
    report = Report.parse(plain)
    assert report.gaps == (
        f"Expected a JSON object with findings, found {type(plain).__name__}: nothing of it was read.",
    )
    assert (report.exit_code, report.sentence) == (3, "No claim was judged: the report holds no findings.")


@pytest.mark.parametrize(
    ("values", "read", "gap"),
    [
        ({"margin": "wide"}, {"margin": None}, "Not read, since a number was expected: margin of a finding."),
        ({"margin": True}, {"margin": None}, "Not read, since a number was expected: margin of a finding."),
        ({"margin": 10**400}, {"margin": None}, "Not read, since a number was expected: margin of a finding."),
        ({"tolerance": [1]}, {"tolerance": None}, "Not read, since a number was expected: tolerance of a finding."),
        ({"samples": 2.5}, {"samples": None}, "Not read, since a whole number was expected: samples of a finding."),
        ({"seed": "0"}, {"seed": None}, "Not read, since a whole number was expected: seed of a finding."),
        ({"claim": 3}, {"claim": "3"}, "Not read, since a text was expected: claim of a finding."),
        ({"witness": [1]}, {"witness": {}}, "Not read, since an object was expected: witness of a finding."),
        ({"margin": None, "witness": None}, {"margin": None, "witness": None}, ""),
        ({"margin": "-inf", "seconds": 2}, {"margin": -math.inf, "seconds": 2.0}, ""),
    ],
)
def test_a_value_of_the_wrong_type_is_a_gap_that_is_said(
    values: dict[str, Any], read: dict[str, Any], gap: str
) -> None:
    plain = sample_report()
    plain["findings"][0] |= values
    report = Report.parse(plain)
    assert {key: getattr(report.findings[0], key) for key in read} == read
    assert report.gaps == ((gap,) if gap else ())
    if gap and list(read.values()) == [None]:
        assert f"<dt>{next(iter(read)).capitalize()}</dt><dd>—</dd>" in render_html(report)


def test_gaps_of_one_sort_are_counted() -> None:
    plain = sample_report()
    plain["findings"] += [3, None, "x"]
    plain["measurements"][0]["value"] = plain["measurements"][1]["value"] = "much"
    assert Report.parse(plain).gaps == (
        "Not read, since an object was expected: an entry of findings (3 times).",
        "Not read, since a number was expected: value of a measurement (2 times).",
    )


# What the doors return.


def energy(z: torch.Tensor) -> torch.Tensor:
    return z.square().sum(1)


def damped(z: torch.Tensor) -> torch.Tensor:
    return -z


@pytest.fixture(scope="module")
def made() -> dict[str, Report]:
    """The report of an audit, of a certification, of dynamics and of a check of a function."""
    x, labels = images(6).double(), torch.arange(6) % 3
    return {
        "audit": audit(model("lyadeq"), x, labels),
        "certification": certify(model(cell="interval"), x, labels),
        "dynamics": certify(damped, dim=2),
        "function": check(energy, damped, dim=2, alpha=1.0, samples=256, starts=4),
    }


@pytest.mark.parametrize("door", ["audit", "certification", "dynamics", "function"])
def test_a_report_is_what_its_file_holds(door: str, made: dict[str, Report]) -> None:
    report = made[door]
    assert report.findings
    assert not report.gaps
    assert alike(reread(report), report)
    assert reread(report).to_json() == report.to_json()
    keys = {"schema", "exit_code", "subject", "findings", "measurements", "skipped", "series", "certificates"}
    assert set(json.loads(report.to_json())) == keys | {"command", "checkpoint", "environment", "sample", "images"}
    assert set(report.environment) >= {"stabdeq", "torch", "platform", "date"}


@pytest.mark.parametrize("door", ["audit", "certification", "dynamics", "function"])
def test_a_report_shows_itself(
    door: str, made: dict[str, Report], tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    report = made[door]
    print(report)
    shown = capsys.readouterr().out
    assert report.sentence in " ".join(shown.split())
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 100
    page = render_html(report)
    frame = report._repr_html_()
    assert frame.startswith("<iframe srcdoc=")
    assert unescape(frame.split('srcdoc="')[1].split('" title=')[0]) == page
    paths = report.save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["report.json", "report.html"]
    assert paths[0].read_text() == report.to_json()
    assert paths[1].read_text() == render_html(reread(report))
    assert repr(report).startswith(f"<Report on {report.title}: ")


def test_the_doors_say_what_they_judged(made: dict[str, Report]) -> None:
    assert made["audit"].title == made["certification"].title == "unnamed model"
    assert made["dynamics"].title == "damped"
    assert made["function"].title == "energy along damped, on the ball of radius 1 around the centre"
    assert [made[door].holds for door in ("audit", "dynamics", "function")] == [False, True, True]


# Parts.


def test_a_part_holds_what_is_said_of_a_check_or_of_a_finding(made: dict[str, Report]) -> None:
    report = made["audit"]
    part = report["decay"]
    assert {item.check for item in part.findings} == {item.check for item in part.measurements} == {"decay"}
    assert list(part.series) == ["decay"]
    assert part.environment == report.environment
    one = report["decay.flow"]
    assert [item.name for item in one.findings] == ["flow"]
    assert (report.exit_code, one.exit_code, one.holds) == (1, 0, True)
    with pytest.raises(KeyError, match="did you mean 'decay'"):
        report["decai"]
    skipped = Report(skipped=(Skipped(check="decay", reason="no V"),))
    assert skipped["decay"] == skipped
    with pytest.raises(KeyError, match="did you mean 'decay'"):
        skipped["decai"]
    with pytest.raises(KeyError, match="the report is empty"):
        Report()["decay"]


def finding(verdict: Verdict, **values: Any) -> Finding:
    return replace(Report.parse({"findings": [{"verdict": verdict}]}).findings[0], **values)


@pytest.mark.parametrize(
    ("verdicts", "worst", "code", "sentence"),
    [
        ("", "INCONCLUSIVE", 3, "No claim was judged: the report holds no findings."),
        ("PROVED", "PROVED", 0, "No claim is refuted and none is inconclusive."),
        ("PROVED SUPPORTED", "SUPPORTED", 0, "No claim is refuted and none is inconclusive."),
        ("SUPPORTED INCONCLUSIVE", "INCONCLUSIVE", 3, "No claim is refuted, but 1 could not be settled."),
        ("PROVED UNKNOWN", "INCONCLUSIVE", 3, "No claim is refuted, but 1 could not be settled."),
        ("REFUTED PROVED", "REFUTED", 1, "One claim is refuted."),
        (
            "REFUTED REFUTED UNKNOWN INCONCLUSIVE",
            "REFUTED",
            1,
            "2 claims are refuted, and 2 could not be settled.",
        ),
    ],
)
def test_the_worst_verdict_decides(verdicts: str, worst: str, code: int, sentence: str) -> None:
    report = Report(findings=tuple(finding(Verdict(word)) for word in verdicts.split()))
    assert (report.verdict, report.exit_code, report.sentence) == (worst, code, sentence)
    assert report.holds == (code == 0)


def test_what_json_cannot_hold_is_refused(made: dict[str, Report]) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        replace(made["function"], series={"x": {"state": torch.zeros(2)}}).to_json()


def test_a_measurement_that_is_not_finite_is_told() -> None:
    report = Report(measurements=(Measurement(check="decay", name="step", value=math.inf, text="a step"),))
    assert "infinite" in str(report)
    assert reread(report).measurements == report.measurements


# What the doors refuse.


def test_images_come_with_labels_and_a_model_with_both(tmp_path: Any) -> None:
    x, labels = images(4).double(), torch.arange(4) % 3
    for door in (audit, certify):
        for given_images, given_labels in ((None, None), (x, None), (None, labels)):
            with pytest.raises(ConfigError, match="give both images and labels"):
                door(model(), given_images, given_labels)
    path = save_untrained(tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="give both images and labels"):
        audit(path, x)


def test_a_checkpoint_is_audited_on_images_of_its_own_data(tmp_path: Any) -> None:
    path = save_untrained(tmp_path / "model.safetensors")
    report = audit(str(path), checks=["convergence"], samples=5, seed=2)
    assert len(report.sample["images"]) == 5
    assert report.checkpoint["path"] == str(path)
    assert report.title == "lyadeq-anchored on digits"
    again = audit(path, checks=["convergence"], samples=5, seed=2)
    assert again.sample == report.sample
    assert certify(path, samples=5, seed=2).checkpoint == report.checkpoint


def test_certify_takes_a_model_of_this_library_or_dynamics_with_their_dimension() -> None:
    with pytest.raises(ConfigError, match=r"not of function: .*, and give dim"):
        certify(damped)
