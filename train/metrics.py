"""The lines of metrics.jsonl: what training writes, one JSON object a line, and what of them a resumed run keeps."""

import json
from pathlib import Path
from typing import Any

from stabdeq.errors import MetricsError
from stabdeq.files import strict
from stabdeq.metrics_lines import LARGEST, is_of_test, parsed_metrics
from stabdeq.reading import read_regular


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
            metrics = parsed_metrics(line)
            is_test = is_of_test(metrics)
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
