"""The race: the same true residual for all, then alternating runs, and ratios of times within each round."""

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.contestants import Outcome, Setting

SECONDS = 1.5  # for one case
ROUNDS = (5, 100)  # at least, at most


@dataclass(frozen=True)
class Entry:
    """A contestant that meets the tolerance: its setting, what came out, and its true residual."""

    setting: Setting
    outcome: Outcome
    residual: float


def find_loosest(
    attempt: Callable[[Setting], Outcome],
    groups: Iterable[list[Setting]],
    residual: Callable[[Outcome], float],
    tolerance: float,
) -> Entry | None:
    """Return the first setting whose outcome truly meets the tolerance, or None."""
    for group in groups:
        for setting in group:
            outcome = attempt(setting)
            entry = Entry(setting, outcome, residual(outcome))
            if entry.residual <= tolerance:
                return entry
            if not outcome.converged:
                break
    return None


def alternate(runs: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Return the seconds of every run, taken in turns for ``SECONDS`` after one round of warming up."""
    for run in runs.values():
        run()
    gc.collect()
    times: dict[str, list[float]] = {name: [] for name in runs}
    least, most = ROUNDS
    end = perf_counter() + SECONDS
    for count in range(most):
        if count >= least and perf_counter() > end:
            break
        for name, run in runs.items():
            finish()
            begin = perf_counter()
            run()
            finish()
            times[name].append(perf_counter() - begin)
    return times


def finish() -> None:
    """Wait for the GPU, where there is one: it runs behind."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def quartiles(values: Iterable[float]) -> list[float]:
    """Return lower quartile, median and upper quartile."""
    return [float(f"{value:.5g}") for value in np.quantile(list(values), (0.25, 0.5, 0.75))]


def ratios(times: dict[str, list[float]], theirs: str, ours: str) -> list[float]:
    """Return the quartiles of their time over ours, round by round: what slows the machine slows both."""
    return quartiles(their / our for their, our in zip(times[theirs], times[ours], strict=True))
