"""Training that does not depend on the number of threads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import Run

import stabdeq


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    yield
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)


def seen_in_steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Note the threads, and whether kernels are deterministic, at every step."""
    seen: list[tuple[int, bool]] = []
    step = Run.step

    def noted(run: Any, *arguments: Any) -> Any:
        seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
        return step(run, *arguments)

    monkeypatch.setattr(Run, "step", noted)
    return seen


@pytest.mark.parametrize("deterministic", [True, False])
def test_one_thread_and_steady_kernels_while_it_trains_and_as_before_after_it(
    deterministic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = seen_in_steps(monkeypatch)
    torch.set_num_threads(2)
    stabdeq.train("digits", kind="deq", epochs=1, out=tmp_path, deterministic=deterministic, quiet=True)
    assert set(seen) == {(1, True) if deterministic else (2, False)}
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()


def test_as_before_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Run, "step", fail)
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match="no such kernel"):
        stabdeq.train("digits", kind="deq", epochs=1, out=tmp_path, deterministic=True, quiet=True)
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
