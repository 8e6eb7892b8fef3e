"""The lines of metrics.jsonl, which training writes and a page of curves is drawn from: one JSON object of numbers an epoch."""

from typing import Any

from stabdeq.reading import parsed_json

METRICS_NAME = "metrics.jsonl"
LARGEST = 2**26  # bytes: some 100,000 epochs
SPELLED = ("nan", "inf", "-inf")  # numbers that JSON has not


def parsed_metrics(line: bytes) -> dict[str, Any]:
    """Return the metrics in ``line``, numbers or ``SPELLED`` by name, with an epoch; ValueError where training wrote no such line."""
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


def is_of_test(metrics: dict[str, Any]) -> bool:
    """Return whether the line is that of the test at a training's end, which stands under its last epoch."""
    return "test_accuracy" in metrics
