"""A training step whose adjoint diverged has a NaN gradient: it is left out, counted, and training goes on."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import metrics_of, tiny_data, tiny_recipe

from stabdeq.checkpoint import load_checkpoint
from stabdeq.solvers import Status, implicit
from train.trainer import CHECKPOINT_NAME, train


@pytest.mark.parametrize("every", [1, 5, 1000])
def test_a_step_without_a_gradient_is_left_out_and_counted(
    every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All adjoint solves diverge, some, or none."""
    solve, count = implicit.solve, 0

    def diverging(*arguments: Any, **settings: Any) -> Any:
        nonlocal count
        count += 1
        found = solve(*arguments, **settings)
        found.status.fill_(Status.converged if count % every else Status.diverged)
        return found

    monkeypatch.setattr(implicit, "solve", diverging)
    train(tiny_recipe(epochs=2, seed=5), tiny_data(), tmp_path)
    first, second, _ = metrics_of(tmp_path)
    skipped = [line["steps_skipped"] for line in (first, second)]
    assert sum(skipped) == {1: 2, 1000: 0}.get(every, sum(skipped))
    assert (0 < sum(skipped) < 2) == (every == 5)
    for line in (first, second):
        assert line["adjoint_unconverged"] >= line["steps_skipped"]
        assert all(math.isfinite(value) for value in line.values())
    model = load_checkpoint(tmp_path / CHECKPOINT_NAME).model
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
