"""A check of somebody's own, defined in this file alone: one row, and every report, replay and estimate knows it."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from command_runs import run, save_untrained
from rich.console import Console
from sample_report import Page
from small_models import images, model
from torch import Tensor

from analysis.audit import audit
from analysis.checks.witness import Replay, at_equilibrium, state_of
from analysis.commands.audit_progress import shown
from analysis.compare import compare_reports
from analysis.findings import CheckResult, Finding, Measurement, Verdict
from analysis.findings.catalogue import CHECKS, Check, ClaimWords, default_checks, register_check
from analysis.findings.values import numbers
from analysis.measure.subject import Subject
from analysis.replay import Replayer
from analysis.report import drawing
from analysis.report.drawing import Drawing
from analysis.report.figures.series import finite, require
from analysis.report.junit import junit_xml
from analysis.report.markdown import to_markdown
from analysis.report.page import render_html
from analysis.report.report import Report
from stabdeq.errors import NotReplayableError

LARGEST = 1e-3  # norm that an equilibrium may have
FAILS = "We found an image whose resting state lies far out."


def run_toy(subject: Subject) -> CheckResult:
    """Judge whether every equilibrium is small."""
    norms = subject.equilibria.norm(dim=1)
    worst = int(norms.argmax())
    largest = float(norms[worst])
    finding = Finding(
        check="toy",
        name="small",
        claim=f"Every equilibrium has a norm of at most {LARGEST:g}.",
        verdict=Verdict.REFUTED if largest > LARGEST else Verdict.SUPPORTED,
        margin=LARGEST - largest,
        evidence=f"The largest norm is {largest:.4g}.",
        samples=len(norms),
        tolerance=0.0,
        dtype="float64",
        seed=subject.seed,
        witness={"image": int(subject.indices[subject.found[worst]]), "state": subject.equilibria[worst].tolist()},
    )
    measured = Measurement(check="toy", name="mean", value=float(norms.mean()), text="mean norm of the equilibria")
    return CheckResult(findings=[finding], measurements=[measured], series={"norms": norms.tolist()})


def replay_toy(subject: Subject, finding: Finding) -> Replay:
    """Say whether the witness is an equilibrium, and how large."""
    state = state_of(finding, "state", subject.dim)
    again = at_equilibrium(subject, state)
    if isinstance(again, Replay):
        return again
    norm = float(state.norm())
    reported = None if finding.margin is None else LARGEST - finding.margin
    return Replay(quantity="norm", reported=reported, now=norm, refutes=norm > LARGEST)


def draw_norms(title: str, series: dict[str, Any]) -> Drawing:
    norms = numbers(series.get("norms"))
    require(finite(norms))
    figure, axes = drawing.new_axes("image", "norm")
    axes.plot(norms)
    return Drawing(
        name="norms",
        title=title,
        caption="The norm of each equilibrium.",
        alternative="Line chart of norms.",
        svg=drawing.inline_svg(figure, "norms", "Line chart of norms."),
        table=drawing.table(["norm"], [[norm] for norm in norms]),
    )


TOY = Check(
    name="toy",
    question="Do the equilibria lie near the origin?",
    claims=(ClaimWords(name="small", holds="every resting state lies near the origin", fails=FAILS),),
    run=run_toy,
    replay=replay_toy,
    seconds={"": 5.0},
    needs=frozenset({"image", "equilibria"}),
    figures={"Norms of the equilibria": draw_norms},
)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[Check], None]:
    """What registers a check for one test."""
    monkeypatch.setattr(CHECKS, "_registered", {})
    return register_check


@pytest.fixture(autouse=True)
def toy(register: Callable[[Check], None]) -> None:
    register(TOY)


def sample() -> tuple[Tensor, Tensor]:
    return images(6).double(), torch.arange(6) % 3


def fetch(places: list[int]) -> tuple[Tensor, Tensor]:
    x, labels = sample()
    return x[places], labels[places]


def toy_report() -> Report:
    return audit(model(), *sample(), checks=["toy"])


def test_the_audit_makes_it_after_its_own() -> None:
    assert default_checks()[-1] == "toy"
    told: list[str] = []
    report = audit(model(), *sample(), checks=["toy", "equilibrium"], on_check=told.append)
    assert told == ["equilibrium", "toy"]
    assert report["toy"].verdict == "REFUTED"
    assert report["toy"].series["toy"]["norms"]
    assert report.named["toy.small"].seconds > 0
    (image,) = report.images
    assert int(image) == report.named["toy.small"].witness["image"]


def test_the_terminal_shows_it() -> None:
    text = " ".join(str(toy_report()).split())
    assert "✗ REFUTED toy Every equilibrium has a norm of at most 0.001. The largest norm is" in text
    assert "toy mean norm of the equilibria" in text


def test_the_page_shows_question_words_witness_and_figure() -> None:
    html = render_html(Report.parse(json.loads(toy_report().to_json())))
    page = unescape(html)
    Page(html)
    for words in (
        "<h3>toy</h3>",
        TOY.question,
        FAILS,
        "Every equilibrium has a norm",
        "Norms of the equilibria",
        "The norm of each equilibrium.",
        "mean norm of the equilibria",
        "6 components from",
    ):
        assert words in page
    assert html.count("<figure>") == 1
    lacking = render_html(replace(toy_report(), series={}))
    assert "“Norms of the equilibria” is not drawn: the report holds no usable numbers for it." in lacking


def test_junit_markdown_and_comparison_hold_it() -> None:
    report = toy_report()
    case, *others = ElementTree.fromstring(junit_xml(report))[0]
    assert {other[0].tag for other in others} == {"skipped"}  # the checks that were not asked for
    assert (case.get("classname"), case.get("name"), case[0].tag) == ("toy", "small", "failure")
    assert "| ✗ REFUTED | toy | Every equilibrium has a norm of at most 0.001. |" in to_markdown(report)
    (group,) = compare_reports([report, report], ["a", "b"]).groups
    assert (group.check, group.question) == ("toy", TOY.question)


def test_its_witness_is_evaluated_anew() -> None:
    report = toy_report()
    finding = report.named["toy.small"]
    again = Replayer(report=report, model=model(), fetch=fetch).replay(finding)
    assert again.refutes
    assert again.is_same_amount
    other = Replayer(report=report, model=model(seed=1), fetch=fetch).replay(finding)
    assert (other.refutes, other.quantity) == (False, "residual of the equilibrium")
    with pytest.raises(NotReplayableError, match="names no image"):
        Replayer(report=report, model=model(), fetch=fetch).replay(replace(finding, witness={}))


def test_the_commands_make_it_and_replay_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_untrained(tmp_path / "checkpoint.safetensors")
    assert run("audit", path, "--checks", "toy", "--samples", "5") == 1
    assert run("replay", "report.json", "--finding", "toy.small") == 0
    assert "1 of 1 witnesses refute their claim again." in capsys.readouterr().out
    assert "stabdeq replay report.json --finding toy.small" in Path("report.html").read_text()


def progress(names: tuple[str, ...], steps: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a terminal shows where ``steps`` begin at those seconds."""
    now = [0.0]
    monkeypatch.setattr("analysis.commands.audit_progress.time.monotonic", lambda: now[0])
    file = io.StringIO()
    with shown(names, Console(file=file, width=100, force_terminal=True, color_system=None)) as on_check:
        for step, begins in steps.items():
            now[0] = begins
            on_check(step)
    return file.getvalue()


