"""Solves beside TorchDEQ's at equal true residual, on the device: the race of ``python -m benchmarks``, on other problems."""

from collections.abc import Iterator
from typing import Any

from benchmarks import contest
from benchmarks.cases import SOLVERS, Case
from benchmarks.gpu.setting import Clock, Setting, device
from benchmarks.problems import Problem, cell_problem, convolutional_problem, linear_problem
from stabdeq.data import DataSet

TOLERANCE = 1e-3


def measure(setting: Setting, data: DataSet, clock: Clock, mode: str = "eager") -> Iterator[list[dict[str, Any]]]:
    """Yield the records so far of each problem and solver, as in ``benchmarks/results.json``, until the time is over.

    ``mode`` is that of our solver, "eager" or "compiled".
    """
    contest.SECONDS = setting.race_seconds
    problems = [linear_problem(batch) for batch in setting.batches]
    problems += [convolutional_problem(batch, setting.channels, setting.side) for batch in setting.batches]
    records: list[dict[str, Any]] = []
    yield records
    for problem in problems:
        for solver in SOLVERS:
            if clock.left < 0:
                return
            records += Case(_on_device(problem), solver, TOLERANCE, (mode,)).race()
            yield records


def _on_device(problem: Problem) -> Problem:
    return cell_problem(problem.name, problem.cell.to(device()), problem.h.to(device()))
