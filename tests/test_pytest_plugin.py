"""The pytest plugin, in sessions of pytest of its own."""

import json
import tomllib
from pathlib import Path

import pytest
from command_runs import REPOSITORY, save_untrained

from analysis.report.report import Report

pytest_plugins = ["pytester"]
PLUGIN = ("-p", "stabdeq.pytest_plugin", "-p", "no:cacheprovider", "--strict-markers")

TESTS = """
import pytest

@pytest.mark.stabdeq
def test_claims(audit):
    audit("x.safetensors", checks=["equilibrium"], samples=2, seed=1)

@pytest.mark.stabdeq
def test_of_others(audit):
    report = audit("x.safetensors", checks=["positivity"], samples=2)
    assert report.holds

def test_proof():
    from stabdeq.testing import assert_proved
    assert_proved(lambda z: z.square().sum(1), dim=2, samples=100, starts=2)

def test_none():
    pass
"""


@pytest.fixture
def project(pytester: pytest.Pytester, repository_on_path: None) -> pytest.Pytester:
    """A project with four tests, two of them of a checkpoint whose stabilised field has lost its equilibrium."""
    save_untrained(pytester.path / "x.safetensors", "lyadeq")
    pytester.makepyfile(test_own=TESTS)
    return pytester


def test_the_project_names_the_plugin() -> None:
    plain = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    # The name is that of the module: pytest refuses one module under two names, and -p gives it this one.
    assert plain["project"]["entry-points"]["pytest11"] == {"stabdeq.pytest_plugin": "stabdeq.pytest_plugin"}


def test_it_brings_a_marker_and_an_option_and_no_torch(pytester: pytest.Pytester, repository_on_path: None) -> None:
    pytester.makepyfile(
        "import sys\n\ndef test_light(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.has_plugin('stabdeq.pytest_plugin')\n"
        "    assert not {'torch', 'numpy', 'hypothesis'} & set(sys.modules)\n"
    )
    told = pytester.runpytest_subprocess(*PLUGIN, "-p", "no:hypothesispytest", "--stabdeq-report", "r.json")
    told.assert_outcomes(passed=1)
    assert json.loads((pytester.path / "r.json").read_text()) == {"schema": 1, "reports": []}
    told = pytester.runpytest_subprocess(*PLUGIN, "--markers")
    told.stdout.fnmatch_lines(["@pytest.mark.stabdeq: judges a model or a Lyapunov function*"])


def test_a_refuted_claim_fails_its_test_and_all_reports_are_gathered(project: pytest.Pytester) -> None:
    told = project.runpytest_subprocess(*PLUGIN, "-n", "2", "--stabdeq-report=all.json")
    told.assert_outcomes(passed=3, failed=1)
    told.stdout.fnmatch_lines(
        [
            '>   *audit("x.safetensors", checks=?"equilibrium"?, samples=2, seed=1)',
            "E * AssertionError: One claim is refuted.",
            "E * REFUTED: The stabilised field has the equilibrium that the model reads its prediction from.",
            "E * witness: image: *",
            "E * To keep this case, paste:",
            "E * audit('x.safetensors', checks=?'equilibrium'?, samples=2, seed=1)",
        ]
    )
    gathered = json.loads((project.path / "all.json").read_text())
    assert gathered["schema"] == 1
    names = ["test_own.py::test_claims", "test_own.py::test_of_others", "test_own.py::test_proof"]
    assert [one["test"] for one in gathered["reports"]] == names
    reports = [Report.parse(one["report"]) for one in gathered["reports"]]
    assert [report.exit_code for report in reports] == [1, 0, 0]
    assert not any(report.gaps for report in reports)


def test_the_marker_selects(project: pytest.Pytester) -> None:
    told = project.runpytest_subprocess(*PLUGIN, "-m", "stabdeq", "--collect-only", "-q")
    told.stdout.fnmatch_lines(["test_own.py::test_claims", "test_own.py::test_of_others", "2/4 tests collected*"])


@pytest.mark.parametrize("file", ["nowhere/r.json", ".", "x" * 256])
def test_a_file_that_cannot_be_written_is_refused_at_the_start(
    file: str, pytester: pytest.Pytester, repository_on_path: None
) -> None:
    told = pytester.runpytest_subprocess(*PLUGIN, f"--stabdeq-report={file}")
    assert told.ret == pytest.ExitCode.USAGE_ERROR
    told.stderr.fnmatch_lines([f"ERROR: *{file}*"])


def test_the_line_names_models_and_tensors_by_their_role(pytester: pytest.Pytester) -> None:
    from stabdeq.pytest_plugin import _line

    options = {"images": [1.0], "labels": [0], "checks": ["decay", "spectrum"], "seed": 3}
    assert _line(object(), options, "decay") == "audit(model, images=images, labels=labels, checks=['decay'], seed=3)"
    assert _line(Path("a b"), {}, "decay") == "audit('a b', checks=['decay'])"
