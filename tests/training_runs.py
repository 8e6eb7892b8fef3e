"""A tiny data set, model and recipe, how a run of them is cut short, and what it wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stabdeq.config import AndersonConfig, ArchitectureConfig, LyapunovConfig
from stabdeq.data import DataSet, Split
from train import trainer
from train.recipe import DecayConfig, Recipe
from train.trainer import BEST_NAME, CHECKPOINT_NAME, METRICS_NAME

Run = trainer._Run


def pattern_split(count: int, size: int, seed: int) -> Split:
    """Noise over three patterns that are easy to tell apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    patterns = torch.randint(0, 128, (3, 1, size, size), generator=torch.Generator().manual_seed(99))
    noise = torch.randint(0, 100, (count, 1, size, size), generator=generator)
    return Split((patterns[labels] + noise).to(torch.uint8), labels)


def tiny_data(*, train: int = 60, validation: int = 12, size: int = 4) -> DataSet:
    return DataSet(
        name="digits",
        classes=("a", "b", "c"),
        train=pattern_split(train, size, 1),
        validation=pattern_split(validation, size, 2),
        test=pattern_split(20, size, 3),
        mean=(0.4,),
        std=(0.2,),
    )


def tiny_architecture(*, backbone: str = "fcn", **lyapunov: float) -> ArchitectureConfig:
    return ArchitectureConfig(
        backbone=backbone,
        state_dim=8,
        solver=AndersonConfig(tolerance=1e-2),
        lyapunov=LyapunovConfig(hidden=8, **lyapunov),
    )


def tiny_recipe(**changes: Any) -> Recipe:
    """Four steps an epoch on ``tiny_data``, the last of 12 samples."""
    options: dict[str, Any] = {
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "model": tiny_architecture(),
        "decay": DecayConfig(radii=(0.1, 1.0)),
    }
    return Recipe(**options | changes)


def metrics_of(out: Path) -> list[dict[str, Any]]:
    """The lines of the metrics, without the times."""
    lines = [json.loads(line) for line in (out / METRICS_NAME).read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None)
    return lines


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_same_run(first: Path, second: Path) -> None:
    """Same metrics, weights and optimiser state, to the last bit; the checkpoints are equal as files."""
    assert metrics_of(first) == metrics_of(second)
    assert contents(first).keys() == contents(second).keys() == {CHECKPOINT_NAME, BEST_NAME, METRICS_NAME}
    for name in (CHECKPOINT_NAME, BEST_NAME):
        assert (first / name).read_bytes() == (second / name).read_bytes()


class PowerCutError(Exception):
    pass


def fail_when(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    moment: Callable[..., bool],
    error: type[BaseException] = PowerCutError,
) -> None:
    """Make ``Run.method`` raise, before it does anything, the first time that ``moment`` of its arguments holds."""
    original = getattr(Run, method)

    def fail(run: Any, *arguments: Any, **options: Any) -> Any:
        if moment(run, *arguments):
            raise error
        return original(run, *arguments, **options)

    monkeypatch.setattr(Run, method, fail)


def at_call(number: int) -> Callable[..., bool]:
    calls = iter(range(1, 10**6))
    return lambda *_: next(calls) == number
