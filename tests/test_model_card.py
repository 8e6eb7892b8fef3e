"""The model card: valid YAML above Markdown that shows each text as it stands, of a report and the checkpoint of its hash."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_runs import run
from sample_report import sample_report
from tiny_checkpoints import tiny_checkpoint, tiny_model

from analysis.report.front_matter import yaml_lines
from stabdeq.checkpoint import load_checkpoint, save_checkpoint

HOSTILE = 'a"b\n---\n# c | <script>x</script> [l](javascript:1) `{{ 7*7 }}`\x1b[31m\u202e\ud800 ﻿\U0001f600: - &x *y'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint, and a report that is about it."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_checkpoint(Path("model.safetensors"), tiny_checkpoint(tiny_model()))
    write_report({})
    return tmp_path


def write_report(changes: dict[str, Any]) -> None:
    command = {"name": "audit", "subject": "model.safetensors", "options": {"images": 4}}
    plain = {"command": command} | sample_report() | changes
    checkpoint = {"path": "model.safetensors", "sha256": load_checkpoint(Path("model.safetensors")).sha256}
    Path("report.json").write_text(json.dumps(plain | {"checkpoint": plain["checkpoint"] | checkpoint}))


def card() -> tuple[dict[str, Any], str]:
    """The head of the card and its text."""
    assert run("report", "report.json", "--card", "README.md") == 0
    text = Path("README.md").read_text(encoding="utf-8")
    start, head, body = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(head), body


def test_what_a_card_says(folder: Path) -> None:
    head, body = card()
    assert head["stabdeq"]["verdicts"] == {"PROVED": 2, "SUPPORTED": 2, "INCONCLUSIVE": 1, "REFUTED": 1}
    assert head["stabdeq"]["refuted"] is True
    assert head["stabdeq"]["checkpoint_sha256"] == load_checkpoint(Path("model.safetensors")).sha256
    assert head["tags"][-1] == "lyadeq-anchored"
    assert head["model-index"][0]["results"] == []  # the best validation may be that of another epoch's weights
    assert "| validation images, best epoch so far | 30 % | the checkpoint |" in body
    headings = re.findall(r"^## (.*)$", body, re.MULTILINE)
    assert headings == ["Claims", "Accuracy", "Model", "Data and training", "Limits", "Replay", "Hashes"]
    verdicts = re.findall(r"^\| . ([A-Z]+) \|", body, re.MULTILINE)
    assert verdicts == ["REFUTED", "INCONCLUSIVE", "SUPPORTED", "SUPPORTED", "PROVED", "PROVED"]
    assert body.index("One claim is refuted, and 1 could not be settled.") < body.index("## Claims")
    assert "At distance 9.41 from the centre V grows" in body
    assert "Not judged: convexity, not among the checks asked for." in body
    assert (
        "images of 1 x 3 x 3 (channels, height, width) into 2 classes" in body
    )  # of the checkpoint, not as the report has it
    assert "stabdeq verify model.safetensors report.json\n" in body
    assert "stabdeq replay report.json --checkpoint model.safetensors\n" in body


def test_accuracies_are_told_with_who_measured_them(folder: Path) -> None:
    Path("metrics.jsonl").write_text('{"epoch": 2, "test_accuracy": 0.75, "test_unconverged": 0}\n')
    measured = [
        {"check": "radius", "name": "accuracy", "value": 0.5, "text": "accuracy on 40 test images"},
        {"check": "radius", "name": "certified accuracy 0.1", "value": "nan", "text": "lost"},
        {"check": "radius", "name": "largest", "value": 0.25, "text": "another number"},
    ]
    write_report({"measurements": measured, "sample": {"images": [3, 1, 2, 7], "right": 1}})
    head, body = card()
    metrics = head["model-index"][0]["results"][0]["metrics"]
    assert [(item["name"], item["value"]) for item in metrics] == [
        ("test images", 0.75),
        ("4 test images that were audited", 0.25),
        ("accuracy on 40 test images", 0.5),
    ]
    assert "| test images | 75 % | metrics.jsonl beside the checkpoint |" in body
    Path("metrics.jsonl").write_text(
        '{"epoch": 9, "test_accuracy": 0.75, "test_unconverged": 0}\n'
    )  # of another checkpoint
    assert "75 %" not in card()[1]


def hostile(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: hostile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) and value not in ("REFUTED", "PROVED") else value


def test_texts_of_others_stay_text(folder: Path) -> None:
    plain = {key: hostile(value) for key, value in sample_report().items() if key != "checkpoint"}
    plain["measurements"].append({"check": "radius", "name": "accuracy", "value": 0.5, "text": HOSTILE})
    with torch.random.fork_rng(devices=[]):
        save_checkpoint(Path("model.safetensors"), tiny_checkpoint(class_names=(HOSTILE.replace("\ud800", ""), "dog")))
    write_report(plain)
    head, body = card()
    assert head["model-index"][0]["results"][0]["metrics"][0]["name"].startswith('a"b --- # c | <script>')
    for odd in ("<script", "\x1b", "\u202e", "](javascript", "`{{", "\n# c", "\n---"):
        assert odd not in body
    assert len(re.findall(r"^\| . [A-Z]+ \|", body, re.MULTILINE)) == 6
    for row in re.findall(r"^\| .*$", body, re.MULTILINE):
        assert row.count("|") in (3, 4, 5)


def test_yaml_says_what_was_put_in() -> None:
    plain = {
        "texts": ["yes", "1e3", "- a: b", "null", "é \U0001f600", ""],
        "numbers": [0.000001, 1, True, 10**30],
        "groups": [{"a": 1, "b": ["x"], "c": {"d": "e"}}, {"a": []}],
    }
    assert yaml.safe_load("\n".join(yaml_lines(plain))) == plain
    assert yaml.safe_load("\n".join(yaml_lines({"x": HOSTILE})))["x"].startswith('a"b --- # c')


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("report.json", "--checkpoint", "model.safetensors"), "name its file with --card"),
        (("report.json", "--card", "report.json"), "--card report.json is a file that the card is made of"),
        (("report.json", "--card", "no/README.md"), "there is no directory no"),
        ((".", "--card", "README.md"), "give the report.json of an audit"),
        (
            ("report.json", "--card", "README.md", "--checkpoint", "other.safetensors"),
            "its SHA-256 is not that of the report",
        ),
        (("python.json", "--card", "README.md"), "names no checkpoint with its SHA-256"),
    ],
)
def test_what_no_card_is_made_of(
    arguments: tuple[str, ...], expected: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other.safetensors").write_bytes(Path("model.safetensors").read_bytes() + b" ")
    Path("python.json").write_text(json.dumps(sample_report() | {"checkpoint": {}}))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert run("report", *arguments) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
