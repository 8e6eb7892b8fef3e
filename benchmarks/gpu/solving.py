"""Solves beside TorchDEQ's at equal true residual, on the device: the race of ``python -m benchmarks``, on other problems."""

from typing import Any

from benchmarks import contest
from benchmarks.cases import SOLVERS, Case
from benchmarks.gpu.setting import Clock, Setting, device
from benchmarks.problems import Problem, cell_problem, convolutional_problem, linear_problem
from stabdeq.data import DataSet

TOLERANCE = 1e-3


def measure(setting: Setting, data: DataSet, clock: Clock, mode: str = "eager") -> list[dict[str, Any]]:
    """Return the records of each problem and solver, as in ``benchmarks/results.json``; what the time does not allow is left out.

    ``mode`` is that of our solver, "eager" or "compiled".
    """
    contest.SECONDS = setting.race_seconds
    problems = [linear_problem(batch) for batch in setting.batches]
    problems += [convolutional_problem(batch, setting.channels, setting.side) for batch in setting.batches]
    records: list[dict[str, Any]] = []
    for problem in problems:
        for solver in SOLVERS:
            if clock.left < 0:
                return records
            records += Case(_on_device(problem), solver, TOLERANCE, (mode,)).race()
    return records


def _on_device(problem: Problem) -> Problem:
    return cell_problem(problem.name, problem.cell.to(device()), problem.h.to(device()))
