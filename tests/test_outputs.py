"""What an audit gives to CI systems, and what it shows while it runs: JUnit XML, Markdown, progress with the time left."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from analysis.audit import audit as judge
from analysis.commands.audit_progress import Estimate, shown
from analysis.findings.catalogue import CHECKS, rows
from analysis.findings.values import printable
from analysis.report.junit import junit_xml
from analysis.report.markdown import escaped, to_markdown
from analysis.report.report import Report
from stabdeq.__main__ import main
from stabdeq.checkpoint import Checkpoint, save_checkpoint
from stabdeq.config import ArchitectureConfig, DataConfig, LyapunovConfig
from stabdeq.config.kinds import model_config
from stabdeq.model import StabilisedDEQ

HOSTILE = (
    "</failure>]]>&amp;|x|\n| a | b |\n# h\n<script>alert(1)</script> [a](https://a.example) ![i](//b.example/c.png) "
    "https://c.example www.d.example WWW.e.example f@g.example @user `code` ~~no~~ **no** \\| \x00\x1b[31m\ud800\ufffe\u202e"
)


def finding(verdict: str, **values: object) -> dict[str, object]:
    plain = {"check": "decay", "name": "flow", "claim": "V falls.", "evidence": "It was seen.", "margin": -0.25}
    return plain | {"verdict": verdict, "seconds": 1.5, "samples": 3, "seed": 0, "witness": None} | values


def report_of(*findings: dict[str, object], **values: object) -> Report:
    skipped = [{"check": "convexity", "reason": "no V"}]
    plain = {
        "schema": 1,
        "checkpoint": {"kind": "lyadeq", "data": {"name": "digits"}},
        "environment": {"date": "2026-01-02T03:04:05+00:00"},
        "findings": list(findings),
        "measurements": [],
        "skipped": skipped,
        "series": {},
    }
    return Report.parse(plain | values)


def every_verdict(**values: object) -> Report:
    witness = {"image": 7, "state": [0.5] * 64, "status": "nan", "start": [1.0, 2.0]}
    return report_of(
        finding("PROVED", name="a"),
        finding("SUPPORTED", name="b", seconds="nan"),
        finding("REFUTED", name="c", witness=witness),
        finding("INCONCLUSIVE", name="d"),
        finding("MAYBE", name="e"),
        **values,
    )


# JUnit XML.


def test_each_verdict_is_what_ci_systems_call_it() -> None:
    root = ElementTree.fromstring(junit_xml(every_verdict()))
    assert root.tag == "testsuites"
    (suite,) = root
    assert suite.attrib == {
        "name": "stabdeq audit: lyadeq on digits",
        "tests": "6",
        "failures": "1",
        "errors": "2",
        "skipped": "1",
        "time": "6.000",
        "timestamp": "2026-01-02T03:04:05+00:00",
    }
    cases = {case.get("name"): case for case in suite}
    assert {name: [child.tag for child in case] for name, case in cases.items()} == {
        "a": ["system-out"],
        "b": ["system-out"],
        "c": ["failure"],
        "d": ["error"],
        "e": ["error"],
        "skipped": ["skipped"],
    }
    assert {case.get("classname") for name, case in cases.items() if name != "skipped"} == {"decay"}
    assert [cases[name].get("time") for name in "ab"] == ["1.500", "0.000"]
    failure = cases["c"].find("failure")
    assert failure is not None
    assert failure.get("message") == "REFUTED: V falls."
    assert failure.text == (
        "It was seen.\nWitness:\nimage: 7\nstate: [0.5, 0.5, 0.5, 0.5, …] (64 in all)\nstatus: nan\nstart: [1, 2]"
    )


def test_a_time_beyond_all_numbers_is_left_out() -> None:
    root = ElementTree.fromstring(junit_xml(report_of(*[finding("PROVED", seconds=1e308)] * 2)))
    assert "time" not in root.attrib
    assert "time" not in root[0].attrib
    assert [float(case.get("time") or 0) for case in root[0]] == [1e308, 1e308, 0.0]


@pytest.mark.parametrize("depth", [3, 450, 5000])
def test_deep_nesting_is_counted_not_followed(depth: int) -> None:
    deep: list[object] = []
    for _ in range(depth):
        deep = [deep]
    report = report_of(finding("REFUTED"))
    wild = replace(report.findings[0], witness={"state": deep, "pair": [[1.0, 2.0], {"a": deep}, 3]})
    failure = ElementTree.fromstring(junit_xml(replace(report, findings=(wild,))))[0][0].find("failure")
    assert failure is not None
    assert (failure.text or "").endswith("Witness:\nstate: [1 entries]\npair: [2 entries, 1 entries, 3]")


def test_two_findings_of_one_name_are_two_tests() -> None:
    root = ElementTree.fromstring(junit_xml(report_of(finding("PROVED"), finding("REFUTED"))))
    assert [case.get("name") for case in root[0]] == ["flow", "flow#2", "skipped"]


def test_hostile_text_stays_text_in_xml() -> None:
    wild = finding("REFUTED", check=HOSTILE, name=HOSTILE, claim=HOSTILE, evidence=HOSTILE, witness={HOSTILE: HOSTILE})
    root = ElementTree.fromstring(junit_xml(report_of(wild, skipped=[{"check": HOSTILE, "reason": HOSTILE}])))
    assert {element.tag for element in root.iter()} == {"testsuites", "testsuite", "testcase", "failure", "skipped"}
    failure = root[0][0].find("failure")
    assert failure is not None
    assert failure.text == f"{printable(HOSTILE)}\nWitness:\n{printable(HOSTILE)}: {printable(HOSTILE)}"


@given(st.text(st.characters()))
def test_any_text_makes_valid_xml(text: str) -> None:
    wild = finding("INCONCLUSIVE", check=text, name=text, claim=text, evidence=text)
    root = ElementTree.fromstring(junit_xml(report_of(wild)))
    error = root[0][0].find("error")
    assert error is not None
    assert (error.text or "").strip() == printable(text).strip()


@pytest.mark.parametrize("value", [None, 3, "text", [1, None], {"a": [1]}])
@pytest.mark.parametrize("key", ["checkpoint", "environment", "findings", "skipped"])
def test_a_report_of_wrong_types_is_written_all_the_same(key: str, value: object) -> None:
    report = every_verdict(**{key: value})
    is_readable = value is None or (isinstance(value, dict) and key == "checkpoint")  # a version is a text
    said = [gap for gap in report.gaps if gap.startswith("Not read, since ") and key in gap]
    assert len(said) == (not is_readable)
    ElementTree.fromstring(junit_xml(report))
    assert to_markdown(report).startswith("## ")
    assert to_markdown(Report()).startswith("## ")
    ElementTree.fromstring(junit_xml(Report()))


# Markdown.


def tokens_of(text: str) -> list:
    """Return all tokens of ``text``, inline ones too, as a renderer with tables and HTML sees them."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    return [inner for token in tokens for inner in (token, *(token.children or []))]


