"""A test that is left out: listed on a contributor's machine, a failure on one that should have what it needs."""

import pytest
from conftest import MAY_BE_MISSING, _unless_required


def skipped(reason: str) -> pytest.TestReport:
    where = ("test_browser.py", 20, f"Skipped: {reason}")
    return pytest.TestReport("tests/x.py::test", where, {}, "skipped", where, "setup")


@pytest.mark.parametrize("setting", ["list", None])
def test_a_test_may_be_left_out(setting: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABDEQ_SKIPS", setting) if setting else monkeypatch.delenv("STABDEQ_SKIPS", raising=False)
    assert _unless_required(skipped("no chromium")).skipped


def test_where_everything_should_be_there_it_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABDEQ_SKIPS", "fail")
    report = _unless_required(skipped("no chromium"))
    assert report.failed
    assert "no chromium" in str(report.longrepr)
    module = pytest.CollectReport("tests/x.py", "skipped", ("x.py", 1, "Skipped: could not import 'torchdeq'"), [])
    assert _unless_required(module).failed
    for reason in MAY_BE_MISSING:
        assert _unless_required(skipped(f"{reason} here")).skipped


def test_what_passed_or_failed_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABDEQ_SKIPS", "fail")
    report = pytest.TestReport("tests/x.py::test", ("x.py", 1, "test"), {}, "passed", None, "call")
    assert _unless_required(report).passed
