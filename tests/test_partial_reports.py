"""A report of a part of what is judged by default says so wherever it is shown; a whole one says nothing of the kind."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from command_runs import run, save_untrained
from sample_report import printed

import stabdeq
from analysis.audit import audit
from analysis.compare import compare_reports
from analysis.findings.catalogue import default_checks
from analysis.report.report import Report
from stabdeq.solvers import Picard, solve

pytestmark = pytest.mark.usefixtures("short_hunts")

SAID = "Partial: 2 of 7 checks were run."
NAMED = "Not asked for: equilibrium, decay, separation, spectrum, convergence."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what an audit of two checks wrote, and what it printed."""
    folder = tmp_path_factory.mktemp("partial")
    model = save_untrained(folder / "model.safetensors", "lyadeq")
    given = ("--checks", "positivity,convexity", "--images", "4", "--out", folder / "audit")
    assert run("audit", model, *given, "--junit", folder / "junit.xml", "--markdown", folder / "audit.md") == 0
    return folder


def test_the_report_names_what_was_not_asked_for(folder: Path) -> None:
    plain = json.loads((folder / "audit" / "report.json").read_text())
    left = {one["check"]: one for one in plain["skipped"]}
    assert left.keys() == set(default_checks()) - {"positivity", "convexity"}
    assert all(one["asked_for"] is False and one["reason"] for one in left.values())
    report = Report.parse(plain)
    assert report.partial == f"{SAID} {NAMED}"
    assert repr(report).endswith(", partial>")
    assert report.exit_code == 0


def test_whatever_shows_it_says_so(folder: Path) -> None:
    plain = json.loads((folder / "audit" / "report.json").read_text())
    terminal = printed(plain, 200)
    assert f"{SAID} {NAMED}" in terminal
    assert "Skipped" not in terminal  # said once
    page = (folder / "audit" / "report.html").read_text()
    assert f'<p class="gap">{SAID} {NAMED}</p>' in page
    assert "Skipped: not among those asked for" not in page  # said once
    assert f"> **{SAID} {NAMED}**" in (folder / "audit.md").read_text()
    (suite,) = ElementTree.fromstring((folder / "junit.xml").read_bytes())
    assert SAID in suite.get("name", "")
    assert suite.get("skipped") == "5"
    report = Report.parse(plain)
    compared = compare_reports([report, report], ["a", "b"])
    assert [f"{letter}: {SAID} {NAMED}" for letter in "AB"] == compared.warnings[:2]


def test_a_report_without_its_marks_is_no_partial_one() -> None:
    plain = {"skipped": [{"check": "decay", "reason": "the model has no V", "asked_for": "no"}, {"check": "spectrum"}]}
    assert not Report.parse(plain).partial


def test_what_a_model_does_not_claim_is_not_left_out() -> None:
    class Bare:
        lyapunov = None

        def inject(self, x):
            return x.flatten(1)

        def cell(self, z, h):
            return 0.5 * z + h

        def readout(self, z):
            return z

        def solve(self, h):
            return solve(lambda z: self.cell(z, h), torch.zeros_like(h), Picard(), tolerance=1e-8, max_evaluations=50)

    x, labels = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    report = audit(Bare(), x, labels, checks=["decay", "spectrum"])
    assert report.partial.startswith("Partial: 1 of 7 checks was run.")
    assert not Report(findings=report.findings, skipped=tuple(one for one in report.skipped if one.asked_for)).partial


def test_claims_that_were_not_asked_for_are_named() -> None:
    stated = {"dim": 2, "samples": 64, "starts": 2, "boxes": 64}
    report = stabdeq.check(lambda z: z.square().sum(1), lambda z: -z, claims=["decrease"], **stated)
    assert report.partial == "Partial: 1 of 4 claims was judged. Not asked for: zero, positive, equilibrium."
    whole = stabdeq.check(lambda z: z.square().sum(1), lambda z: -z, **stated)
    assert not whole.partial
    assert not whole.skipped
    more = stabdeq.check(lambda z: z.square().sum(1), claims=["zero", "positive", "convex"], **stated)
    assert not more.partial


def test_uncertain_dynamics_and_barriers_have_their_own_claims() -> None:
    def uncertain(z, d):
        return -z + 0.1 * d

    stated = {"dim": 2, "samples": 64, "starts": 2, "boxes": 64, "box": (-1, 1)}
    moved = {"uncertain": uncertain, "disturbance": [(-0.1, 0.1)] * 2, "from_level": 0.5}
    report = stabdeq.check(lambda z: z.square().sum(1), claims=["decrease"], **moved, **stated)
    assert report.partial == "Partial: 1 of 3 claims was judged. Not asked for: zero, positive."
    sets = {"initial": lambda z: z.square().sum(1) - 0.1, "unsafe": lambda z: 1.5 - z.sum(1)}
    report = stabdeq.check(
        lambda z: z.square().sum(1) - 0.5, lambda z: -z, claims=["initial", "unsafe"], **sets, **stated
    )
    assert report.partial == "Partial: 2 of 3 claims were judged. Not asked for: barrier."
