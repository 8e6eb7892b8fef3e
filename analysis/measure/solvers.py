"""Runs of fixed-point solvers on one subject: residuals, work, time and local rates."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from analysis.measure.subject import Subject
from stabdeq.config import AndersonConfig, BroydenConfig, PicardConfig, SolverConfig, SquaremConfig
from stabdeq.solvers import Solution, Solver, Status, build_solver, solve

SETTINGS: dict[str, SolverConfig] = {
    "anderson": AndersonConfig(),
    "anderson-20": AndersonConfig(window=20),
    "broyden": BroydenConfig(),
    "picard": PicardConfig(),
    "squarem": SquaremConfig(),
}
SOLVERS: dict[str, Solver] = {name: build_solver(settings) for name, settings in SETTINGS.items()}

ROUNDS = 5  # timed solves, of which the fastest counts
LATE = 4  # evaluations that a rate is measured on, at least


@dataclass(frozen=True)
class Reached:
    """One solve of all images to one tolerance: what became of each, and the wall time of the whole."""

    tolerance: float
    solution: Solution
    seconds: float


@torch.no_grad()
def trace_solver(
    subject: Subject, solver: Solver, tolerance: float, evaluations: int, which: slice = slice(None)
) -> Solution:
    """Return the solve of all images, or of those in ``which``, from z = 0, with the residual of every evaluation."""
    h = subject.h[which]
    return solve(
        lambda z: subject.model.cell(z, h),
        torch.zeros_like(subject.solution.z[which]),
        solver,
        tolerance=tolerance,
        max_evaluations=evaluations,
        trace=True,
    )


@torch.no_grad()
def time_solver(subject: Subject, solver: Solver, tolerance: float, evaluations: int) -> Reached:
    """Return a solve of all images from z = 0 and its wall time; images that have arrived leave the batch."""
    start = torch.zeros_like(subject.solution.z)
    began = time.perf_counter()
    solution = solve(
        subject.model.cell, start, solver, tolerance=tolerance, max_evaluations=evaluations, context=(subject.h,)
    )
    return Reached(tolerance, solution, time.perf_counter() - began)


def residual_curve(solution: Solution) -> dict[str, list[float]]:
    """Return the best residual so far against evaluations: its median and 10 % and 90 % quantiles over the images."""
    assert solution.trace is not None
    return curve_of([solution.trace.residual])


def curve_of(residuals: Sequence[Tensor]) -> dict[str, list[float]]:
    """Return the same of the residuals (T, B) of several parts of the images, each with an own number T of evaluations."""
    longest = max(map(len, residuals))
    padded = [pad(part, (0, 0, 0, longest - len(part)), value=torch.inf) for part in residuals]
    # A state that is not finite is no progress; quantiles of NaN would hide the other images.
    best = torch.cat(padded, 1).nan_to_num(nan=torch.inf).cummin(0).values
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=best.dtype)
    # Each is the residual of an image: between two that are infinite, interpolation finds NaN.
    low, median, high = torch.quantile(best, levels, dim=1, interpolation="nearest")
    return {
        "evaluations": list(range(1, len(best) + 1)),
        "median": median.tolist(),
        "lower": low.tolist(),
        "upper": high.tolist(),
    }


def local_rates(solution: Solution) -> Tensor:
    """Return the factor (N,) by which each image's residual changes per evaluation in the second half of its run.

    It is fitted to the log of the residual by least squares; NaN where the solve failed otherwise than by a lack of
    evaluations, or was too short.
    """
    assert solution.trace is not None
    rates = torch.full_like(solution.residual, torch.nan)
    falling = solution.converged | (solution.status == Status.max_steps)
    for sample in falling.nonzero().flatten().tolist():
        run = solution.trace.residual[: int(solution.evaluations[sample]), sample]
        late = run[len(run) // 2 :].log()
        if len(late) >= LATE and bool(late.isfinite().all()):
            steps = torch.arange(len(late), dtype=late.dtype)
            steps = steps - steps.mean()
            rates[sample] = ((steps * late).sum() / steps.square().sum()).exp()
    return rates


def quantiles(values: Tensor) -> dict[str, Any]:
    """Return the median and the 10 % and 90 % quantiles of ``values`` (N,), each one of them, and how many are no NaN.

    One that is infinite (evaluations of a solve that never arrives) or of nothing is None.

    >>> quantiles(torch.tensor([3.0, 1.0, torch.inf, torch.nan]))
    {'images': 3, 'median': 3.0, 'lower': 1.0, 'upper': None}
    """
    known = values[~values.isnan()]
    found: dict[str, Any] = {"images": len(known)}
    for name, level in (("median", 0.5), ("lower", 0.1), ("upper", 0.9)):
        value = float(torch.quantile(known, level, interpolation="nearest")) if len(known) else torch.inf
        found[name] = value if value < torch.inf else None
    return found