def cells_of(text: str) -> list[str]:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [tokens[place + 1] for place, token in enumerate(tokens) if token.type == "td_open"]
    return ["".join(child.content for child in cell.children or []) for cell in inline]


def test_the_markdown_holds_counts_verdicts_and_reasons() -> None:
    text = to_markdown(every_verdict())
    assert text.startswith(
        "## ✗ Stability audit of lyadeq on digits\n\nOne claim is refuted, and 2 could not be settled.\n"
    )
    assert "| 1 | ✓ PROVED | true by construction, or certified |" in text
    assert "| ✗ REFUTED | decay | V falls. | −0.25 |" in text
    assert "- **REFUTED** V falls. It was seen." in text
    assert "- Check convexity: no V" in text
    cells = cells_of(text)
    assert len(cells) == 3 * 5 + 4 * 5
    assert cells[15:19] == ["✗ REFUTED", "decay", "V falls.", "−0.25"]


def test_hostile_text_neither_breaks_the_table_nor_becomes_html_or_links() -> None:
    wild = finding("REFUTED", check=HOSTILE, name=HOSTILE, claim=HOSTILE, evidence=HOSTILE)
    checkpoint = {"kind": HOSTILE, "data": {"name": HOSTILE}}
    text = to_markdown(report_of(wild, checkpoint=checkpoint, skipped=[{"check": HOSTILE, "reason": HOSTILE}]))
    kinds = {token.type for token in tokens_of(text)}
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "code_inline", "s_open", "em_open", "fence"}
    # What shows is the text as it stands, but for the characters that part links.
    cells = cells_of(text)
    assert len(cells) == 3 * 4 + 4
    assert cells[-2].replace("\u2060", "") == " ".join(printable(HOSTILE).split("  ")).strip()
    for link in ("https://", "www.", "WWW.", "f@g", "@user"):
        assert link not in text
        assert link not in cells[-2]


@given(st.text(st.characters()))
def test_any_text_is_one_cell_of_markdown(text: str) -> None:
    cells = cells_of(f"| a | b |\n| --- | --- |\n| x{escaped(text)}x | y |")
    assert len(cells) == 2
    assert cells[0].replace("\u2060", "") == f"x{printable(text)}x".replace("\u2060", "")


# The command's options.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model, whose stabilised field has lost its equilibrium."""
    path = tmp_path_factory.mktemp("model") / "checkpoint.safetensors"
    architecture = ArchitectureConfig(state_dim=8, lyapunov=LyapunovConfig(hidden=8))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = model_config("lyadeq", architecture, image_shape=(1, 8, 8), classes=10, mean=(0.4,), std=(0.3,))
        model = StabilisedDEQ(config).eval()
    save_checkpoint(path, Checkpoint(model=model, data=DataConfig(), class_names=tuple("0123456789"), seed=0, epoch=0))
    return path


