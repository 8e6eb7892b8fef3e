"""The lines of metrics.jsonl: what training writes, one JSON object a line, and what of them a resumed run keeps."""

import json
from pathlib import Path
from typing import Any

from stabdeq.errors import MetricsError
from stabdeq.files import strict
from stabdeq.reading import parsed_json, read_regular

LARGEST = 2**26  # bytes: some 100,000 epochs
SPELLED = ("nan", "inf", "-inf")  # numbers that JSON has not


def metrics_line(metrics: dict[str, Any]) -> str:
    """Return ``metrics``, numbers by their names, as a line of strict JSON."""
    return json.dumps(strict(metrics), allow_nan=False)


def lines_up_to(path: Path, epoch: int) -> bytes:
    """Return the lines of the metrics file ``path``, where there is one, up to ``epoch`` and but for those of a final test.

    A last line that no line break ends, and that is no JSON, was cut off as it was written; it is left out, too. Raises
    MetricsError, naming the line, for any other that training does not write: each is an object of numbers, with an epoch above
    that of the line before. Raises it too where ``path`` is no regular file, or larger than ``LARGEST``.
    """
    if not path.exists():
        return b""
    try:
        content = read_regular(path, LARGEST)
    except OSError as error:
        raise MetricsError(
            f"{path} cannot be resumed ({error.strerror}): move it away, or choose another --out"
        ) from None
    *lines, last = content.split(b"\n")
    kept, reached = [], 0
    for number, line in enumerate([*lines, last] if last else lines, start=1):
        try:
            metrics = _parsed(line)
            is_test = "test_accuracy" in metrics
            if not is_test and metrics["epoch"] <= reached:
                raise ValueError(f"its epoch is {metrics['epoch']}, and that of an earlier line {reached}")
        except ValueError as error:
            if number > len(lines):
                break  # cut off
            raise MetricsError(
                f"{path}, line {number}: {error}; training writes no such line: mend or remove it, move the file away, or choose "
                "another --out"
            ) from None
        if not is_test:
            reached = metrics["epoch"]
            kept += [line] if reached <= epoch else []
    return b"".join(line + b"\n" for line in kept)


def _parsed(line: bytes) -> dict[str, Any]:
    """Return the metrics in ``line``; ValueError where training wrote no such line."""
    metrics = parsed_json(line.decode("utf-8"))
    if not isinstance(metrics, dict):
        raise ValueError(f"expected a JSON object, found {type(metrics).__name__}")
    for name, value in metrics.items():
        if type(value) not in (int, float) and value not in SPELLED:
            raise ValueError(f"{name!r:.80} is {value!r:.80}, and no number")
    epoch = metrics.get("epoch")
    if type(epoch) is not int or not 1 <= epoch < 2**63:
        raise ValueError(f"expected an epoch, a whole number from 1, found {epoch!r:.80}")
    return metrics
