"""SARIF: what a code host is told of a report, valid whatever the report holds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_runs import run, save_untrained
from sample_report import sample_report
from sarif_schema import faults

from analysis.findings import Finding, Skipped, Verdict
from analysis.report.report import Report
from analysis.report.sarif import to_sarif
from stabdeq.printable import printable

pytestmark = pytest.mark.usefixtures("short_hunts")

HOSTILE = '"}]}\n[a](https://a.example) {0} \x00\x1b[31m\ud800\u202e'


def finding(verdict: Verdict, name: str = "flow", **values: Any) -> Finding:
    options: dict[str, Any] = {"check": "decay", "claim": "V falls.", "evidence": "It was seen.", "margin": -0.25}
    options |= {"samples": 3, "tolerance": 0.0, "dtype": "float64", "seed": 0}
    return Finding(name=name, verdict=verdict, **options | values)


def of(*findings: Finding, **values: Any) -> Report:
    return Report(findings=findings, **{"checkpoint": {"path": "runs/a b.safetensors"}} | values)


def only_run(report: Report) -> dict[str, Any]:
    log = json.loads(to_sarif(report))
    assert not faults(log)
    (only,) = log["runs"]
    return only


def test_a_refuted_claim_is_an_error_and_an_open_one_a_warning() -> None:
    report = of(
        finding(Verdict.REFUTED, "a", witness={"image": 7}),
        finding(Verdict.INCONCLUSIVE, "b"),
        finding(Verdict.UNKNOWN, "c", margin=float("nan")),
        finding(Verdict.SUPPORTED, "d"),
        finding(Verdict.PROVED, "e", margin=None),
    )
    told = only_run(report)
    assert [(one["ruleId"], one["level"]) for one in told["results"]] == [
        ("decay.a", "error"),
        ("decay.b", "warning"),
        ("decay.c", "warning"),
    ]
    assert told["results"][0]["message"]["text"] == "REFUTED: V falls.\nIt was seen.\nWitness:\nimage: 7"
    assert told["results"][2]["properties"]["margin"] == "nan"
    assert {rule["id"] for rule in told["tool"]["driver"]["rules"]} == {f"decay.{name}" for name in "abcde"}
    assert told["invocations"][0]["exitCode"] == 1


def test_what_was_not_run_is_a_notification() -> None:
    left = (Skipped(check="spectrum", reason="no time"), Skipped(check="convexity", reason="no wish", asked_for=False))
    told = only_run(of(finding(Verdict.PROVED), skipped=left, gaps=("A gap.",)))
    assert not told["results"]
    notes = [(note["level"], note["message"]["text"]) for note in told["invocations"][0]["toolExecutionNotifications"]]
    assert notes == [
        ("note", "Check spectrum: no time"),
        ("note", "Check convexity: no wish"),
        ("note", "Partial: 1 of 3 checks was run. Not asked for: convexity."),
        ("warning", "A gap."),
    ]


def test_a_fingerprint_stays_with_other_numbers_and_differs_between_claims() -> None:
    first = of(finding(Verdict.REFUTED), finding(Verdict.REFUTED), finding(Verdict.REFUTED, "rate"))
    again = [replace(one, claim="V falls by 2.", evidence="Seen.", margin=-3.0, seed=4) for one in first.findings]
    prints = [one["partialFingerprints"] for one in only_run(first)["results"]]
    assert prints == [one["partialFingerprints"] for one in only_run(of(*again))["results"]]
    assert [one["stabdeqClaim/v1"] for one in prints] == ["decay.flow", "decay.flow#2", "decay.rate"]
    assert len({one["primaryLocationLineHash"] for one in prints}) == 3
    elsewhere = only_run(of(finding(Verdict.REFUTED), checkpoint={"path": "another"}))["results"][0]
    assert elsewhere["partialFingerprints"]["primaryLocationLineHash"] != prints[0]["primaryLocationLineHash"]


def test_a_finding_lies_at_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def uri(path: str) -> str:
        (place,) = only_run(of(finding(Verdict.REFUTED), checkpoint={"path": path}))["results"][0]["locations"]
        return place["physicalLocation"]["artifactLocation"]["uri"]

    assert uri("runs/a b.safetensors") == uri(str(tmp_path / "runs/a b.safetensors")) == "runs/a%20b.safetensors"
    assert uri("/elsewhere/ä") == "file:///elsewhere/%C3%A4"


def test_a_finding_on_a_function_lies_in_its_module_or_file() -> None:
    def place(**command: str) -> dict[str, Any]:
        report = of(finding(Verdict.REFUTED), checkpoint={}, command={"name": "check"} | command, subject="V")
        (found,) = only_run(report)["results"][0]["locations"]
        return found

    found = place(subject="mine.energies:V")
    assert found["physicalLocation"]["artifactLocation"]["uri"] == "mine/energies.py"
    assert found["logicalLocations"] == [{"fullyQualifiedName": "mine.energies:V"}]
    assert place(subject="v.onnx")["physicalLocation"]["artifactLocation"]["uri"] == "v.onnx"
    assert place() == {"logicalLocations": [{"fullyQualifiedName": "V"}]}


def test_a_hostile_or_empty_report_is_valid() -> None:
    hostile = Report.parse(
        {
            "findings": [
                {"check": HOSTILE, "name": HOSTILE, "claim": HOSTILE, "evidence": HOSTILE, "verdict": "REFUTED"},
                {"verdict": "NEW", "margin": "inf", "witness": {HOSTILE: HOSTILE}},
            ],
            "skipped": [{"check": HOSTILE, "reason": HOSTILE}],
            "command": {"name": HOSTILE, "subject": HOSTILE},
            "checkpoint": {"path": HOSTILE},
        }
    )
    told = only_run(hostile)
    assert printable(HOSTILE) in told["results"][0]["message"]["text"]
    for result in told["results"]:
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert uri
        assert uri.isascii()
    assert only_run(Report())["invocations"][0]["exitCode"] == 3
    only_run(Report.parse(sample_report()))


def test_the_schema_finds_faults() -> None:
    log = json.loads(to_sarif(of(finding(Verdict.REFUTED))))
    log["runs"][0]["results"][0] |= {"level": "bad", "extra": 1}
    del log["runs"][0]["tool"], log["runs"][0]["results"][0]["message"]
    log["runs"][0]["invocations"][0]["exitCode"] = True
    assert len(faults(log)) == 5


def test_the_commands_write_it(folder: Path, zoo_on_path: None, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save_untrained(folder / "x.safetensors")
    assert run("audit", checkpoint, "--images", "2", "--checks", "positivity", "--sarif", "a.sarif") == 0
    assert run("certify", checkpoint, "--images", "2", "--json", "c.json", "--sarif", "c.sarif") in (0, 3)
    (folder / "own.py").write_text("def V(z):\n    return z.square().sum(1)\n\ndef f(z):\n    return z\n")
    few = ("--dim", "2", "--dynamics", "own:f", "--samples", "100", "--boxes", "100", "--starts", "2")
    assert run("check", "own:V", *few, "--sarif", "f.sarif") == 1
    for name in ("a", "c", "f"):
        assert not faults(json.loads((folder / f"{name}.sarif").read_text()))
    log = json.loads((folder / "f.sarif").read_text())["runs"][0]
    assert [one["ruleId"] for one in log["results"]] == ["decrease.decrease"]
    assert log["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "own.py"
    assert "wrote c.json\nwrote c.sarif\n" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("certify", "x"), ("check", "own:V", "--dim", "2"), ("audit", "x")])
def test_two_options_do_not_name_one_file(
    words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = "--junit" if words[0] == "audit" else "--json"
    assert run(*words, first, "a", "--sarif", "a") == 2
    assert "--sarif a is " in capsys.readouterr().err
    assert not list(folder.iterdir())
