"""Deep equilibrium models: the protocol that every audit speaks, and the models that this library trains."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from stabdeq.backbones import build_backbone, places_of
from stabdeq.cells import ConstantCell, EquilibriumCell, build_cell
from stabdeq.config import ModelConfig
from stabdeq.errors import ConfigError, DataError
from stabdeq.heads import Head
from stabdeq.lyapunov import InputConvexLyapunov, LyapunovFunction, build_lyapunov, stabilise
from stabdeq.places import shape_of
from stabdeq.solvers import Forward, Implicit, Solution, Unrolled, build_solver, fixed_point
from stabdeq.solvers.iteration import require_tensors
from stabdeq.solvers.solution import require_solution


class EquilibriumModel(Protocol):
    """What an audit asks of a model, ours or anyone's; states may have any shape (B, *)."""

    @property
    def lyapunov(self) -> LyapunovFunction | None:
        """V with its centre and alpha, or None."""
        ...

    @property
    def cell(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The map (z, h) -> next state, of the shape of z."""
        ...

    def inject(self, x: Tensor) -> Tensor:
        """Return the injected features h (B, *) of images ``x`` (B, C, H, W) in [0, 1], or of inputs (B, *) of any dtype."""
        ...

    def readout(self, z: Tensor) -> Tensor:
        """Return the logits (B, classes) of equilibria ``z``, those of tokens (B, T, classes), or numbers (B, *)."""
        ...

    def solve(self, h: Tensor) -> Solution:
        """Return the equilibria for features ``h`` by the model's own solver."""
        ...


@dataclass(frozen=True)
class Prediction:
    """One forward pass: logits (B, classes), the features h (B, n), and the equilibria with their status."""

    logits: Tensor
    h: Tensor
    solution: Solution


def prediction(model: EquilibriumModel, x: Tensor) -> Prediction:
    """Return one forward pass of any model; raises ConfigError where its ``solve`` returns no Solution."""
    h = model.inject(x)
    solution = require_solution(model.solve(h))
    return Prediction(model.readout(solution.z), h, solution)


class EquilibriumClassifier(nn.Module):
    """The classifier that a ``model`` of parts alone is, (B, C, H, W) -> (B, classes)."""

    def __init__(self, model: EquilibriumModel) -> None:
        super().__init__()
        self.model = model

    def predict(self, x: Tensor) -> Prediction:
        """Run one forward pass and return all of it."""
        return prediction(self.model, x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of images ``x`` (B, C, H, W) in [0, 1]."""
        return self.predict(x).logits


class StabilisedDEQ(nn.Module):
    """Backbone, equilibrium of the cell, stability module, head. Images are in [0, 1]: normalisation is inside.

    In training mode BatchNorm uses each evaluation's own batch, which couples the samples, and a forward pass updates the
    running statistics once, at the equilibrium. Gradients are implicit and flow in evaluation mode too.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.image_shape[0]
        if not len(config.mean) == len(config.std) == channels:
            raise ConfigError(
                f"mean and std need one number for each of {channels} channels: {config.mean}, {config.std}"
            )
        self.config = config
        self.register_buffer("mean", torch.tensor(config.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(1, -1, 1, 1))
        backbone = build_backbone(config.backbone, config.image_shape, config.state_dim)
        # Convolutions with channels last are a quarter faster, in both directions; a checkpoint holds them in the usual order.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        places = places_of(config.backbone, config.image_shape)
        self.cell: EquilibriumCell = build_cell(config.cell, config.state_dim, places)
        shape = shape_of(config.state_dim, places) if places and self.cell.reads_places else None
        self.lyapunov: InputConvexLyapunov | None = None
        if config.stability != "none":
            centre = "equilibrium" if config.stability == "anchored" else "origin"
            self.lyapunov = build_lyapunov(config.lyapunov, centre, config.state_dim, shape)
        self.head = Head(config.head, config.state_dim, config.classes, shape)

    def inject(self, x: Tensor) -> Tensor:
        """Return the injected features h (B, n) of images ``x`` (B, C, H, W) in [0, 1].

        The backbone alone runs in bfloat16 under autocast. Raises DataError where the images have another shape,
        ConfigError where the backbone's features have.
        """
        if x.dim() != 4 or x.shape[1:] != self.config.image_shape:
            raise DataError(
                f"this model reads images (B, {', '.join(map(str, self.config.image_shape))}), not {tuple(x.shape)}"
            )
        h = self.backbone((x - self.mean) / self.std).to(self.mean.dtype)
        if h.shape != (len(x), self.config.state_dim):
            raise ConfigError(
                f"backbone {self.config.backbone} returned {tuple(h.shape)} for {len(x)} images: expected features "
                f"({len(x)}, {self.config.state_dim}), as many as the state has numbers"
            )
        return h

    def solve(self, h: Tensor, start: Tensor | None = None) -> Solution:
        """Return the equilibria for features ``h`` (B, n), from z = 0; ``z`` carries the implicit gradient where grad is on.

        ``start`` (B, n) is where to begin instead, such as the equilibria of images near by: fewer evaluations, and the same
        equilibria within the tolerance where there is one for each h, as of the monotone, interval and certified cells. Where
        there are several, another start may lead to another. It receives no gradient. Raises ConfigError where its shape or dtype
        is not that of ``h``, or it is not finite.
        """
        cell = self.cell
        begin = torch.zeros_like(h) if start is None else _require_start(start, h)
        if isinstance(cell, ConstantCell):
            return cell.solve(h)
        settings = self.config.solver
        forward, adjoint = self._solver_view(cell, h.detach())
        if settings.gradient == "unrolled":
            adjoint = Unrolled(settings.gradient_steps)
        own = dict(cell.named_parameters())  # a user's cell may have none
        names, parameters = tuple(own), tuple(own.values())
        training = self.training

        def f(z: Tensor, h: Tensor, *parameters: Tensor) -> Tensor:
            if self.training != training:  # the backward pass would differentiate another cell
                raise ConfigError(
                    "the model changed between train() and eval() since the forward pass: run it again first"
                )
            return functional_call(cell, dict(zip(names, parameters, strict=True)), (z, h))

        return fixed_point(
            f,
            begin,
            build_solver(settings),
            inputs=(h,),
            parameters=parameters,
            adjoint=adjoint,
            forward=forward,
            tolerance=settings.stopping_tolerance,
            max_evaluations=settings.max_evaluations,
            coupled=self._is_coupled,
            compiled=settings.compiled,
            returns=settings.returns,
        )

    @property
    def _is_coupled(self) -> bool:
        return self.training and self.cell.couples_samples

    @torch.no_grad()
    def _solver_view(self, cell: EquilibriumCell, h: Tensor) -> tuple[Forward, Implicit]:
        """Return the map that the solver evaluates, with the rows it reads, and its linearisation where one is faster."""
        if not self._is_coupled:
            folded = cell.fold()
            injected = folded.inject(h)
            return Forward(folded, (injected,)), Implicit(linearise=lambda z: folded.linearise(z, injected))
        if self.config.solver.compiled:  # recomputing the cell in each product then costs less than a graph kept for it
            return Forward(cell, (h,)), Implicit(linearise=lambda z: (self._pull_back, (z, h)))
        return Forward(cell, (h,)), Implicit()

    def _pull_back(self, u: Tensor, z: Tensor, h: Tensor) -> Tensor:
        return torch.func.vjp(lambda z: self.cell(z, h), z)[1](u)[0]

    def readout(self, z: Tensor) -> Tensor:
        """Return the logits (B, classes) of equilibria ``z`` (B, n), through the stability module and the head."""
        return self.head(stabilise(z, self.config.stability, self.lyapunov))

    def predict(self, x: Tensor) -> Prediction:
        """Run one forward pass and return all of it; in training mode, update the running statistics."""
        h = self.inject(x)
        solution = self.solve(h)
        if self.training:
            self.cell.at_equilibrium(solution.z, h)
        return Prediction(self.readout(solution.z), h, solution)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of images ``x`` (B, C, H, W) in [0, 1]."""
        return self.predict(x).logits


def _require_start(start: Tensor, h: Tensor) -> Tensor:
    require_tensors(start, ())
    if (start.shape, start.dtype, start.device) != (h.shape, h.dtype, h.device):
        raise ConfigError(
            f"a start is a state for each row of h, {tuple(h.shape)} {h.dtype} on {h.device}, not {tuple(start.shape)} "
            f"{start.dtype} on {start.device}: give the equilibria of the same images in the same order, or None for z = 0"
        )
    lost = int((~start.detach().flatten(1).isfinite().all(1)).sum())
    if lost:
        raise ConfigError(f"{lost} of {len(start)} starts are NaN or infinite: begin these samples at 0")
    return start