def test_the_time_left_counts_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    output = progress(("positivity", "toy"), {"positivity": 0.0, "toy": 3.0}, monkeypatch)
    assert "auditing: toy (2 of 2)" in output
    assert "about 15 s left" in output  # one part of six took 3 s


def test_a_check_in_steps_tells_of_each(register: Callable[[Check], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def in_steps(subject: Subject, on_step: Callable[[str], None] = lambda step: None) -> CheckResult:
        for step in ("norms", "the rest"):
            on_step(step)
        result = run_toy(subject)
        return replace(result, findings=[replace(item, check="slow") for item in result.findings], measurements=[])

    slow = replace(TOY, name="slow", run=in_steps, seconds={"norms": 1.0, "the rest": 3.0}, on_request=True)
    register(slow)
    assert "slow" not in default_checks()
    told: list[str] = []
    assert audit(model(), *sample(), checks=["slow"], on_check=told.append).named["slow.small"].verdict == "REFUTED"
    assert told == ["slow", "slow: norms", "slow: the rest"]
    output = progress(
        ("toy", "slow"), {"toy": 0.0, "slow": 7.0, "slow: norms": 8.0, "slow: the rest": 10.0}, monkeypatch
    )
    assert "auditing: slow: the rest (2 of 2)" in output
    assert "about 10 s left" in output  # one part of four took 2 s, whatever the checks before took


def test_a_check_that_judges_all_images_at_once_is_run_again_once(register: Callable[[Check], None]) -> None:
    runs: list[int] = []

    def counted(subject: Subject) -> CheckResult:
        runs.append(len(subject.images))
        result = run_toy(subject)
        return replace(result, findings=[replace(item, check="whole") for item in result.findings], measurements=[])

    def compared(subject: Subject, finding: Finding, again: CheckResult) -> Replay:
        (now,) = again.findings
        return Replay(quantity="margin", reported=finding.margin, now=now.margin, refutes=now.verdict == "REFUTED")

    register(replace(TOY, name="whole", run=counted, replay=compared, all_images_at_once=True))
    report = audit(model(), *sample(), checks=["whole"])
    replayer = Replayer(report=report, model=model(), fetch=fetch)
    for _ in range(2):
        again = replayer.replay(report.findings[0])
        assert again.refutes
        assert again.is_same_amount
    assert runs == [6, 6]


def test_what_it_needs_is_asked_first(register: Callable[[Check], None]) -> None:
    register(replace(TOY, name="of v", needs=frozenset({"lyapunov"})))
    report = audit(model(), *sample(), checks=["of v"])
    assert [item.reason for item in report.skipped if item.asked_for] == [
        "the model has no Lyapunov function, so it claims nothing here"
    ]
    assert report.exit_code == 3
