"""The gradient of an equilibrium: implicit, by the adjoint equation instead of the solver's steps, or truncated."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from stabdeq.errors import ConfigError
from stabdeq.shared_batch import largest
from stabdeq.solvers.iteration import lie_channels_last, require_next_state
from stabdeq.solvers.joint import Joint
from stabdeq.solvers.loop import solve
from stabdeq.solvers.solution import Map, Returned, Solution, Status, norm
from stabdeq.solvers.solver import Solver, as_solver

CellMap = Callable[..., Tensor]  # (z, *inputs) -> next z
SolveAdjoint = Callable[..., Tensor]  # (vector-Jacobian product, right-hand side, rows) -> adjoint
# z -> a vector-Jacobian product (u, *rows) -> J' u, and the rows (B, *) that it reads
Linearise = Callable[[Tensor], tuple[Callable[..., Tensor], tuple[Tensor, ...]]]


class InexactGradientWarning(RuntimeWarning):
    """An adjoint equation was not solved to its tolerance, so that the gradient of some samples is inexact."""


def attach_gradient(
    f: CellMap,
    inputs: Iterable[Tensor],
    solution: Solution,
    solver: Solver,
    *,
    tolerance: float,
    max_evaluations: int,
    coupled: bool = False,
    linearise: Linearise | None = None,
    compiled: bool = False,
    returns: Returned = "state",
) -> Tensor:
    """Return ``solution.z`` (B, *) with the gradient of the equilibrium z* = f(z*, *inputs) (Bai et al. 2019, Theorem 1).

    ``inputs`` are all that f depends on beside z: injected features and parameters. A backward pass with g = dL/dz* solves
    the adjoint equation u = J' u + g, J = df/dz at z*, with ``solver``, and hands u' df/d(input) to each input. The
    adjoint's Solution, status included, is appended to ``solution.adjoint``. The result can be differentiated as often as f,
    also under torch.func's grad, vjp and jacrev: the adjoint is an equilibrium itself, and its gradient is found in the
    same way.

    The gradient of a sample is NaN where it is not known: where its adjoint became NaN or diverged, and where f returned NaN.
    Where an adjoint stopped short of its tolerance, an InexactGradientWarning says so.

    Where the samples are ``coupled``, their adjoint equations are one, and the solver has one history for all of them. ``linearise``
    gives a faster J' u than autograd's, whose samples are then separable unless ``coupled``; ``compiled``
    runs it through torch.compile, and ``returns`` is what the adjoint equation's solution is, as ``solve`` has them.
    """

    def solve_adjoint(vjp: Callable[..., Tensor], right: Tensor, rows: tuple[Tensor, ...] | None = None) -> Tensor:
        right = _unknown_where_nan(right, solution)
        size = norm(right)
        if coupled and len(size):  # under torch.func.vmap these are several systems, one after the other
            together = len(solution.status)
            size = largest(size.view(-1, together), dim=1).repeat_interleave(together)
        # The adjoint is linear: at unit size, the tolerance means the same however small the loss's gradient is.
        scale = torch.where(size > 0, size, 1).view(-1, *[1] * (right.dim() - 1))

        scaled = right / scale
        if lie_channels_last(solution.z):
            scaled = scaled.movedim(1, -1).contiguous().movedim(-1, 1)

        def from_rows(u: Tensor, right: Tensor, *rows: Tensor) -> Tensor:
            return vjp(u, *rows) + right

        adjoint = solve(
            (lambda u: vjp(u) + scaled) if rows is None else from_rows,
            torch.zeros_like(scaled),
            Joint(as_solver(solver)) if coupled else solver,
            tolerance=tolerance,
            max_evaluations=max_evaluations,
            context=() if rows is None else (scaled, *rows),
            coupled=coupled,
            compiled=compiled and rows is not None,
            returns=returns,
        )
        solution.adjoint.append(adjoint)
        lost = is_lost(adjoint)
        if not bool((adjoint.converged | lost).all()):
            warnings.warn(
                "an implicit gradient is inexact: the adjoint equation of some samples was not solved to its tolerance; look at "
                "`adjoint` of the Solution, and raise max_evaluations, loosen the tolerance, or try another solver",
                InexactGradientWarning,
                stacklevel=2,
            )
        return _nan_where(lost, adjoint.z * scale)

    return _Equilibrium.apply(f, solve_adjoint, linearise, solution.z.detach(), *inputs)


def offset_of(image: Tensor) -> Tensor:
    """Return 0, of the shape of ``image``, with the graph by which f came to that value.

    Autograd knows an equilibrium's arguments alone. Where f reads a tensor that nobody named, as a module its weights, it is
    reached through an argument more: z = f(z) + offset. That graph is of one z: a derivative of what is found by it would lack the
    part through z, and raises ConfigError.
    """
    offset = image - image.detach()
    offset.register_hook(_require_first_derivative)
    return offset


def _require_first_derivative(gradient: Tensor) -> None:
    if torch.is_grad_enabled():
        raise ConfigError(
            "a second derivative would be incomplete, for the first is by tensors that f reads without being given them: name "
            "them, in stabdeq.solvers.fixed_point(f, z0, solver, inputs=..., parameters=...)"
        )


def with_all_read(f: CellMap, named: tuple[Tensor, ...], z: Tensor) -> tuple[CellMap, tuple[Tensor, ...]]:
    """Return f and the arguments on which f(z) depends: ``named``, and ``offset_of`` f where it reads more that wants a gradient."""
    image = f(z.detach().clone(), *(tensor.detach() for tensor in named))
    require_next_state(image, z)
    if not image.requires_grad:
        return f, named
    return lambda z, offset, *named: f(z, *named) + offset, (offset_of(image), *named)


def is_lost(adjoint: Solution) -> Tensor:
    """Return the samples (B,) bool of which the solution of the adjoint equation tells no gradient: it is NaN there.

    The best state of such an adjoint may be its start, 0, which approximates nothing.
    """
    return (adjoint.status == Status.nan) | (adjoint.status == Status.diverged)


def attach_unrolled_gradient(f: Map, solution: Solution, *, steps: int, mixing: float = 1.0) -> Tensor:
    """Return ``solution.z`` (B, *) with the gradient of ``steps`` more damped applications of f to it.

    The "phantom" gradient of Geng et al. 2021, Eq. 7; with one undamped step, the "Jacobian-free" one of Fung et al. 2022.
    It costs ``steps`` vector-Jacobian products and no solve, and is a descent direction where f contracts, not the gradient.
    """
    z = solution.z.detach()
    for _ in range(steps):
        image = f(z.clone())  # f may write into it
        require_next_state(image, z)
        z = torch.lerp(z, image, mixing)
    return _WithGradientOf.apply(z, solution.z.detach(), solution)


def _unknown_where_nan(gradient: Tensor, solution: Solution) -> Tensor:
    """Return dL/dz* (B, *), NaN for the samples of which no equilibrium is known but NaN.

    Under torch.func.vmap it holds several (B, *), one after the other. A gradient of 0 is no exception: it may come of the state
    0 that stands in the place of the equilibrium.
    """
    if not len(gradient):
        return gradient
    return _nan_where((solution.status == Status.nan).repeat(len(gradient) // len(solution.status)), gradient)


def _nan_where(samples: Tensor, values: Tensor) -> Tensor:
    """Return ``values`` (B, *), NaN for the ``samples`` (B,)."""
    return values.masked_fill(samples.view(-1, *[1] * (values.dim() - 1)), torch.nan)


class _Equilibrium(torch.autograd.Function):
    """z* in the forward pass; the adjoint equation in the backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        f: CellMap, solve_adjoint: SolveAdjoint, linearise: Linearise | None, z: Tensor, *inputs: Tensor
    ) -> Tensor:
        return z.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.f, ctx.solve_adjoint, ctx.linearise, _, *tensors = inputs
        ctx.save_for_backward(output, *tensors)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        (gradient,) = grad_outputs
        z, *inputs = ctx.saved_tensors
        wanted = ctx.needs_input_grad[4:]
        if torch.is_grad_enabled():
            products = _differentiable_products(ctx.f, ctx.solve_adjoint, z, inputs, wanted, gradient)
        else:
            products = _products(ctx.f, ctx.solve_adjoint, ctx.linearise, z, inputs, wanted, gradient)
        found = iter(products)
        return None, None, None, None, *(next(found) if one else None for one in wanted)


