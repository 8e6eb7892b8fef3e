"""What a solver costs beside the cell: time of an iteration in units of one cell evaluation, and memory of one solve."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import contestants
from benchmarks.cases import OURS, SOLVERS, Record
from benchmarks.contest import alternate, quartiles
from benchmarks.contestants import Setting
from benchmarks.problems import Problem, cell_problem, model_problem
from stabdeq.data import Split
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Broyden

ITERATIONS = 10
UNREACHED = 5e-7  # a tolerance that no solver meets so soon, so that all iterate alike
BROYDEN_MEMORY = Broyden().memory


class Folded(torch.nn.Module):
    """The cell as ours evaluates it, BatchNorm folded into its weights, of features with their bias added."""

    def __init__(self, cell: torch.nn.Module) -> None:
        super().__init__()
        self.folded = cell.fold()

    def forward(self, z: torch.Tensor, injected: torch.Tensor) -> torch.Tensor:
        """Return f(z, h)."""
        return self.folded(z, injected)


def folded_problem(problem: Problem) -> Problem:
    """Return the same equilibria by the folded cell."""
    cell = Folded(problem.cell)
    return cell_problem(f"{problem.name}, folded", cell, cell.folded.inject(problem.h))


def _runs(problem: Problem, solver: str, setting: Setting) -> dict[str, Callable[[], Any]]:
    """Return ours in both modes and TorchDEQ on the plain and on the folded cell, told the same."""
    limits = {"tolerance": setting.tolerance, "steps": setting.steps}
    runs = {
        mode: contestants.ours(problem, solver, Setting(**limits, options={"compiled": mode == "compiled"}))
        for mode in OURS
    }
    runs["TorchDEQ"] = contestants.theirs(problem, solver, setting)
    runs["TorchDEQ, folded cell"] = contestants.theirs(folded_problem(problem), solver, setting)
    return runs


@dataclass
class OverheadCase:
    """A fixed number of iterations of each solver, beside one evaluation of the plain and of the folded cell."""

    name: str
    model: StabilisedDEQ
    images: Split
    batch: int = 1024

    def __str__(self) -> str:
        return f"{self.name}, batch {self.batch}, cost of an iteration"

    def race(self) -> list[Record]:
        """Return (time of an iteration - time of the cell) / time of the cell, of each solver and cell."""
        problem = model_problem(self.name, self.model, self.images, self.batch)
        cells = {"plain": problem, "folded": folded_problem(problem)}
        return [self._record(problem, cells, solver) for solver in SOLVERS]

    def _record(self, problem: Problem, cells: dict[str, Problem], solver: str) -> Record:
        runs = _runs(problem, solver, Setting(UNREACHED, ITERATIONS))
        # Where a sample fails, ours asks the map twice more, to tell why.
        evaluations = {name: run().evaluations + 2 * (name in OURS) for name, run in runs.items()}
        state = runs["TorchDEQ"]().z
        times = alternate(runs | {name: _evaluation(cell, state) for name, cell in cells.items()})
        overheads = {
            f"{name}, in units of the {cell} cell": quartiles(
                (solve / evaluations[name] - unit) / unit for solve, unit in zip(times[name], times[cell], strict=True)
            )
            for name in runs
            for cell in cells
        }
        seconds = {name: quartiles(values) for name, values in times.items()}
        case = {"problem": self.name, "batch": self.batch, "solver": solver, "kind": "overhead"}
        return case | {"evaluations": evaluations, "overhead": overheads, "seconds": seconds}


def _evaluation(problem: Problem, state: torch.Tensor) -> Callable[[], Any]:
    def run() -> torch.Tensor:
        with torch.no_grad():
            return problem.cell(state, problem.h)

    return run


@dataclass
class FoldedCase:
    """TorchDEQ where it is given what ours has: the folded cell, and for Broyden's method the same bounded memory."""

    name: str
    model: StabilisedDEQ
    images: Split
    batch: int = 1024
    tolerance: float = 1e-3

    def __str__(self) -> str:
        return f"{self.name}, batch {self.batch}, TorchDEQ on the folded cell"

    def race(self) -> list[Record]:
        """Return a record of ratios for each solver."""
        problem = model_problem(self.name, self.model, self.images, self.batch)
        return [self._record(problem, solver) for solver in SOLVERS]

    def _record(self, problem: Problem, solver: str) -> Record:
        options = {"LBFGS_thres": BROYDEN_MEMORY} if solver == "broyden" else {}
        setting = Setting(self.tolerance, contestants.DEFAULT_STEPS, options)
        runs = _runs(problem, solver, setting)
        times = alternate(runs)
        rival = "TorchDEQ, folded cell"
        ratio = {
            f"{rival}/{mode}": quartiles(t / o for t, o in zip(times[rival], times[mode], strict=True)) for mode in OURS
        }
        residuals = {name: contestants.true_residual(problem.cell, problem.h, run().z) for name, run in runs.items()}
        case = {"problem": self.name, "batch": self.batch, "solver": solver, "tolerance": self.tolerance}
        return case | {"kind": "folded", "ratios": ratio, "true_residuals": residuals}


@dataclass
class MemoryCase:
    """Peak memory that one solve allocates beyond its input."""

    name: str
    model: StabilisedDEQ
    images: Split
    batch: int
    tolerance: float = 1e-3

    def __str__(self) -> str:
        return f"{self.name}, batch {self.batch}, memory"

    def race(self) -> list[Record]:
        """Return the peak bytes of each solver."""
        problem = model_problem(self.name, self.model, self.images, self.batch)
        case = {"problem": self.name, "batch": self.batch, "tolerance": self.tolerance, "kind": "memory"}
        setting = Setting(self.tolerance, contestants.DEFAULT_STEPS)
        return [
            case
            | {
                "solver": solver,
                "bytes": {name: peak_bytes(run) for name, run in _runs(problem, solver, setting).items()},
            }
            for solver in SOLVERS
        ]


def peak_bytes(run: Callable[[], Any]) -> int:
    """Return the most bytes that one run, after another to warm up, holds at a time, by the allocator's own record."""
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = run()
    del kept
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak
