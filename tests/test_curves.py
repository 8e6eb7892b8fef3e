"""The curves of a training: drawn as they are, with a sentence for all that is cut off, damaged, missing or not finite."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command_runs import run
from sample_report import Page

from analysis.report import training_log
from analysis.report.curves import render_curves
from analysis.report.training_log import read_training
from stabdeq.errors import ReportError
from stabdeq.metrics_lines import METRICS_NAME

TEST = {"epoch": 3, "test_accuracy": 0.875, "test_unconverged": 0.0}


def line(epoch: int, **values: Any) -> str:
    numbers = {
        "loss": 3.0 / epoch,
        "cross_entropy": 2.0 / epoch,
        "accuracy": 0.5,
        "unconverged": 0.0,
        "evaluations": 7.5,
    }
    return (
        json.dumps({"epoch": epoch, **numbers, "learning_rate": 1e-3, "validation_accuracy": epoch / 10, **values})
        + "\n"
    )


WHOLE = line(1) + line(2) + line(3, validation_accuracy=0.2) + json.dumps(TEST) + "\n"


def drawn(folder: Path, content: str | bytes) -> tuple[list[str], str]:
    """What is said of a metrics.jsonl with this content, and its page."""
    (folder / METRICS_NAME).write_bytes(content if isinstance(content, bytes) else content.encode())
    log = read_training(folder)
    return log.gaps, render_curves(log)


def figure(page: str, title: str) -> str:
    (found,) = re.findall(rf"<figure>\s*<h3>{re.escape(title)}</h3>.*?</figure>", page, re.DOTALL)
    return found


def test_a_whole_training_is_drawn_without_a_gap(tmp_path: Path) -> None:
    gaps, html = drawn(tmp_path, WHOLE)
    assert gaps == []
    page = Page(html)
    assert not {"script", "img", "link"} & set(page.tags)
    assert "http" not in html.replace('http-equiv="Content-Security-Policy"', "")
    assert len(page.ids) == len(set(page.ids))
    titles = re.findall(r"<figure>\s*<h3>(.*?)</h3>", html)
    assert titles == ["Loss", "Accuracy", "Solver iterations", "Learning rate"]
    text = " ".join(" ".join(page.text).split())
    assert "3 epochs. Best validation accuracy 20 %, after epoch 3. Accuracy on the test images 87.5 %." in text
    assert "0 in every epoch, and so not drawn: unconverged." in text
    assert "loss from 3 to 1; cross_entropy from 2 to 0.6667" in figure(html, "Loss")
    assert ">test<" in figure(html, "Accuracy")  # in the legend


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "No epoch has ended: metrics.jsonl holds no line of one."),
        (line(1) + '{"epoch": 2, "lo', "The last line was cut off as it was written, and is not drawn."),
        (line(1) + "\0\0\0", "The last line was cut off as it was written, and is not drawn."),
        ("[1]\n" + line(1), "Line 1 is not drawn: expected a JSON object, found list."),
        (line(1) + line(1), "Line 2 is not drawn: its epoch is 1, and that of a line before 1."),
        (line(1, loss="high"), "Line 1 is not drawn: 'loss' is 'high', and no number."),
        (line(1) + line(3), "There is no line of epoch 2."),
        (line(3), "There are no lines of epochs 1 to 2."),
        (line(1) + line(2, loss="nan") + line(3, loss="-inf"), "loss is NaN or infinite in 2 of 3 epochs: 2, 3."),
    ],
)
def test_what_is_not_whole_is_said(content: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / METRICS_NAME).write_text(content)
    assert expected in read_training(tmp_path).gaps


def test_the_page_says_what_is_not_whole(tmp_path: Path) -> None:
    for content in ("", line(1) + line(3) + "{"):
        gaps, html = drawn(tmp_path, content)
        assert gaps
        assert all(f'<p class="gap">{gap}</p>' in html for gap in gaps)
    assert drawn(tmp_path, "")[1].count("<figure>") == 0


def test_what_is_not_finite_breaks_the_line_and_is_marked(tmp_path: Path) -> None:
    gaps, html = drawn(tmp_path, line(1) + line(2, loss="nan") + line(3) + line(5))
    assert len(gaps) == 2
    loss = figure(html, "Loss")
    assert "NaN or infinite" in loss
    assert "<td>NaN</td>" in loss
    paths = re.findall(r'<path d="([^"]*)" clip-path[^>]*stroke: var\(--series-1\)', loss)
    assert [path.count("M") for path in paths] == [3]  # epoch 1, epoch 3, epoch 5
    assert "NaN or infinite" not in figure(html, "Accuracy")


def test_a_loss_that_is_never_finite_is_not_drawn_and_that_is_said(tmp_path: Path) -> None:
    _, html = drawn(tmp_path, line(1, loss="nan", cross_entropy="inf"))
    assert "“Loss” is not drawn: none of its numbers is finite." in html


def test_numbers_of_another_objective_are_drawn_and_foreign_names_stay_text(tmp_path: Path) -> None:
    odd = "<script>x</script>\x1b[31m" + "y" * 30_000
    others = {f"mine{place}": place + 1.0 for place in range(14)}
    _, html = drawn(tmp_path, line(1, **{odd: 1.0}, **others))
    assert "script" not in Page(html).tags
    assert "\x1b" not in html
    assert "<h3>mine0</h3>" in html
    assert "3 more numbers are not drawn: the table has them." in html
    assert ">mine13</th>" in html
    assert len(html) < 1_500_000


def test_a_file_that_would_fill_the_memory_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_log, "MOST_EPOCHS", 2)
    monkeypatch.setattr(training_log, "MOST_NAMES", 3)
    (tmp_path / METRICS_NAME).write_text(
        "".join(json.dumps({"epoch": n, f"a{n}": 1, f"b{n}": 1}) + "\n" for n in (1, 2, 3))
    )
    log = read_training(tmp_path)
    assert (log.epochs, list(log.columns)) == ([1, 2], ["a1", "b1", "a2"])
    assert log.gaps == [
        "Line 3 and those after it are not drawn: there are 2 epochs before.",
        "There are 4 names of numbers: the first 3 are read.",
    ]


def test_numbers_near_the_largest_are_told_of(tmp_path: Path) -> None:
    gaps, html = drawn(tmp_path, line(1, loss=1e308) + line(2, loss=-1e308) + line(2**62, loss=10**400))
    assert "“Loss” is not drawn: its numbers are too large for an axis." in html
    assert html.count("<figure>") == 3
    assert "loss is NaN or infinite in 1 of 3 epochs: 4611686018427387904." in gaps


def test_a_long_training_has_a_page_of_modest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.report.curves.MAX_TABLE_CELLS", 30)
    gaps, html = drawn(tmp_path, "".join(line(2 * epoch) for epoch in range(1, 200)))
    assert "The first 10 of 199 epochs; metrics.jsonl holds them all." in html
    assert gaps[-1] == "189 more of that kind."


def test_the_command_writes_the_page_into_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / METRICS_NAME).write_text(line(1) + '{"ep')
    assert run("report", tmp_path) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "1 epoch. Best validation accuracy 10 %, after epoch 1. "
        "No accuracy on test images: the training is at work, or was stopped.",
        "The last line was cut off as it was written, and is not drawn.",
        f"wrote {tmp_path}/training.html",
    ]
    assert (tmp_path / "training.html").read_text() == render_curves(read_training(tmp_path))
    assert (tmp_path / METRICS_NAME).read_text() == line(1) + '{"ep'


def test_a_folder_without_metrics_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("report", tmp_path) == 2
    assert "or a folder that 'stabdeq train' wrote into" in capsys.readouterr().err
    (tmp_path / METRICS_NAME).write_text(WHOLE)
    monkeypatch.setattr(training_log, "LARGEST", len(WHOLE) - 1)
    with pytest.raises(ReportError, match="larger than"):
        read_training(tmp_path)
