"""Reports in CI: GitHub's annotations and summary, and a baseline of findings that are known."""

import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_runs import REPOSITORY, run, save_untrained

from analysis.commands.in_ci import InCI
from analysis.findings import Finding, Verdict
from analysis.report.baseline import new_or_worse
from analysis.report.github import annotations
from analysis.report.markdown import to_markdown
from analysis.report.report import Report
from stabdeq.__main__ import build_app

pytestmark = pytest.mark.usefixtures("short_hunts")

GROWS = "def V(z):\n    return z.square().sum(1)\n\ndef f(z):\n    return z\n"
CHECK = ("check", "own:V", "--dim", "2", "--dynamics", "own:f", "--samples", "100", "--boxes", "100", "--starts", "2")


def finding(verdict: Verdict, name: str = "flow", **values: Any) -> Finding:
    options: dict[str, Any] = {"check": "decay", "claim": "V falls.", "evidence": "It was seen.", "margin": -0.25}
    options |= {"samples": 3, "tolerance": 0.0, "dtype": "float64", "seed": 0}
    return Finding(name=name, verdict=verdict, **options | values)


def of(*findings: Finding) -> Report:
    return Report(findings=findings)


@pytest.fixture
def own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a V that grows along its flow in own.py."""
    (folder / "own.py").write_text(GROWS)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    return folder


# GitHub.


def test_what_does_not_hold_is_annotated_on_one_line_each() -> None:
    report = of(
        finding(Verdict.REFUTED, evidence="100 %\n::error::x"),
        finding(Verdict.INCONCLUSIVE, "a:b,c"),
        finding(Verdict.PROVED, "p"),
        finding(Verdict.SUPPORTED, "s"),
    )
    error, warning = annotations(report)
    assert error.startswith("::error title=stabdeq decay.flow REFUTED::V falls. 100 %25")
    assert "\n" not in error
    assert warning == "::warning title=stabdeq decay.a%3Ab%2Cc INCONCLUSIVE::V falls. It was seen."


def test_a_check_tells_github_where_it_is_asked_to(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(own / "summary.md"))
    (own / "summary.md").write_text("before\n")
    assert run(*CHECK) == 1
    assert "::error" not in capsys.readouterr().out
    assert (own / "summary.md").read_text() == "before\n"
    assert run(*CHECK, "--github", "--json", "r.json") == 1
    assert "\n::error title=stabdeq decrease.decrease REFUTED::" in capsys.readouterr().out
    report = Report.parse(json.loads((own / "r.json").read_text()))
    assert (own / "summary.md").read_text() == f"before\n{to_markdown(report)}\n"


@pytest.mark.parametrize("command", ["audit", "certify", "check"])
def test_outside_of_a_job_github_is_refused_before_the_work(
    command: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save_untrained(own / "x.safetensors")
    words = CHECK if command == "check" else (command, checkpoint, "--images", "2")
    assert run(*words, "--github") == 2
    out, err = capsys.readouterr()
    assert not out
    assert "GITHUB_STEP_SUMMARY" in err


# A baseline.


@pytest.mark.parametrize(
    ("before", "now", "counts"),
    [
        (Verdict.REFUTED, Verdict.REFUTED, False),
        (Verdict.INCONCLUSIVE, Verdict.REFUTED, True),
        (Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE, False),
        (Verdict.REFUTED, Verdict.INCONCLUSIVE, False),
        (Verdict.SUPPORTED, Verdict.INCONCLUSIVE, True),
        (Verdict.PROVED, Verdict.SUPPORTED, False),
        (Verdict.UNKNOWN, Verdict.INCONCLUSIVE, False),
    ],
)
def test_what_ends_worse_counts(before: Verdict, now: Verdict, counts: bool) -> None:
    assert bool(new_or_worse(of(finding(now)), of(finding(before))).findings) == counts


def test_another_claim_is_new() -> None:
    known = of(finding(Verdict.REFUTED))
    for other in ({"name": "rate"}, {"check": "spectrum"}, {"claim": "V falls by 2."}):
        assert new_or_worse(of(replace(finding(Verdict.REFUTED), **other)), known).findings
    assert not new_or_worse(of(replace(finding(Verdict.REFUTED), evidence="Else.", margin=-9.0)), known).findings


def test_a_baseline_decides_the_exit_code(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*CHECK, "--json", "known.json") == 1
    assert run(*CHECK, "--baseline", "known.json") == 0
    out = capsys.readouterr().out
    assert "REFUTED" in out
    assert "Beside the baseline: 0 of 1 claims that do not hold are new or worse." in out
    # Another claim than that of the baseline.
    assert run(*CHECK, "--radius", "2", "--baseline", "known.json") == 1
    assert "1 of 1 claims" in capsys.readouterr().out


def test_what_is_required_is_required_of_the_baseline_too(own: Path) -> None:
    of_arrays = "import numpy as np\n\n" + GROWS.replace("return z\n", "return -np.sin(z)\n")
    (own / "own.py").write_text(of_arrays)  # supported, and no proof is of arrays
    assert run(*CHECK, "--json", "known.json", "--require", "proved") == 3
    assert run(*CHECK, "--baseline", "known.json") == 0
    assert run(*CHECK, "--baseline", "known.json", "--require", "proved") == 0
    known = json.loads((own / "known.json").read_text())
    (own / "known.json").write_text(json.dumps(known | {"findings": []}))
    assert run(*CHECK, "--baseline", "known.json", "--require", "proved") == 3


def test_what_is_required_hides_nothing_that_is_worse(own: Path) -> None:
    of_arrays = "import numpy as np\n\n" + GROWS.replace("return z\n", "return -np.sin(z)\n")
    (own / "own.py").write_text(of_arrays)  # supported, and no proof is of arrays
    assert run(*CHECK, "--json", "known.json") == 0
    known = Report.parse(json.loads((own / "known.json").read_text()))
    open_now = replace(known, findings=tuple(replace(item, verdict=Verdict.INCONCLUSIVE) for item in known.findings))
    for require in (None, "proved"):
        assert InCI(known, None).exit_code(open_now, require) == 3
        assert InCI(known, None).exit_code(known, require) == 0


def test_an_audit_takes_the_report_that_it_replaces_as_its_baseline(own: Path) -> None:
    words = ("audit", save_untrained(own / "x.safetensors", "lyadeq"), "--images", "4", "--checks", "equilibrium")
    assert run(*words) == 1
    assert run(*words, "--baseline", "report.json") == 0
    assert run("certify", own / "x.safetensors", "--images", "2", "--baseline", "report.json") == 3


@pytest.mark.parametrize("text", ["{", '{"schema": 99}'])
def test_a_baseline_that_is_none_is_refused_before_the_work(
    text: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own / "known.json").write_text(text)
    assert run(*CHECK, "--baseline", "known.json") == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("stabdeq: known.json: ")


def test_a_claim_that_is_not_judged_any_more_is_told_and_decides(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held, open_before = finding(Verdict.PROVED, "rate"), finding(Verdict.REFUTED, "other")
    now, known = of(finding(Verdict.SUPPORTED)), of(finding(Verdict.SUPPORTED), held, open_before)
    assert InCI(known, tmp_path / "summary").exit_code(now) == 3
    out = capsys.readouterr().out
    assert "Beside the baseline: 0 of 0 claims" in out
    assert "Held in the baseline, not judged here: decay.rate." in out
    assert "decay.rate INCONCLUSIVE" in out  # GitHub's annotation
    assert InCI(known, None).exit_code(known) == 0
    assert InCI(now, None).exit_code(known) == 1
    # Of a claim with other numbers in its words, the name is judged.
    assert InCI(known, None).exit_code(of(*now.findings, replace(held, claim="V falls by 3."))) == 0


# The page.


def test_the_yaml_on_the_page_is_yaml_and_calls_commands_that_exist() -> None:
    page = (REPOSITORY / "docs/how-to/ci.md").read_text(encoding="utf-8")
    action, workflow, gitlab = (yaml.safe_load(one) for one in re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S))
    assert action["runs"]["using"] == "composite"
    assert all("uses" in step or "shell" in step for step in action["runs"]["steps"])
    (job,) = workflow["jobs"].values()
    used = [step["with"] for step in job["steps"] if step.get("uses") == "./.github/actions/stabdeq"]
    assert [set(given) for given in used] == [set(action["inputs"])]
    lines = [step["run"] for step in action["runs"]["steps"] if "run" in step] + gitlab["audit"]["script"]
    commands = [words[1:] for line in lines if (words := shlex.split(line))[0] == "stabdeq"]
    assert len(commands) == 2
    for words in commands:
        build_app().parse_args(words, exit_on_error=False, print_error=False)
    assert action["runs"]["steps"][1]["with"]["sarif_file"] in commands[0]
    assert gitlab["audit"]["artifacts"]["reports"]["junit"] in commands[1]
