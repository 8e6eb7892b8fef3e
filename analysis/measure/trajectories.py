"""Trajectories of the stabilised field, by Runge-Kutta methods with steps common to all that are followed together."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.measure.subject import Subject

EVALUATIONS = 1500  # of the field, for all trajectories of a plane together
BETWEEN = 4  # points of a trajectory for each step of the integrator


@dataclass(frozen=True)
class Precision:
    """A method of ``scipy.integrate.solve_ivp`` with its tolerances of the state, relative and absolute."""

    method: str
    relative: float
    absolute: float


# Each a hundred times finer than the one before; from the second on of another order, which errs in another way.
PRECISIONS = (Precision("RK45", 1e-8, 1e-10), Precision("DOP853", 1e-10, 1e-12), Precision("DOP853", 1e-12, 1e-14))


def trajectories(subject: Subject, start: Tensor, times: Tensor, evaluations: int, precision: Precision) -> Tensor:
    """Return the states (T, k, n) at ``times`` (T,) from ``start`` (k, n), of the first k images.

    Raises FloatingPointError where the field is not finite, or needs more ``evaluations``.
    """
    from scipy.integrate import solve_ivp

    which, made = torch.arange(len(start)), iter(range(evaluations))

    def velocity(_: float, flat: np.ndarray) -> np.ndarray:
        moved = _field(subject, flat, start, which).flatten().numpy()
        if next(made, None) is None or not np.isfinite(moved).all():
            raise FloatingPointError("the field is not finite, or too stiff for an explicit integrator")
        return moved

    span, first = (0, float(times[-1])), start.flatten().numpy()
    path = solve_ivp(
        velocity,
        span,
        first,
        method=precision.method,
        t_eval=times.numpy(),
        rtol=precision.relative,
        atol=precision.absolute,
    )
    if not path.success:
        raise FloatingPointError(path.message)
    return torch.from_numpy(path.y).T.reshape(-1, *start.shape)


def follow(
    subject: Subject, image: int, start: Tensor, horizon: float, shown: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, float, int]:
    """Return what is ``shown`` of the states (k, n) on the way from ``start`` (k, n) of one ``image``, (T, k, *); their last, (k, n).

    Besides, the time that they reach, and how many were stopped.

    The time is ``horizon``, or what ``EVALUATIONS`` reach. A trajectory whose field is not finite stays where it is.
    """
    from scipy.integrate import RK45

    which = torch.full((len(start),), image)

    def velocity(_: float, flat: np.ndarray) -> np.ndarray:
        moved = _field(subject, flat, start, which)
        return torch.where(moved.isfinite().all(1, keepdim=True), moved, 0).flatten().numpy()

    solver = RK45(velocity, 0.0, start.flatten().numpy(), horizon, rtol=1e-5, atol=1e-7)
    path, last = [shown(start)], start
    while solver.status == "running" and solver.nfev < EVALUATIONS:
        solver.step()
        if solver.status != "failed":
            at = solver.dense_output()
            for time in torch.linspace(float(solver.t_old), float(solver.t), BETWEEN + 1)[1:].tolist():  # pyrefly: ignore
                last = torch.from_numpy(at(time)).view_as(start)
                path.append(shown(last))
    stopped = int((~subject.stabilised(last, which).isfinite().all(1)).sum())
    return torch.stack(path), last, float(solver.t), stopped


def _field(subject: Subject, flat: np.ndarray, start: Tensor, which: Tensor) -> Tensor:
    return subject.stabilised(torch.from_numpy(flat).view_as(start), which)
