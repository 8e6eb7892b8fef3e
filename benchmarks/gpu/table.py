"""Rows of the paper's Table 1 for CIFAR-10: kinds trained for as many epochs as fit, and attacked."""

import json
from collections.abc import Iterator
from typing import Any

import stabdeq
from benchmarks.gpu.setting import Clock, Setting, device, first, part_of
from benchmarks.gpu.training import epoch_seconds, recipe_of
from stabdeq.data import DataSet
from train.trainer import CHECKPOINT_NAME, METRICS_NAME, train

KINDS = ("lyadeq-anchored", "deq", "lyadeq")
EPS = (2, 4, 6, 8)
TRAINED = 0.7  # of a kind's share of the time, the rest for its attacks


def measure(setting: Setting, data: DataSet, clock: Clock) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows so far, one for each kind: epochs, test accuracy, and accuracies under attack, as many as the time allows."""
    rows: list[dict[str, Any]] = []
    yield rows
    for done, kind in enumerate(KINDS):
        share = clock.left / (len(KINDS) - done)
        if share <= 0:
            return
        for row in _row(kind, setting, data, share):
            yield [*rows, row]
        rows.append(row)


def _row(kind: str, setting: Setting, data: DataSet, share: float) -> Iterator[dict[str, Any]]:
    """Yield the row of ``kind`` when it is trained, and after each attack."""
    clock = Clock(share)
    probed = part_of(data, setting.images // 4)
    seconds = epoch_seconds(recipe_of(setting, kind, "bfloat16"), probed, setting.out / "timed")
    seconds *= len(data.train) / len(probed.train)
    epochs = max(1, min(setting.most_epochs, int(TRAINED * clock.left / seconds)))
    out = setting.out / kind
    scores = train(recipe_of(setting, kind, "bfloat16", epochs=epochs), data, out)
    lines = [json.loads(line) for line in (out / METRICS_NAME).read_text().splitlines()]
    row: dict[str, Any] = {
        "kind": kind,
        "epochs": epochs,
        "test_accuracy": scores.accuracy,
        "without_equilibrium": scores.unconverged,
        "epoch_seconds": [line["seconds"] for line in lines[:-1]],
        "attacks": {},
    }
    yield row
    model = stabdeq.load(out / CHECKPOINT_NAME).to(device()).eval()
    for attack, count in (("pgd", setting.attacked), ("ifgsm", setting.attacked), ("honest", setting.honest)):
        chosen = first(data.test, count)
        for eps in EPS:
            if clock.left <= 0:
                return
            result = stabdeq.attack(model, chosen.images, chosen.labels, name=attack, eps=f"{eps}/255", batch_size=1000)
            row["attacks"][f"{attack}-{eps}"] = {"n": len(chosen), **result.accuracies}
            yield row
