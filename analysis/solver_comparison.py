"""Fixed-point solvers on one subject at equal evaluations of the cell: residuals, work, time, failures and local rates.

The audit's check of convergence and the command ``stabdeq solvers`` share what is here.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from analysis.findings.values import mapping, printable
from analysis.measure.sample import loaded_model, own_images
from analysis.measure.solvers import (
    ROUNDS,
    SETTINGS,
    SOLVERS,
    Reached,
    local_rates,
    quantiles,
    residual_curve,
    time_solver,
    trace_solver,
)
from analysis.measure.spectrum import spectral_radii
from analysis.measure.subject import Subject, left_as_it_was, prepare
from analysis.report.solvers import as_html, as_text
from stabdeq.checkpoint import Checkpoint
from stabdeq.config import SolverConfig
from stabdeq.errors import ConfigError
from stabdeq.model import EquilibriumModel, StabilisedDEQ
from stabdeq.seed import require_seed
from stabdeq.solvers import Solution, Status, build_solver, norm
from stabdeq.solvers.checked import CheckedSolver
from stabdeq.solvers.loop import unchanged_buffers
from stabdeq.solvers.solver import as_solver

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
EVALUATIONS = 100
FLOOR = 1e-12  # residual down to which runs are traced: below it roundoff shows, and rates mean nothing


@dataclass(frozen=True)
class Record:
    """What one solver did: its run traced down to ``FLOOR``, the local rates (N,) seen there, a solve to each tolerance.

    ``own`` are all its timed solves to the model's own tolerance, none where the model has none; ``settings`` are what a recipe
    calls the solver, None for one that was given.
    """

    solver: Any
    trace: Solution
    rates: Tensor
    reached: list[Reached]
    own: list[Reached]
    settings: SolverConfig | None

    @property
    def seconds(self) -> float | None:
        """The median time of a solve of all images to the model's own tolerance, None where one of them does not reach it."""
        reaches = bool(self.own) and all(bool(run.solution.converged.all()) for run in self.own)
        return median(run.seconds for run in self.own) if reaches else None


@dataclass(frozen=True, repr=False)
class Comparison:
    """Records by solver, and the spectral radii (N,) of the Jacobian at the equilibria, NaN where none was computed.

    ``checkpoint`` says what was compared on, where that was a checkpoint.
    """

    subject: Subject
    evaluations: int
    records: dict[str, Record]
    radii: Tensor
    checkpoint: dict[str, Any] = field(default_factory=dict)

    @property
    def recommended(self) -> str | None:
        """The solver that takes the least time to the model's own tolerance, of those that reach it on every image."""
        seconds = {name: record.seconds for name, record in self.records.items() if record.seconds is not None}
        return min(seconds, key=seconds.__getitem__) if seconds else None

    @property
    def title(self) -> str:
        """What was compared on: the checkpoint's kind and data, or the model's class, and how many images."""
        kind, data = self.checkpoint.get("kind"), mapping(self.checkpoint.get("data")).get("name")
        name = f"{kind} on {data}" if kind and data else type(self.subject.model).__name__
        return printable(f"{name}, {len(self.subject.images)} images")

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.records)} solvers on {self.title}>"

    def __str__(self) -> str:
        """Return the tables as a terminal without colours shows them."""
        return as_text(summarise(self), self.title)

    def _repr_html_(self) -> str:
        """Return the tables as a notebook shows them."""
        return as_html(summarise(self), self.title)


