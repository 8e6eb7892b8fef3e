"""The training step: loss and gradients of the whole model in training mode, its equilibria found by ours or TorchDEQ."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.cases import OURS, Record, describe, measured
from benchmarks.contest import Entry, find_loosest
from benchmarks.contestants import (
    Outcome,
    Run,
    Setting,
    our_settings,
    their_deq,
    torchdeq_settings,
    true_residual,
)
from benchmarks.problems import repeated, with_solver
from stabdeq.data import Split
from stabdeq.model import StabilisedDEQ


@dataclass
class TrainingCase:
    """A batch of images, where BatchNorm on its statistics couples the samples."""

    name: str
    model: StabilisedDEQ
    images: Split
    batch: int = 128
    tolerance: float = 1e-3
    modes: tuple[str, ...] = OURS

    def __str__(self) -> str:
        return f"{self.name}, batch {self.batch}, training step, {self.tolerance:g}"

    def race(self) -> list[Record]:
        """Return the record of the training step with Anderson's method."""
        x, labels = repeated(self.images, self.batch)
        h, cell = _training_features(self.model, x)

        def residual(outcome: Outcome) -> float:
            return true_residual(cell, h, outcome.z)

        makers = dict.fromkeys(self.modes, our_step) | {"TorchDEQ": their_step}
        runs, found = {}, {}
        for name, make in makers.items():
            entry = self._enter(lambda setting, make=make: make(self.model, x, labels, setting), name, residual)
            found[name] = None
            if entry:
                runs[name] = make(self.model, x, labels, entry.setting)
                found[name] = describe(entry.setting, entry.outcome) | {"true_residual": entry.residual}
        case = {"problem": self.name, "batch": self.batch, "solver": "anderson", "tolerance": self.tolerance}
        return [case | {"direction": "training step"} | measured(runs, found)]

    def _enter(self, make: Callable[[Setting], Run], name: str, residual: Callable[[Outcome], float]) -> Entry | None:
        settings = our_settings(self.tolerance, compiled=name == "compiled")
        if name == "TorchDEQ":
            settings = list(torchdeq_settings(self.tolerance, "anderson"))
        return find_loosest(lambda setting: make(setting)(), settings, residual, self.tolerance)


def _training_features(model: StabilisedDEQ, x: Tensor) -> tuple[Tensor, torch.nn.Module]:
    training = copy.deepcopy(model).train()
    with torch.no_grad():
        return training.inject(x), training.cell


def our_step(model: StabilisedDEQ, x: Tensor, labels: Tensor, setting: Setting) -> Run:
    """Return our training step, without the optimiser's."""
    own = copy.deepcopy(model).train()
    solver = replace(
        own.config.solver,
        name="anderson",
        tolerance=setting.tolerance,
        max_evaluations=setting.steps,
        **setting.options,
    )
    own = with_solver(own, solver)

    def run() -> Outcome:
        own.zero_grad()
        prediction = own.predict(x)
        functional.cross_entropy(prediction.logits, labels).backward()
        solution = prediction.solution
        adjoint = solution.adjoint[0].evaluations
        evaluations = int(solution.evaluations.max())
        z = solution.z.detach()
        return Outcome(z, evaluations, bool(solution.converged.all()), adjoint_evaluations=int(adjoint.max()))

    return run


def their_step(model: StabilisedDEQ, x: Tensor, labels: Tensor, setting: Setting) -> Run:
    """Return the same training step with the equilibrium and its gradient found by TorchDEQ."""
    own = copy.deepcopy(model).train()
    deq = their_deq("anderson", setting)

    def run() -> Outcome:
        own.zero_grad()
        adjoints = []
        h = own.inject(x)
        (z,), info = deq(
            lambda z: own.cell(z, h),
            torch.zeros_like(h),
            solver_kwargs=setting.options,
            backward_writer=adjoints.append,
        )
        own.cell.update_running_statistics(own.cell.statistics(z, h))
        functional.cross_entropy(own.readout(z), labels).backward()
        converged = bool(info["rel_lowest"].max() < setting.tolerance)
        evaluations = int(info["nstep"].max())
        return Outcome(z.detach(), evaluations, converged, adjoint_evaluations=int(adjoints[0]["nstep"].max()))

    return run
