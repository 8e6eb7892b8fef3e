"""The attack: PGD on a trained model in evaluation mode, its equilibria and gradients found by ours or TorchDEQ."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.cases import OURS, Record, describe, measured
from benchmarks.contest import find_loosest
from benchmarks.contestants import Outcome, Run, Setting, our_settings, their_deq, torchdeq_settings, true_residual
from benchmarks.problems import repeated, with_solver
from stabdeq.attacks import PGD
from stabdeq.attacks.threat_model import is_correct
from stabdeq.data import Split
from stabdeq.model import StabilisedDEQ

Classifier = Callable[[Tensor], tuple[Tensor, Outcome]]  # images -> logits, equilibria
ATTACK = PGD(eps=8 / 255)  # the paper's 10 steps


@dataclass
class AttackCase:
    """A batch of test images under the paper's PGD at 8/255; the same attack code calls both models."""

    name: str
    model: StabilisedDEQ
    images: Split
    batch: int = 1000
    tolerance: float = 1e-3
    modes: tuple[str, ...] = OURS

    def __str__(self) -> str:
        return f"{self.name}, batch {self.batch}, PGD, {self.tolerance:g}"

    def race(self) -> list[Record]:
        """Return the record of the attack, with what each model gets right under it."""
        x, labels = repeated(self.images, self.batch)
        with torch.no_grad():
            h = self.model.inject(x)
        makers = dict.fromkeys(self.modes, our_classifier) | {"TorchDEQ": their_classifier}
        runs: dict[str, Run] = {}
        found: dict[str, Record | None] = {}
        for name, make in makers.items():
            # The setting with which the clean images' equilibria truly meet the tolerance.
            entry = find_loosest(
                lambda setting, make=make: make(self.model, setting)(x)[1],
                list(torchdeq_settings(self.tolerance, "anderson"))
                if name == "TorchDEQ"
                else our_settings(self.tolerance, compiled=name == "compiled"),
                lambda outcome: true_residual(self.model.cell, h, outcome.z),
                self.tolerance,
            )
            found[name] = None
            if entry:
                classifier = make(self.model, entry.setting)
                runs[name] = attack(classifier, x, labels)
                right = float(is_correct(classifier(runs[name]().z)[0], labels).float().mean())
                found[name] = describe(entry.setting, entry.outcome) | {"robust_accuracy": round(right, 4)}
        case = {"problem": self.name, "batch": self.batch, "solver": "anderson", "tolerance": self.tolerance}
        return [case | {"direction": "PGD"} | measured(runs, found)]


def attack(classifier: Classifier, x: Tensor, labels: Tensor) -> Run:
    """Return the run that attacks; its outcome's ``z`` are the attacked images (B, C, H, W)."""

    def run() -> Outcome:
        generator = torch.Generator().manual_seed(0)
        return Outcome(ATTACK(lambda x: classifier(x)[0], x, labels, generator=generator).images, 0, True)

    return run


def our_classifier(model: StabilisedDEQ, setting: Setting) -> Classifier:
    """Return our model with Anderson's method in both directions."""
    solver = replace(
        model.config.solver,
        name="anderson",
        tolerance=setting.tolerance,
        max_evaluations=setting.steps,
        **setting.options,
    )
    own = with_solver(copy.deepcopy(model).eval().requires_grad_(False), solver)

    def classify(x: Tensor) -> tuple[Tensor, Outcome]:
        prediction = own.predict(x)
        solution = prediction.solution
        return prediction.logits, Outcome(
            solution.z.detach(), int(solution.evaluations.max()), bool(solution.converged.all())
        )

    return classify


def their_classifier(model: StabilisedDEQ, setting: Setting) -> Classifier:
    """Return the same model with the equilibrium and its gradient found by TorchDEQ."""
    own = copy.deepcopy(model).eval().requires_grad_(False)
    deq = their_deq("anderson", setting)

    def classify(x: Tensor) -> tuple[Tensor, Outcome]:
        h = own.inject(x)
        (z,), info = deq(lambda z: own.cell(z, h), torch.zeros_like(h), solver_kwargs=setting.options)
        converged = bool(info["rel_lowest"].max() < setting.tolerance)
        return own.readout(z), Outcome(z.detach(), int(info["nstep"].max()), converged)

    return classify
