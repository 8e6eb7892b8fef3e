"""Lines in the terminal: evidence goes on in the next line and is never cut, and those of training fit 80 columns."""

import io
from typing import Any

import pytest
import torch
from rich.console import Console as RichConsole
from sample_report import printed

from stabdeq.terminal import Console
from train.progress import Progress

FORMULA = (
    "V >= eta ||z - c||^2 with eta = 0.1 since the weights between the layers, of which the smallest is 3.2e-05, are such that "
    "||sigma(W_1 z + b_1) - sigma(W_1 c + b_1)|| <= 12.5 ||z - c|| (Lemma 2. of the page on positivity)"
)


def plain(**values: Any) -> dict[str, Any]:
    finding = {"check": "decay", "name": "flow", "claim": "V falls.", "verdict": "PROVED", "margin": None}
    return {"findings": [finding | {"samples": 1, "seed": 0, "witness": None} | values], "measurements": []}


@pytest.mark.parametrize("width", [80, 120])
def test_a_sentence_of_evidence_is_shown_whole(width: int) -> None:
    output = printed(plain(evidence=f"{FORMULA}. It was looked at twice."), width)
    words = output.split()
    assert all(word in words for word in f"{FORMULA}.".split())
    assert "twice." not in words
    assert "…" not in output


@pytest.mark.parametrize("width", [80, 120])
def test_long_names_are_folded_not_cut(width: int) -> None:
    name = "a-check-of-my-own-with-a-name"
    measured = {"check": name, "name": "n", "value": 0.5, "text": "a number"}
    output = printed(plain(check=name, evidence="Seen.") | {"measurements": [measured]}, width)
    assert "…" not in output
    for start in (0, 10):  # of the column in the table of measurements, and in that of verdicts
        assert name in "".join(line[start : start + 14].strip() for line in output.splitlines())


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, validation: float | None) -> str:
    file = io.StringIO()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(
        "train.progress.Console", lambda **options: Console(file=file, force_terminal=terminal, **options)
    )
    progress = Progress()
    progress.begin(999, 998, torch.device("cpu"), "bfloat16")
    worst = {"loss": 1234.5678, "accuracy": 1.0, "unconverged": 1.0}
    progress.update(998.5, worst)
    progress.bar.refresh()
    progress.end_epoch(999, worst, validation)
    progress.finish()
    return file.getvalue()


def test_the_lines_of_training_fit_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, terminal=False, validation=1.0).splitlines()
    assert max(map(len, lines)) <= 80
    heads, row = (line.split() for line in lines[-2:])
    assert dict(zip(heads, row, strict=True)) == {
        "epoch": "999/999",
        "loss": "1234.5678",
        "accuracy": "100.00%",
        "validation": "100.00%",
        "unconverged": "100.00%",
    }
    assert lines[-2].index("epoch") + len("epoch") == lines[-1].index("999/999") + len("999/999")
    assert shown(monkeypatch, terminal=False, validation=None).split()[-2] == "none"


def test_the_bar_of_training_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    shown_text = RichConsole(file=io.StringIO(), width=80).render_str(shown(monkeypatch, terminal=True, validation=1.0))
    assert "accuracy 100.0%  unconverged 100.0%" in shown_text.plain
    assert "left" in shown_text.plain
    assert "…" not in shown_text.plain