@pytest.fixture
def audit(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a short audit in an empty folder; gives the exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["audit", str(checkpoint), "--images", "4", "--checks", "equilibrium", *arguments])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


def test_an_audit_writes_both_files_beside_the_report(
    audit: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, err = audit("--out", "new/run", "--junit", "new/run/junit.xml", "--markdown", "summary.md")
    assert (code, err) == (1, "")
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"new/run/report.json", "new/run/report.html", "new/run/junit.xml", "summary.md"}
    report = Report.parse(json.loads(Path("new/run/report.json").read_text()))
    assert report.findings
    assert not report.gaps
    assert Path("new/run/junit.xml").read_bytes() == junit_xml(report)
    assert Path("summary.md").read_text() == to_markdown(report)
    assert "wrote new/run/junit.xml\nwrote summary.md\n" in out
    assert "auditing" not in out  # progress is for terminals


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--junit", "nowhere/j.xml"), "--junit nowhere/j.xml: there is no directory nowhere"),
        (("--markdown", "."), "--markdown . is a directory"),
        (("--markdown", "/dev/null"), "--markdown /dev/null is a device"),
        (("--junit", "new/report.json"), "written by this audit already"),
        (("--junit", "a", "--markdown", "a"), "--markdown a is written by this audit already"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_audit(
    arguments: tuple[str, ...],
    expected: str,
    audit: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("analysis.audit.audit", lambda *_, **__: pytest.fail("the audit ran"))
    code, _, err = audit("--out", "new", *arguments)
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_is_not_overwritten(audit: Callable[..., tuple[int, str, str]], checkpoint: Path) -> None:
    before = checkpoint.read_bytes()
    code, _, err = audit("--junit", str(checkpoint))
    assert code == 2
    assert "is the checkpoint itself" in err
    assert checkpoint.read_bytes() == before


def test_a_failed_write_leaves_the_old_files_and_the_verdicts(
    audit: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "j.xml").write_text("old")
    synced = os.fsync
    failing = iter([False, False, True])

    def fsync(descriptor: int) -> None:
        if next(failing):
            raise OSError("disk full")
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    code, told, err = audit("--out", ".", "--junit", "j.xml")
    assert code == 2
    assert "PROVED" in told
    assert "j.xml could not be written (disk full)" in err
    assert (tmp_path / "j.xml").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"j.xml"}


# Progress.


def test_the_estimate_is_the_work_left_at_the_speed_so_far() -> None:
    estimate = Estimate({"a": 1.0, "b": 3.0, "c": 4.0}, now=100.0)
    estimate.begin("a", 100.0)
    assert estimate.left(101.0) is None  # nothing is done yet
    estimate.begin("b", 102.0)  # an eighth took 2 s, so the rest takes 14 s
    assert estimate.left(102.0) == pytest.approx(14.0)
    assert estimate.left(110.0) == pytest.approx(6.0)
    assert estimate.left(117.0) is None  # later than was thought: no more is known
    estimate.begin("c", 118.0)
    assert estimate.left(118.0) == pytest.approx(18.0)
    estimate.begin("unheard of", 119.0)
    assert estimate.left(119.0) == pytest.approx(17.0)


def test_too_little_work_tells_nothing_of_the_rest() -> None:
    estimate = Estimate({"a": 1.0, "b": 20.0}, now=0.0)
    estimate.begin("b", 1.0)
    assert estimate.left(1.0) is None
    assert Estimate({}, now=0.0).left(1.0) is None


def test_every_step_of_an_audit_has_its_share() -> None:
    assert all(check.steps and all(seconds > 0 for seconds in check.steps.values()) for check in rows())
    told: list[str] = []
    torch.manual_seed(0)
    architecture = ArchitectureConfig(state_dim=4)
    model = StabilisedDEQ(model_config("deq", architecture, image_shape=(1, 4, 4), classes=2, mean=(0.5,), std=(0.3,)))
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    judge(model, images, torch.tensor([0, 1]), checks=["robustness"], on_check=told.append)
    assert told == ["robustness", *CHECKS["robustness"].steps]


def progress_of(terminal: bool, checks: tuple[str, ...], times: list[float], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what is shown while ``checks`` begin at ``times``."""
    now = [0.0]
    monkeypatch.setattr("analysis.commands.audit_progress.time.monotonic", lambda: now[0])
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=terminal, color_system=None)
    with shown(checks, console) as on_check:
        for check, begins in zip(checks, times, strict=True):
            now[0] = begins
            on_check(check)
    return file.getvalue()


def test_a_terminal_shows_check_place_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    output = progress_of(True, ("convexity", "decay"), [0.0, 3.0], monkeypatch)
    assert "auditing: decay (2 of 2)" in output
    assert "about 20 s left" in output  # 3 of 23 parts took 3 s


def test_what_is_piped_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress_of(False, ("positivity", "decay"), [0.0, 4.0], monkeypatch) == ""
