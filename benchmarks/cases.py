"""The cases, and the race of each: forward only, and forward with backward."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from torch import Tensor

from benchmarks import contestants
from benchmarks.contest import Entry, alternate, find_loosest, quartiles, ratios
from benchmarks.contestants import Guest, Maker, Outcome, Setting, true_residual
from benchmarks.problems import (
    Problem,
    attention_problem,
    cell_problem,
    convolutional_problem,
    graph_problem,
    linear_problem,
    model_problem,
)
from stabdeq.data import Split
from stabdeq.model import StabilisedDEQ

SOLVERS = ("anderson", "broyden")
TOLERANCES = (1e-3, 1e-5)
OURS = ("eager", "compiled")

Record = dict[str, Any]  # one line of the results


@dataclass
class Case:
    """One problem, solver and tolerance, raced forward, with ``guests`` by their names, then forward and backward without."""

    problem: Problem
    solver: str
    tolerance: float
    modes: tuple[str, ...] = OURS
    guests: Mapping[str, Guest] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.problem.name}, batch {self.problem.batch}, {self.solver}, {self.tolerance:g}"

    def race(self) -> list[Record]:
        """Return the record of each direction."""
        makers: dict[str, Maker] = dict.fromkeys(self.modes, contestants.ours) | {"TorchDEQ": contestants.theirs}
        if self.problem.batch == 1:
            makers["SciPy"] = contestants.scipys
        makers |= {name: contestants.guest(find) for name, find in self.guests.items()}
        entries = {name: self._enter(name, make) for name, make in makers.items()}
        forward = self._record("forward", makers, entries)
        gradients = dict.fromkeys(self.modes, contestants.our_gradient) | {"TorchDEQ": contestants.their_gradient}
        both = self._record("forward and backward", gradients, entries)
        return [forward, both]

    def _enter(self, name: str, make: Maker) -> Entry | None:
        """Return a contestant with the loosest setting that truly meets the tolerance."""
        problem = self.problem
        return find_loosest(
            lambda setting: make(problem, self.solver, setting)(),
            list(self._settings(name)),
            lambda outcome: true_residual(problem.cell, problem.h, outcome.z),
            self.tolerance,
        )

    def _settings(self, name: str) -> list[list[Setting]]:
        if name == "TorchDEQ":
            return list(contestants.torchdeq_settings(self.tolerance, self.solver))
        if name in self.guests:
            return contestants.plain_settings(self.tolerance)
        if name == "SciPy":  # its tolerance is absolute
            return contestants.plain_settings(self.tolerance * self.scale)
        return contestants.our_settings(self.tolerance, compiled=name == "compiled")

    @cached_property
    def scale(self) -> float:
        """max(1, ||z||), of the first sample's equilibrium."""
        return max(1.0, float(reference(self.problem)[0][0].norm()))

    def _record(self, direction: str, makers: dict[str, Maker], entries: dict[str, Entry | None]) -> Record:
        runs = {
            name: make(self.problem, self.solver, entry.setting)
            for name, make in makers.items()
            if (entry := entries[name])
        }
        outcomes = {name: run() for name, run in runs.items()}
        found = {name: entries[name] and self._describe(entries[name], outcomes[name]) for name in makers}
        case = {
            "problem": self.problem.name,
            "batch": self.problem.batch,
            "solver": self.solver,
            "tolerance": self.tolerance,
            "direction": direction,
        }
        return case | measured(runs, found)

    def _describe(self, entry: Entry, outcome: Outcome) -> Record:
        description = describe(entry.setting, outcome)
        description["true_residual"] = true_residual(self.problem.cell, self.problem.h, outcome.z)
        if outcome.gradients:
            expected = reference(self.problem)[1]
            error = (outcome.gradients[0].double() - expected).norm() / expected.norm()
            description["gradient_error"] = float(f"{error.item():.3g}")
        return description


def describe(setting: Setting, outcome: Outcome) -> Record:
    """Return the setting of a contestant, and the calls that it made."""
    description = {"setting": asdict(setting), "evaluations": outcome.evaluations}
    if outcome.adjoint_evaluations is not None:
        description["adjoint_evaluations"] = outcome.adjoint_evaluations
    return description


def measured(runs: dict[str, Callable[[], Outcome]], found: dict[str, Record | None]) -> Record:
    """Race the runs; return times and ratios beside what was found of each contestant, None where it does not reach."""
    times = alternate(runs)
    for name, values in times.items():
        found[name] = {**(found[name] or {}), "seconds": quartiles(values), "runs": len(values)}
    ratio = {
        f"{rival}/{mode}": ratios(times, rival, mode)
        for rival in times
        for mode in OURS
        if rival not in OURS and mode in times
    }
    return {"contestants": found, "ratios": ratio}


@lru_cache(maxsize=1)
def reference(problem: Problem) -> tuple[Tensor, Tensor]:
    """Return equilibrium and gradient by h of the random linear loss, in float64, accurate to far below the tolerances."""
    precise = cell_problem(problem.name, copy.deepcopy(problem.cell).double(), problem.h.double())
    outcome = contestants.our_gradient(precise, "anderson", Setting(1e-9, 5000))()
    return outcome.z, outcome.gradients[0]


def model_cases(
    name: str, model: StabilisedDEQ, images: Split, batches: tuple[int, ...], guests: Mapping[str, Guest]
) -> list[Case]:
    """Return the cases of a trained model."""
    return [case for batch in batches for case in _cases(model_problem(name, model, images, batch), guests)]


def other_cases(guests: Mapping[str, Guest]) -> list[Case]:
    """Return the cases of the cells that nobody has to train."""
    problems = [
        convolutional_problem(1),
        convolutional_problem(16),
        convolutional_problem(1, channels=128, side=32),
        linear_problem(128),
        attention_problem(64),
        graph_problem(64),
    ]
    return [case for problem in problems for case in _cases(problem, guests)]


def quick_cases(guests: Mapping[str, Guest]) -> list[Case]:
    """Return small cases, without compilation."""
    raced = [
        (convolutional_problem(2, channels=4, side=4), "anderson"),
        (linear_problem(1, size=8), "broyden"),
        (attention_problem(2, tokens=3, width=4), "broyden"),
        (graph_problem(2, nodes=6, width=3), "anderson"),
    ]
    return [Case(problem, solver, 1e-3, ("eager",), guests) for problem, solver in raced]


def _cases(problem: Problem, guests: Mapping[str, Guest]) -> list[Case]:
    return [Case(problem, solver, tolerance, OURS, guests) for solver in SOLVERS for tolerance in TOLERANCES]
