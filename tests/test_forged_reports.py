"""A page and a card say what the file says, cut nothing to another number, and take no other's images for the test split's."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command_runs import run
from sample_report import sample_report
from test_curves import drawn, figure, line
from tiny_checkpoints import tiny_checkpoint, tiny_model

import analysis.verify as verify_module
from analysis.report import formulas
from analysis.report.formulas import typeset
from analysis.report.header import facts
from analysis.report.reading import parse, read_report
from stabdeq.checkpoint import load_checkpoint, save_checkpoint

DRAWN = {"name": "audit", "subject": "model.safetensors", "options": {"images": 2, "seed": 0}}
SHARES = {"images": [4, 7], "right": 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_checkpoint(Path("model.safetensors"), tiny_checkpoint(tiny_model()))
    return tmp_path


def card(changes: dict[str, Any]) -> tuple[list[Any], str]:
    """The results in the head of a card of the sample report with ``changes``, and its text."""
    plain = sample_report() | changes
    named = {"path": "model.safetensors", "sha256": load_checkpoint(Path("model.safetensors")).sha256}
    Path("report.json").write_text(json.dumps(plain | {"checkpoint": plain["checkpoint"] | named}))
    assert run("report", "report.json", "--card", "card.md") == 0
    text = Path("card.md").read_text(encoding="utf-8")
    return yaml.safe_load(text.split("---\n", 2)[1])["model-index"][0]["results"], text


def visible(markup: str) -> str:
    return re.sub("<[^>]*>", "", markup)


def test_images_that_were_given_are_not_those_of_the_test_split(folder: Path) -> None:
    np.savez("own.npz", images=np.arange(54, dtype=np.uint8).reshape(6, 1, 3, 3), labels=np.arange(6) % 2)
    run("audit", "model.safetensors", "--images", "own.npz", "--checks", "equilibrium", "--out", "own")
    report = read_report(Path("own/report.json"))
    told = {fact.name: fact.value for fact in facts(report)}
    assert told["Data"] == "6 images that were given, not drawn from the test split of digits"
    assert run("report", "own/report.json", "--card", "card.md") == 0
    text = Path("card.md").read_text(encoding="utf-8")
    assert yaml.safe_load(text.split("---\n", 2)[1])["model-index"][0]["results"] == []
    assert "| 6 images that were given to the audit |" in text
    assert "stabdeq verify" not in text  # which cannot repeat it
    assert "No command repeats it" in text


def test_a_model_index_has_the_accuracies_of_these_weights_on_the_data_set_alone(folder: Path) -> None:
    """The best validation accuracy may be that of another epoch's weights."""
    (result,), text = card({"sample": SHARES, "command": DRAWN})
    expected = {"type": "accuracy", "name": "2 test images that were audited", "value": 0.5}
    assert result["metrics"] == [expected]
    assert "validation images, best epoch so far | 30 %" in text
    assert card({"sample": SHARES})[0] == []


def test_an_environment_in_a_report_replaces_no_hash_of_a_card(folder: Path) -> None:
    forged = {"report_sha256": "f" * 64, " checkpoint_sha256\n": "f" * 64, "torch": "2.0"}
    text = card({"environment": forged})[1]
    assert "f" * 64 not in text
    assert "| torch | 2.0 |" in text


@pytest.mark.parametrize("right", [10**400, -1, 3, True, 0.5, None])
def test_a_count_that_cannot_be_is_no_accuracy(folder: Path, right: object) -> None:
    assert card({"sample": SHARES | {"right": right}, "command": DRAWN})[0] == []


def test_all_but_one_image_are_not_all(folder: Path) -> None:
    count = 26032
    report = parse(sample_report() | {"sample": {"images": list(range(count)), "right": count - 1}})
    assert next(fact.value for fact in facts(report)) == f"99.99 %, {count - 1} of {count} images"
    assert "Best validation accuracy 99.99 %" in drawn(folder, line(1, validation_accuracy=1 - 1 / count))[1]
    Path("metrics.jsonl").write_text(json.dumps({"epoch": 2, "test_accuracy": 1 - 1e-8}) + "\n")
    (result,), text = card({})
    assert result["metrics"][0]["value"] == 1 - 1e-8
    assert "| test images | 99.99 % |" in text


def test_verify_finds_another_number_of_right_answers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told, again = (parse(sample_report() | {"sample": SHARES | {"right": right}}) for right in (2, 1))
    found = list(verify_module._differences(told, again, load_checkpoint(Path("model.safetensors")), Path("none.json")))
    (other,) = [one for one in found if "classified" in one.what]
    assert (other.reported, other.now, other.decides) == ("2", "1", True)


@pytest.mark.parametrize("place", range(16))
def test_a_number_at_the_longest_formulas_end_is_shown_whole(place: int) -> None:
    text = "V" + place * "'" + " <= " + 55 * "c + " + "1234567.0012345e-05 end"
    assert visible(typeset(text)).endswith("12.3456… end")


def test_a_long_text_that_looks_like_a_formula_is_read_in_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    reader: Callable[[str], Any] = formulas._Reader
    monkeypatch.setattr(formulas, "_Reader", lambda text: made.append(text) or reader(text))
    assert visible(typeset("a^" * 5000)) == "a^" * 5000
    assert len(made) < 500


def test_a_number_below_what_a_float_holds_is_not_0() -> None:
    assert visible(typeset("V <= 1e-400")).endswith("10⁻⁴⁰⁰")


@pytest.mark.parametrize(
    "text", ["0.0% of 10000 images", "1 000 000 states", "at 12:00", "-0.00", "12345678.9 seconds"]
)
def test_a_rounded_zero_and_other_digits_stay_as_they_are(text: str) -> None:
    """ "0.0%" may be 3 of 10000."""
    assert visible(typeset(text)) == text.replace("-", "−")


def test_names_that_look_alike_are_each_drawn(folder: Path) -> None:
    """An objective may call its number "Loss"; a long name is cut in a title."""
    names = {"Loss": 4.0, "x" * 50 + "1": 5.0, "x" * 50 + "2": 6.0, "a\u202e": 7.0, "a\u202d": 8.0}
    _, page = drawn(folder, line(1, **names) + line(2, **names))
    assert "cross_entropy from 2 to 1" in figure(page, "Loss")
    for title, value in (("Loss#2", 4), ("x" * 40, 5), ("x" * 40 + "#2", 6), ("a\ufffd", 7), ("a\ufffd#2", 8)):
        assert f"from {value} to {value}" in figure(page, title)


@pytest.mark.parametrize("target", ["report.json", "model.safetensors", "metrics.jsonl"])
def test_a_card_overwrites_nothing_that_it_is_made_of(folder: Path, target: str) -> None:
    card({})
    Path("metrics.jsonl").write_text(line(1))
    Path("linked.md").hardlink_to(target)
    before = Path(target).read_bytes()
    for name in (target, "linked.md"):
        assert run("report", "report.json", "--card", name) == 2
        assert Path(target).read_bytes() == before