def compare_solvers(
    model: EquilibriumModel | Checkpoint | str | Path,
    solvers: Mapping[str, Any] | None = None,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    indices: Tensor | None = None,
    samples: int = 128,
    data_dir: str | Path | None = None,
    seed: int = 0,
    tolerances: Sequence[float] = TOLERANCES,
    evaluations: int = EVALUATIONS,
    trusted: bool = False,
    on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Comparison:
    """Compare the library's solvers, the model's own and the named ``solvers`` on ``model``, from z = 0, at equal evaluations of the cell.

    The model, a checkpoint or the path of one among them, its ``images`` and ``labels``, and whether it is ``trusted`` are as an audit
    takes them (``analysis.audit.audit``); the model is left as it was. ``evaluations`` is the most that each solver may make for an
    image. ``on_step`` is told what begins, how many of the steps are done, and how many there are. Raises ConfigError where a solver
    does not meet the protocol or the cell is no fixed map.
    """
    require_seed(seed)
    gather(solvers or {})  # a solver that lacks a method is refused before the model is read
    model, checkpoint, loaded = loaded_model(model, trusted=trusted)
    if images is None or labels is None:
        images, labels, indices = own_images(loaded, images, labels, data_dir, samples, seed)
    with left_as_it_was(model):
        subject = prepare(model, images, labels, indices=indices, seed=seed)
        compared = compare_on(subject, solvers, tolerances=tolerances, evaluations=evaluations, on_step=on_step)
    return replace(compared, checkpoint=checkpoint)


def compare_on(
    subject: Subject,
    solvers: Mapping[str, Any] | None = None,
    *,
    tolerances: Sequence[float] = TOLERANCES,
    evaluations: int = EVALUATIONS,
    on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Comparison:
    """Do the same on a subject that was prepared already."""
    settings = SETTINGS | own_settings(subject.model)
    given = {name: build_solver(each) for name, each in settings.items()} | dict(solvers or {})
    chosen = gather(solvers or {}, settings)
    own = own_tolerance(subject.model)
    timed_at = list(dict.fromkeys([*tolerances, *([] if own is None else [own])]))
    probe_cell(subject)
    with torch.no_grad():
        z = torch.zeros_like(subject.solution.z)
        field = (subject.model.cell(z, subject.h) - z).flatten(1)
    for solver in chosen.values():  # so that a fault shows before the work does
        solver.try_out(z.flatten(1), field)
    plan = [(count, name, tolerance) for count in range(ROUNDS) for tolerance in timed_at for name in chosen]
    total = len(chosen) + len(plan) + 1
    traces = {}
    for done, (name, solver) in enumerate(chosen.items()):
        on_step(f"{name}: residuals", done, total)
        traces[name] = trace_solver(subject, solver, FLOOR, evaluations)
    runs: dict[tuple[str, float], list[Reached]] = {}
    # Solvers take turns, so that a machine that slows down or warms up is unjust to none.
    for done, (count, name, tolerance) in enumerate(plan, start=len(chosen)):
        on_step(f"{name} to {tolerance:.0e}, round {count + 1} of {ROUNDS}", done, total)
        runs.setdefault((name, tolerance), []).append(time_solver(subject, chosen[name], tolerance, evaluations))
    radii = spectral_radii(subject, lambda count: on_step(f"spectral radius, image {count}", total - 1, total))
    on_step("done", total, total)
    records = {
        name: Record(
            solver,
            traces[name],
            local_rates(traces[name]),
            [min(runs[name, each], key=lambda run: run.seconds) for each in tolerances],
            [] if own is None else runs[name, own],
            settings.get(name),
        )
        for name, solver in given.items()
    }
    return Comparison(subject, evaluations, records, radii)


def own_settings(model: EquilibriumModel) -> dict[str, SolverConfig]:
    """Return the settings of the model's own solver under a name of its own, nothing where it is among the standard ones."""
    if not isinstance(model, StabilisedDEQ):
        return {}
    settings = model.config.solver
    return {} if build_solver(settings) in SOLVERS.values() else {f"own ({settings.name})": settings}


def own_tolerance(model: EquilibriumModel) -> float | None:
    """Return the model's own tolerance: ours by its settings, another by the number ``tolerance`` that it has, None without one."""
    if isinstance(model, StabilisedDEQ):
        return model.config.solver.stopping_tolerance
    named = getattr(model, "tolerance", None)
    return named if isinstance(named, float) and 0 < named < 1 else None


def gather(solvers: Mapping[str, Any], settings: Mapping[str, SolverConfig] = SETTINGS) -> dict[str, CheckedSolver]:
    """Return the solvers of ``settings`` and ``solvers``; raise ConfigError for a name taken or a method missing."""
    for name in solvers:
        if name in settings:
            raise ConfigError(
                f"solver {name}: the name is taken, {', '.join(settings)} are always compared; choose another"
            )
    standard: dict[str, Any] = {name: build_solver(each) for name, each in settings.items()}
    return {name: CheckedSolver(name, as_solver(each, name)) for name, each in (standard | dict(solvers)).items()}


@torch.no_grad()
def probe_cell(subject: Subject) -> None:
    """Raise ConfigError where the cell gives two values at one state, or evaluating it changes a buffer."""
    model, cell = subject.model, subject.model.cell
    name = f"the cell ({getattr(cell, '__name__', type(cell).__name__)})"
    shape = subject.solution.z.shape
    # At z = 0, dropout would go unseen.
    z = torch.randn(shape, dtype=torch.float64, generator=subject.generator())
    owner = model if isinstance(model, torch.nn.Module) else cell
    with unchanged_buffers(owner, name):
        first, second = cell(z, subject.h), cell(z, subject.h)
    difference = norm(first - second) / norm(first).clamp(min=1)
    if not bool((difference.nan_to_num() <= 1000 * torch.finfo(z.dtype).eps).all()):
        raise ConfigError(
            f"{name} gives two values at the same state, {float(difference.max()):.1e} apart: switch off dropout and other noise"
        )


def summarise(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain data, as ``analysis.commands.solvers`` documents it."""
    subject = comparison.subject
    recommended = comparison.recommended
    return {
        "images": len(subject.images),
        "dim": subject.dim,
        "dtype": "float64",
        "evaluations": comparison.evaluations,
        "floor": FLOOR,
        "own_tolerance": own_tolerance(subject.model),
        "own_solver": _own_solver(comparison),
        "recommended": recommended,
        "spectral_radius": quantiles(comparison.radii) | {"picard_rate": picard_rate(comparison)},
        "solvers": {name: _describe(record) for name, record in comparison.records.items()},
    }


def _own_solver(comparison: Comparison) -> str | None:
    """Return the name of the row that is the model's own solver."""
    model = comparison.subject.model
    if not isinstance(model, StabilisedDEQ):
        return None
    rule = build_solver(model.config.solver)
    return next(iter(own_settings(model)), None) or next(name for name, each in SOLVERS.items() if each == rule)


def choice(settings: SolverConfig) -> str:
    """Return the options of ``stabdeq train`` that choose a solver, all of its settings, since a recipe may have others.

    >>> choice(SETTINGS["anderson-20"])
    '--set model.solver.name=anderson --set model.solver.window=20 --set model.solver.mixing=1.0'
    """
    values = {"name": settings.name}
    values |= {key: json.dumps(value) for key, value in settings.of_the_solver().items() if value is not None}
    return " ".join(f"--set {shlex.quote(f'model.solver.{key}={value}')}" for key, value in values.items())


def picard_rate(comparison: Comparison) -> float | None:
    """Return the median of Picard's rates at the images whose spectral radius is known: there, the two should agree."""
    return quantiles(comparison.records["picard"].rates[~comparison.radii.isnan()])["median"]


def _describe(record: Record) -> dict[str, Any]:
    solver = record.solver
    named = f"{type(solver).__module__}.{type(solver).__qualname__}"
    return {
        "settings": repr(solver) if is_dataclass(solver) else named,
        "curve": residual_curve(record.trace),
        "choose": None if record.settings is None else choice(record.settings),
        "own_seconds": record.seconds,
        "rate": quantiles(record.rates),
        "tolerances": [_describe_reached(reached) for reached in record.reached],
    }


def _describe_reached(reached: Reached) -> dict[str, Any]:
    status, converged = reached.solution.status, reached.solution.converged
    needed = reached.solution.evaluations.double()
    counts = {each: int((status == each).sum()) for each in Status if each is not Status.converged}
    return {
        "tolerance": reached.tolerance,
        "converged": float(converged.double().mean()),
        "evaluations": quantiles(torch.where(converged, needed, torch.inf)),
        "seconds": reached.seconds,
        "failures": [
            {"status": each.name, "count": count, "remedy": each.remedy} for each, count in counts.items() if count
        ],
    }
