"""Models written with TorchDEQ (Geng and Kolter, arXiv 2310.18605): with the equilibria that it finds, or that our solvers find."""

import sys
from collections.abc import Callable

from torch import Tensor, nn

from stabdeq.adapters.deq_layer import EquilibriumLayer, get_deq
from stabdeq.lyapunov import LyapunovFunction
from stabdeq.model import Prediction, prediction
from stabdeq.solvers import Solution

__all__ = ["EquilibriumLayer", "TorchDEQModel", "get_deq"]


class TorchDEQModel(nn.Module):
    """``model``, whose layer ``deq`` is of ``torchdeq.get_deq``, as the ``EquilibriumModel`` that an audit reads.

    ``inject`` maps images (B, C, H, W) in [0, 1] to features h (B, *), ``cell`` (z, h) to the next state and ``readout`` equilibria
    to logits (B, classes): what stands in the model's ``forward``, as its own methods or functions that use it. States are of the
    shape of h, or (B, *``state_shape``). A state converged where its residual, measured anew, is at most ``tolerance``. Weights that
    TorchDEQ normalises are computed from their parameters before each batch, in the dtype that these have then.
    """

    def __init__(
        self,
        model: nn.Module,
        deq: nn.Module,
        *,
        inject: Callable[[Tensor], Tensor],
        cell: Callable[[Tensor, Tensor], Tensor],
        readout: Callable[[Tensor], Tensor],
        tolerance: float = 1e-3,
        state_shape: tuple[int, ...] | None = None,
        lyapunov: LyapunovFunction | None = None,
    ) -> None:
        super().__init__()
        self.model, self.deq = model, deq
        self._inject, self.cell, self.readout = inject, cell, readout
        self.tolerance, self.state_shape, self.lyapunov = tolerance, state_shape, lyapunov

    def inject(self, x: Tensor) -> Tensor:
        """Return the features h (B, *) of images ``x`` (B, C, H, W) in [0, 1]."""
        if "torchdeq" in sys.modules:  # without it, no weight is normalised by it
            from torchdeq import reset_deq

            reset_deq(self.model)  # an audit may have widened the parameters since the weights were computed
        return self._inject(x)

    def solve(self, h: Tensor) -> Solution:
        """Return what the model's layer finds for features ``h``, with the residual of the very state that it returns."""
        shape = h.shape if self.state_shape is None else (len(h), *self.state_shape)
        states, info = self.deq(lambda z: self.cell(z, h), h.new_zeros(shape))
        z = states[-1]
        return Solution.of_state(z, self.cell(z, h), tolerance=self.tolerance, evaluations=info["nstep"])

    def predict(self, x: Tensor) -> Prediction:
        """Run one forward pass and return all of it."""
        return prediction(self, x)  # pyrefly: ignore

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of images ``x`` (B, C, H, W) in [0, 1]."""
        return self.predict(x).logits
