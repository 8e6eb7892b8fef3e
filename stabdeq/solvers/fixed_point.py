"""The implicit layer in one call: the equilibrium of a map, with its gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.solvers.implicit import Linearise, attach_gradient, attach_unrolled_gradient, with_all_read
from stabdeq.solvers.iteration import require_tensors
from stabdeq.solvers.loop import solve
from stabdeq.solvers.solution import Returned, Solution
from stabdeq.solvers.solver import Solver


@dataclass(frozen=True, kw_only=True)
class Implicit:
    """The equilibrium's exact gradient, by the adjoint equation u = J' u + g with J = df/dz (Bai et al. 2019, Theorem 1).

    ``linearise``, given z (B, *), returns a function (u, *rows) -> J' u that is faster than autograd's, and the rows (B, *) that
    it reads. ``solver``, ``tolerance`` and ``max_evaluations`` are those of the adjoint equation; None stands for those of the
    equilibrium.
    """

    linearise: Linearise | None = None
    solver: Solver | None = None
    tolerance: float | None = None
    max_evaluations: int | None = None


@dataclass(frozen=True)
class Unrolled:
    """The gradient of ``steps`` more applications of f to the equilibrium, damped by ``mixing``, in place of the exact one.

    "Phantom" gradients (Geng et al. 2021, Eq. 7); with one undamped step, "Jacobian-free" ones (Fung et al. 2022). Raises
    ConfigError where ``steps`` is below 1: such a gradient would be zero.
    """

    steps: int
    mixing: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"Unrolled takes at least 1 step, not {self.steps}: the gradient of none is zero")


@dataclass(frozen=True)
class Forward:
    """A map f with rows (B, *) that has the values of another and is faster: solved in its place, never differentiated."""

    f: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]


def fixed_point(
    f: Callable[..., Tensor],
    z0: Tensor,
    solver: Solver,
    *,
    inputs: Sequence[Tensor] = (),
    parameters: Sequence[Tensor] = (),
    adjoint: Implicit | Unrolled = Implicit(),
    forward: Forward | None = None,
    tolerance: float,
    max_evaluations: int,
    coupled: bool = False,
    compiled: bool = False,
    returns: Returned = "state",
) -> Solution:
    """Find z* = f(z*, *inputs, *parameters) from ``z0`` (B, *); where grad is on, ``z`` of the Solution carries its gradient.

    ``inputs`` hold a row (B, *) for each sample, and f is called on any of the samples; ``parameters`` are the same for all. What
    f reads besides, as a module its weights, receives its gradient too; ``z0`` receives none. Autograd does not record the solve:
    ``adjoint`` says how the gradient of its result is found. A backward pass appends the adjoint's own Solution to ``adjoint`` of
    the Solution. It can be differentiated again where what it is by is named; the implicit one also under torch.func's grad, vjp
    and jacrev, there by what is named alone.

    ``tolerance``, ``max_evaluations``, ``coupled``, ``compiled`` and ``returns`` are those of ``solve``, for the equilibrium and its
    adjoint; an adjoint without ``linearise`` is not compiled. ``forward`` is solved in place of f, which must then name all that it
    reads.

    A sample that was not solved has a gradient all the same, of f at its best state: look at ``converged``. It is NaN where f
    returned NaN, and where the adjoint became NaN or diverged: no number stands for an unknown one, and a training loop leaves out
    the step, as torch.amp's GradScaler does. An adjoint that stopped short of its tolerance gives an
    inexact gradient, and an InexactGradientWarning says so; ``adjoint`` has its residual. Raises ConfigError as ``solve`` does.

    >>> from stabdeq.solvers import Anderson
    >>> h = torch.tensor([[1.0, 2.0]], requires_grad=True)
    >>> solution = fixed_point(
    ...     lambda z, h: 0.5 * z + h, torch.zeros(1, 2), Anderson(), inputs=[h], tolerance=1e-5, max_evaluations=50
    ... )
    >>> torch.autograd.grad(solution.z.sum(), h)[0].round(decimals=3)  # z* = 2 h
    tensor([[2., 2.]])
    """
    require_tensors(z0, inputs)
    require_tensors(z0, parameters)
    solved = forward or Forward(f, tuple(tensor.detach() for tensor in inputs))
    solution = solve(
        solved.f,
        z0.detach(),
        solver,
        context=solved.inputs,
        parameters=() if forward else parameters,
        tolerance=tolerance,
        max_evaluations=max_evaluations,
        coupled=coupled,
        compiled=compiled,
        returns=returns,
    )
    if not torch.is_grad_enabled():
        return solution
    named = (*inputs, *parameters)
    if isinstance(adjoint, Unrolled):
        z = attach_unrolled_gradient(lambda z: f(z, *named), solution, steps=adjoint.steps, mixing=adjoint.mixing)
        return replace(solution, z=z)
    complete, read = (f, named) if forward else with_all_read(f, named, solution.z)
    z = attach_gradient(
        complete,
        read,
        solution,
        adjoint.solver or solver,
        tolerance=tolerance if adjoint.tolerance is None else adjoint.tolerance,
        max_evaluations=max_evaluations if adjoint.max_evaluations is None else adjoint.max_evaluations,
        coupled=coupled,
        linearise=adjoint.linearise,
        compiled=compiled,
        returns=returns,
    )
    return replace(solution, z=z)