class _WithGradientOf(torch.autograd.Function):
    """The second tensor, with the gradient of the first."""

    @staticmethod
    def forward(gradient_of: Tensor, value: Tensor, solution: Solution) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.solution = inputs[2]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        return _unknown_where_nan(grad_outputs[0], ctx.solution), None, None


class _Adjoint(torch.autograd.Function):
    """The value of u = J' u + g, with a rule for torch.func.vmap: right-hand sides g (V, B, *) are solved as V B samples."""

    @staticmethod
    def forward(f: CellMap, solve_adjoint: SolveAdjoint, gradient: Tensor, z: Tensor, *inputs: Tensor) -> Tensor:
        pull_back = torch.func.vjp(lambda z: f(z.clone(), *inputs), z)[1]
        return solve_adjoint(lambda u: pull_back(u)[0], gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        f, solve_adjoint, *tensors = args
        stacked = [
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(tensors, in_dims[2:], strict=True)
        ]
        gradient, *rest = stacked

        def pull_back(u: Tensor, z: Tensor, *inputs: Tensor) -> Tensor:
            return torch.func.vjp(lambda z: f(z.clone(), *inputs), z)[1](u)[0]

        def vjp(u: Tensor) -> Tensor:
            return torch.func.vmap(pull_back)(u.view_as(gradient), *rest).flatten(0, 1)

        return solve_adjoint(vjp, gradient.flatten(0, 1)).view_as(gradient), 0


def _products(
    f: CellMap,
    solve_adjoint: SolveAdjoint,
    linearise: Linearise | None,
    z: Tensor,
    inputs: list[Tensor],
    wanted: list[bool],
    gradient: Tensor,
) -> tuple[Tensor | None, ...]:
    """Return u' df/d(input) for the wanted inputs, u solving u = J' u + ``gradient``."""
    # Copies cut from the graph: an input may itself depend on another, and the derivatives wanted here are partial.
    z, *inputs = (
        tensor.detach().requires_grad_(one) for tensor, one in zip((z, *inputs), (True, *wanted), strict=True)
    )
    with torch.enable_grad():
        image = f(z.clone(), *inputs)  # f may write into it
    require_next_state(image, z)
    if not image.requires_grad:  # f reads none of them
        return (None,) * sum(wanted)

    def vjp(u: Tensor) -> Tensor:
        return torch.autograd.grad(image, z, u, retain_graph=True, materialize_grads=True)[0]  # 0 where f ignores z

    faster, rows = (vjp, None) if linearise is None else linearise(z.detach())
    adjoint = solve_adjoint(faster, gradient, rows)
    needed = [tensor for tensor in inputs if tensor.requires_grad]
    return torch.autograd.grad(image, needed, adjoint, allow_unused=True)


def _differentiable_products(
    f: CellMap, solve_adjoint: SolveAdjoint, z: Tensor, inputs: list[Tensor], wanted: list[bool], gradient: Tensor
) -> tuple[Tensor, ...]:
    """Return the same as functions of z, the inputs and ``gradient`` that can be differentiated again."""

    def adjoint_map(u: Tensor, g: Tensor, z: Tensor, *inputs: Tensor) -> Tensor:
        return torch.func.vjp(lambda z: f(z.clone(), *inputs), z)[1](u)[0] + g

    known = _Adjoint.apply(f, solve_adjoint, *(tensor.detach() for tensor in (gradient, z, *inputs)))
    complete, read = with_all_read(adjoint_map, (gradient, z, *inputs), known)
    u = _Equilibrium.apply(complete, solve_adjoint, None, known, *read)

    def partial(*needed: Tensor) -> Tensor:
        given = iter(needed)
        return f(z.clone(), *(next(given) if one else tensor for tensor, one in zip(inputs, wanted, strict=True)))

    return torch.func.vjp(partial, *(tensor for tensor, one in zip(inputs, wanted, strict=True) if one))[1](u)
