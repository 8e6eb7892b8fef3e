"""What a model asks of its cell, the map f(z, h) whose equilibria it reads."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from stabdeq.errors import ConfigError


class FoldedMap(Protocol):
    """A cell f that treats each sample alone, with all that no state changes computed ahead: what a solver evaluates."""

    def inject(self, h: Tensor) -> Tensor:
        """Return what of the features ``h`` (B, n) ``__call__`` reads, (B, n): it is the same at every state."""
        ...

    def __call__(self, z: Tensor, injected: Tensor) -> Tensor:
        """Return f(z, h), (B, n), (B, n) -> (B, n), from ``injected`` = inject(h)."""
        ...

    def linearise(self, z: Tensor, injected: Tensor) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
        """Return (u, *rows) -> J' u, for u (B, n) and J = df/dz at ``z`` (B, n), and the rows (B, n) that it reads."""
        ...


class EquilibriumCell(nn.Module):
    """A map f(z, h), (B, n), (B, n) -> (B, n), from states and injected features to the next states.

    A subclass takes n, its ``state_dim``, and says ``forward``, the map: differentiable, and a function of z, h, parameters and
    buffers alone. The rest has defaults that are right for every map whose samples are independent of each other. All its
    buffers must be in its state dict.
    """

    couples_samples: bool = False
    """Whether in training mode f of one sample depends on the others, as through BatchNorm."""

    reads_places: bool = False
    """Whether states are (C, H, W), held as vectors: a subclass then takes (H, W) too, and has ``shape`` (C, H, W)."""

    shares_batches: bool = False
    """Whether a map that couples samples finds what they share among all processes, by ``stabdeq.shared_batch``."""

    def fold(self) -> FoldedMap:
        """Return the map as it is now, for the solver, where samples are independent; by default with autograd's products."""
        return UnfoldedCell(self)

    def decoupled(self, z: Tensor, h: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the map with what samples share fixed to what it is at ``z`` (B, n), so that each sample is alone.

        Raises ConfigError where the cell couples samples and does not say how to part them.
        """
        if self.training and self.couples_samples:
            raise ConfigError(
                f"the decay and Jacobian terms need samples that are independent of each other, and {type(self).__name__} couples "
                "them in training mode: give it a method decoupled(z, h), or set decay.weight = 0 and jacobian.weight = 0"
            )
        return self

    def at_equilibrium(self, z: Tensor, h: Tensor) -> None:
        """Take note of the equilibria ``z`` (B, n) of ``h`` (B, n): running statistics change here, not in ``forward``.

        It is called once for each forward pass in training mode. By default it does nothing.
        """


class UnfoldedCell(nn.Module):
    """The map of ``cell`` itself as a ``FoldedMap``."""

    def __init__(self, cell: EquilibriumCell) -> None:
        super().__init__()
        self.cell = cell

    def inject(self, h: Tensor) -> Tensor:
        """Return ``h`` (B, n)."""
        return h

    def forward(self, z: Tensor, injected: Tensor) -> Tensor:
        """Return f(z, h), (B, n), (B, n) -> (B, n), from ``injected`` = h."""
        return self.cell(z, injected)

    def linearise(self, z: Tensor, injected: Tensor) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
        """Return the vector-Jacobian product, which evaluates f again each time, and the rows z and h (B, n) that it reads."""
        return self._pull_back, (z, injected)

    def _pull_back(self, u: Tensor, z: Tensor, h: Tensor) -> Tensor:
        return torch.func.vjp(lambda z: self.cell(z, h), z)[1](u)[0]
