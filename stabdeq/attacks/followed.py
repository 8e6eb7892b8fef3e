"""An equilibrium model's equilibria and gradients, each found from the last one of the same image."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stabdeq.attacks.settling import settle
from stabdeq.cells import ConstantCell
from stabdeq.lyapunov import LyapunovFunction
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Implicit, build_solver, fixed_point, norm, solve

FINER = 0.1  # of the model's tolerance: a state that is followed lags behind on one side, where one from 0 does not


class Followed:
    """The logits of ``model``, and their implicit gradients, of images that move a little from call to call.

    An equilibrium and its adjoint are found by ``settle`` from where the sample's last ones were: the equilibrium to a tenth of
    the model's tolerance, the adjoint to that. Where plain steps do not settle, the model's own solver is asked, from 0.
    ``keep`` says which rows remain. The weights are those at the time it was made.
    """

    def __init__(self, model: StabilisedDEQ) -> None:
        self.model = model
        self.lyapunov: LyapunovFunction | None = model.lyapunov
        self._folded = model.cell.fold()
        roundoff = torch.finfo(model.mean.dtype).eps
        self._tolerance = model.config.solver.stopping_tolerance
        self._finer = min(self._tolerance, max(FINER * self._tolerance, 32 * roundoff))
        self._states: Tensor | None = None  # (B, n), 0 where none is known
        self._adjoints: Tensor | None = None  # (B, n), of gradients of length 1

    @classmethod
    def of(cls, model: Any) -> "Followed | None":
        """Return ``model`` followed, or None where it has no equilibria of samples on their own, or no exact gradients."""
        if not isinstance(model, StabilisedDEQ) or model.training or isinstance(model.cell, ConstantCell):
            return None
        return cls(model) if model.config.solver.gradient == "implicit" else None

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits (B, classes) of ``images`` (B, C, H, W), those of the last call or near them, row by row."""
        return self.readout(self.equilibria(self.inject(images)))

    def keep(self, rows: Tensor) -> None:
        """Go on with the ``rows`` (K,) of the last images alone."""
        self._states = None if self._states is None else self._states[rows]
        self._adjoints = None if self._adjoints is None else self._adjoints[rows]

    def inject(self, x: Tensor) -> Tensor:
        """Return the injected features h (B, n) of ``x`` (B, C, H, W)."""
        return self.model.inject(x)

    def cell(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the next states (B, n) of ``z`` (B, n)."""
        return self._folded(z, self._folded.inject(h))

    def readout(self, z: Tensor) -> Tensor:
        """Return the logits (B, classes) of ``z`` (B, n)."""
        return self.model.readout(z)

    def equilibria(self, h: Tensor) -> Tensor:
        """Return the equilibria (B, n) for features ``h`` (B, n), with their implicit gradient where grad is on."""
        injected = self._folded.inject(h)
        z = self._settle(injected.detach())
        return _Implicit.apply(self, z, injected) if torch.is_grad_enabled() and injected.requires_grad else z

    @torch.no_grad()
    def _settle(self, injected: Tensor) -> Tensor:
        z, rests = settle(self._folded, _or_zero(self._states, injected), (injected,), tolerance=self._finer)
        self._states = torch.where(rests[:, None], z, 0)
        hard = (~rests).nonzero().squeeze(1)
        if len(hard):
            settings = self.model.config.solver
            z[hard] = solve(
                self._folded,
                torch.zeros_like(z[hard]),
                build_solver(settings),
                tolerance=settings.stopping_tolerance,
                max_evaluations=settings.max_evaluations,
                context=(injected[hard],),
            ).z
        return z

    def pull_back(self, z: Tensor, injected: Tensor, gradient: Tensor) -> Tensor:
        """Return dL/d(injected) (B, n) from ``gradient`` = dL/dz* (B, n), by the adjoint equation at ``z`` (B, n)."""
        product, rows = self._folded.linearise(z, injected)
        size = norm(gradient)[:, None]
        unit = gradient / torch.where(size > 0, size, 1)
        start = _or_zero(self._adjoints, unit)
        u, rests = settle(
            lambda u, unit, *rows: product(u, *rows) + unit, start, (unit, *rows), tolerance=self._tolerance
        )
        self._adjoints = torch.where(rests[:, None], u, 0)
        found = self._products(z, injected, u * size)
        hard = (~rests).nonzero().squeeze(1)
        if len(hard):
            found[hard] = self._products_by_solver(z[hard], injected[hard], gradient[hard])
        return found

    def _products(self, z: Tensor, injected: Tensor, adjoint: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = injected.detach().requires_grad_()
            return torch.autograd.grad(self._folded(z, leaf), leaf, adjoint)[0]

    def _products_by_solver(self, z: Tensor, injected: Tensor, gradient: Tensor) -> Tensor:
        settings = self.model.config.solver
        with torch.enable_grad():
            leaf = injected.detach().requires_grad_()
            solution = fixed_point(
                self._folded,
                z,
                build_solver(settings),
                inputs=(leaf,),
                adjoint=Implicit(linearise=lambda z: self._folded.linearise(z, injected)),
                tolerance=settings.stopping_tolerance,
                max_evaluations=settings.max_evaluations,
            )
            return torch.autograd.grad(solution.z, leaf, gradient)[0]


class _Implicit(torch.autograd.Function):
    """The given equilibria, with the gradient of the equation that they solve."""

    @staticmethod
    def forward(ctx: Any, followed: Followed, z: Tensor, injected: Tensor) -> Tensor:
        ctx.followed = followed
        ctx.save_for_backward(z, injected)
        return z.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None, Tensor]:  # pyrefly: ignore
        z, injected = ctx.saved_tensors
        return None, None, ctx.followed.pull_back(z, injected, grad_outputs[0])


def _or_zero(known: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if known is None or known.shape != like.shape else known
