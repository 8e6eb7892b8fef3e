"""What a resumed run keeps of metrics.jsonl: all that training wrote, and of anything else the line is named."""

import json
import os
from pathlib import Path

import pytest
from command_runs import contents
from training_runs import metrics_of, tiny_data, tiny_recipe

from stabdeq.checkpoint import load_checkpoint, save_checkpoint
from stabdeq.errors import MetricsError
from train import metrics
from train.metrics import lines_up_to, metrics_line
from train.run_folder import METRICS_NAME
from train.trainer import CHECKPOINT_NAME, train

FIRST, SECOND, THIRD = b'{"epoch": 1, "loss": 2.5}\n', b'{"epoch": 2, "loss": "nan"}\n', b'{"epoch": 3}\n'
TEST = b'{"epoch": 3, "test_accuracy": 0.5}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / METRICS_NAME


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", b""),
        (FIRST + SECOND, FIRST + SECOND),
        (FIRST + SECOND + THIRD, FIRST + SECOND),
        (FIRST + SECOND + THIRD + TEST, FIRST + SECOND),
        (SECOND + THIRD, SECOND),  # the first was taken away
        (FIRST + SECOND + b'{"epoch": 3, "lo', FIRST + SECOND),  # cut off
        (FIRST + b'{"epoch": 2, "loss": 1', FIRST),
        (FIRST + b"\0\0\0", FIRST),  # what a file system may leave of a line
        (FIRST + b"\xff", FIRST),
        (FIRST + SECOND.rstrip(), FIRST + SECOND),  # whole but for the break
        (FIRST.replace(b"\n", b"\r\n"), FIRST.replace(b"\n", b"\r\n")),
    ],
)
def test_the_lines_that_are_kept(content: bytes, kept: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert lines_up_to(path, 2) == kept
    assert path.read_bytes() == content


def test_no_file_has_no_lines(path: Path) -> None:
    assert lines_up_to(path, 2) == b""


ODD = {
    "text": b"lines of text\n",
    "empty": b"\n",
    "cut off": b'{"epoch": 2, "lo\n',
    "no UTF-8": b'{"epoch": 2, "l\xff": 1}\n',
    "null": b"null\n",
    "list": b"[2]\n",
    "number": b"2\n",
    "no epoch": b'{"loss": 1.0}\n',
    "a test without an epoch": b'{"test_accuracy": 1.0}\n',
    "an epoch that is text": b'{"epoch": "2"}\n',
    "half an epoch": b'{"epoch": 2.5}\n',
    "true": b'{"epoch": true}\n',
    "epoch null": b'{"epoch": null}\n',
    "epoch 0": b'{"epoch": 0}\n',
    "an epoch below 0": b'{"epoch": -1}\n',
    "an epoch that is NaN": b'{"epoch": NaN}\n',
    "a loss that is NaN": b'{"epoch": 2, "loss": NaN}\n',
    "a number too large": b'{"epoch": 2, "loss": 1e999}\n',
    "an epoch too large": b'{"epoch": 1%s}\n' % (b"0" * 100),
    "digits by the thousand": b'{"epoch": 1%s}\n' % (b"0" * 10_000),
    "a list": b'{"epoch": 2, "loss": [1]}\n',
    "a text": b'{"epoch": 2, "loss": "low"}\n',
    "twice a key": b'{"epoch": 2, "epoch": 3}\n',
    "twice an epoch": b'{"epoch": 1}\n',
    "nested": b'{"epoch": ' + b"[" * 1000 + b"]" * 1000 + b"}\n",
    "nested too deeply for Python": b'{"epoch": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "two on a line": b'{"epoch": 2} {"epoch": 3}\n',
}


@pytest.mark.parametrize("line", ODD.values(), ids=ODD)
def test_a_line_that_training_does_not_write_is_named(line: bytes, path: Path) -> None:
    path.write_bytes(FIRST + line + THIRD)
    with pytest.raises(MetricsError) as caught:
        lines_up_to(path, 3)
    message = str(caught.value)
    assert message.startswith(f"{path}, line 2: ")
    assert "move the file away" in message
    assert len(message) < 1000


def test_what_is_no_file_is_not_waited_for(path: Path, no_hang: None) -> None:
    os.mkfifo(path)
    with pytest.raises(MetricsError, match="no regular file"):
        lines_up_to(path, 2)
    path.unlink()
    path.mkdir()
    with pytest.raises(MetricsError, match="Is a directory"):
        lines_up_to(path, 2)


def test_a_file_larger_than_any(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "LARGEST", len(FIRST))
    path.write_bytes(FIRST)
    assert lines_up_to(path, 2) == FIRST
    path.write_bytes(FIRST + b" ")
    with pytest.raises(MetricsError, match=f"larger than {len(FIRST)} bytes"):
        lines_up_to(path, 2)


def test_numbers_that_are_not_finite_are_written_so_that_they_are_read(path: Path) -> None:
    line = metrics_line({"epoch": 1, "loss": float("nan"), "accuracy": float("-inf"), "seconds": 0.5})
    assert json.loads(line) == {"epoch": 1, "loss": "nan", "accuracy": "-inf", "seconds": 0.5}
    path.write_text(f"{line}\n")
    assert lines_up_to(path, 1) == line.encode() + b"\n"


def test_a_run_with_odd_metrics_is_refused_and_left_as_it_is(whole_run: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(whole_run / CHECKPOINT_NAME)
    save_checkpoint(tmp_path / CHECKPOINT_NAME, checkpoint)
    lines = (whole_run / METRICS_NAME).read_bytes()
    (tmp_path / METRICS_NAME).write_bytes(b"null\n" + lines)
    before = contents(tmp_path)
    with pytest.raises(MetricsError, match="line 1: expected a JSON object"):
        train(tiny_recipe(), tiny_data(), tmp_path, resume=True)
    assert contents(tmp_path) == before
    (tmp_path / METRICS_NAME).write_bytes(lines)
    train(tiny_recipe(), tiny_data(), tmp_path, resume=True)
    assert [line["epoch"] for line in metrics_of(tmp_path)] == [1, 2, 3, 4, 4]
