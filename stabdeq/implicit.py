"""Implicit differentiation: the gradient of an equilibrium, by the adjoint equation instead of the solver's steps."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from stabdeq.solvers import Solution, Solver, norm, solve
from stabdeq.solvers.solution import Map

SolveAdjoint = Callable[[Map, Tensor], Tensor]  # (vector-Jacobian product, right-hand side) -> adjoint


def attach_gradient(
    f: Map,
    inputs: Iterable[Tensor],
    solution: Solution,
    solver: Solver,
    *,
    tolerance: float,
    max_evaluations: int,
    coupled: bool = False,
) -> Tensor:
    """Return ``solution.z`` (B, *) with the gradient of the equilibrium z* = f(z*) (Bai et al. 2019, Theorem 1).

    ``inputs`` are the tensors that f depends on beside z: injected features and parameters. A backward pass with
    g = dL/dz* solves the adjoint equation u = J' u + g, J = df/dz at z*, with ``solver``, and hands u' df/d(input) to
    each input. The adjoint's Solution, status included, is appended to ``solution.adjoint``. The result can be
    differentiated once; a second derivative raises RuntimeError.
    """

    def solve_adjoint(vjp: Map, right: Tensor) -> Tensor:
        size = norm(right)
        if coupled and len(size):
            size = size.amax().expand_as(size)
        # The adjoint is linear: at unit size, the tolerance means the same however small the loss's gradient is.
        scale = torch.where(size > 0, size, 1).view(-1, *[1] * (right.dim() - 1))
        scaled = right / scale
        adjoint = solve(
            lambda u: vjp(u) + scaled,
            torch.zeros_like(scaled),
            solver,
            tolerance=tolerance,
            max_evaluations=max_evaluations,
            coupled=coupled,
        )
        solution.adjoint.append(adjoint)
        return adjoint.z * scale

    return _Equilibrium.apply(f, solve_adjoint, solution.z.detach(), *inputs)


class _Equilibrium(torch.autograd.Function):
    """z* in the forward pass; the adjoint equation in the backward pass."""

    @staticmethod
    def forward(f: Map, solve_adjoint: SolveAdjoint, z: Tensor, *inputs: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.f, ctx.solve_adjoint, _, *tensors = inputs
        ctx.save_for_backward(output, *tensors)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        (gradient,) = grad_outputs
        z, *inputs = ctx.saved_tensors
        needed = [tensor for tensor, wanted in zip(inputs, ctx.needs_input_grad[3:], strict=True) if wanted]
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            image = ctx.f(leaf)

        def vjp(u: Tensor) -> Tensor:
            return torch.autograd.grad(image, leaf, u, retain_graph=True)[0]

        with torch.no_grad():
            adjoint = ctx.solve_adjoint(vjp, gradient)
            products = torch.autograd.grad(image, needed, adjoint, allow_unused=True)
        if torch.is_grad_enabled():
            products = [None if p is None else _Final.apply(p, gradient, *needed) for p in products]
        found = iter(products)
        return None, None, None, *(next(found) if wanted else None for wanted in ctx.needs_input_grad[3:])


class _Final(torch.autograd.Function):
    """The first derivative, tied to all that it depends on, so that a second one meets an error and not a missing term."""

    @staticmethod
    def forward(derivative: Tensor, *origins: Tensor) -> Tensor:
        return derivative.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        raise RuntimeError(
            "an equilibrium can be differentiated once, and a second derivative was asked for: "
            "take the first without create_graph=True, or unroll the cell"
        )
