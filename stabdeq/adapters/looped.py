"""Weight-tied transformers and recursive reasoners: a block that is applied again and again, to one state or to several nested ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stabdeq.adapters.functions import as_parts
from stabdeq.adapters.states import Layout
from stabdeq.errors import ConfigError
from stabdeq.lyapunov import LyapunovFunction
from stabdeq.model import Prediction, prediction
from stabdeq.solvers import Solution, relative_residual


class LoopedModel(nn.Module):
    """state -> block(state, injection(x)), ``loops`` times, and readout(state); made by ``looped``.

    States and features are flattened to (B, n) where they are several tensors, and put together again for the parts.
    """

    def __init__(
        self,
        parts: dict[str, Any],
        loops: int,
        tolerance: float,
        lyapunov: LyapunovFunction | None,
    ) -> None:
        super().__init__()
        self.parts = as_parts(parts)
        self.loops, self.tolerance, self.lyapunov = loops, tolerance, lyapunov
        self._layouts: tuple[Layout, Layout] | None = None  # of features and states, known from the first injection on

    def inject(self, x: Tensor) -> Tensor:
        """Return the features h (B, *) of inputs ``x`` (B, *) of any dtype."""
        features = self.parts["injection"](x)
        of_features = Layout.of(features)
        self._layouts = of_features, Layout.of(self.parts["start"](features))
        return _as_one(of_features, features)

    def cell(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the next state, of the shape of ``z`` (B, *), after one application of the block."""
        of_features, of_states = self._known()
        return _as_one(of_states, self.parts["block"](of_states.restore(z), of_features.restore(h)))

    def readout(self, z: Tensor) -> Tensor:
        """Return what the model answers at states ``z`` (B, *): logits (B, classes), (B, T, classes), or numbers."""
        return self.parts["readout"](self._known()[1].restore(z))

    def solve(self, h: Tensor) -> Solution:
        """Return the states that the model itself reaches: after ``loops`` applications of the block, whatever the residual is there.

        ``evaluations`` (B,) count the applications until the residual was at most the tolerance, or are all of them.
        """
        of_features, of_states = self._known()
        z = _as_one(of_states, self.parts["start"](of_features.restore(h)))
        evaluations = torch.full((len(z),), self.loops, device=z.device)
        for count in range(1, self.loops + 1):
            image = self.cell(z, h)
            arrived = relative_residual(z.detach(), image.detach()) <= self.tolerance
            evaluations = torch.where(arrived, evaluations.clamp(max=count), evaluations)
            z = image
        return Solution.of_state(z, self.cell(z, h), tolerance=self.tolerance, evaluations=evaluations)

    def predict(self, x: Tensor) -> Prediction:
        """Run one forward pass and return all of it."""
        return prediction(self, x)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the model answers for inputs ``x`` (B, *)."""
        return self.predict(x).logits

    def _known(self) -> tuple[Layout, Layout]:
        if self._layouts is None:
            raise ConfigError("the shapes of states are not known yet: call inject(x) first")
        return self._layouts


def looped(
    block: Callable[[Any, Any], Any],
    injection: Callable[[Tensor], Any],
    readout: Callable[[Any], Tensor],
    *,
    loops: int,
    start: Callable[[Any], Any] | None = None,
    lyapunov: LyapunovFunction | None = None,
    tolerance: float = 1e-3,
) -> LoopedModel:
    """Return a model that applies ``block`` ``loops`` times, for ``stabdeq.audit``, ``attack`` and ``compare_solvers``.

    ``injection`` maps inputs (B, *) of any dtype, such as tokens, to features; ``start`` those to the first state, by default zeros
    of their shape; ``block`` (state, features) to the next state; ``readout`` states to logits (B, classes), logits of tokens
    (B, T, classes), or numbers (B, *). States and features are tensors (B, *), or tuples, lists and dicts of those, nested as one
    likes: the high and the low state of a recursive reasoner, one cycle being the block; nodes and the adjacency of a graph. The
    gradient passes through all applications.

    Raises ConfigError where a part cannot be called, and, where the model is first used, for states that cannot be flattened.
    """
    if loops < 1:
        raise ConfigError(f"loops={loops}: expected how often the model applies its block, 1 or more")
    parts = {"block": block, "injection": injection, "readout": readout, "start": start or zeros_of}
    return LoopedModel(parts, loops, tolerance, lyapunov)


def zeros_of(features: Any) -> Any:
    """Return zeros of the shape of ``features``."""
    layout = Layout.of(features)
    return layout.restore(torch.zeros_like(layout.flatten(features)))


def _as_one(layout: Layout, state: Any) -> Tensor:
    """Return ``state`` as one tensor: a single one in its own shape, several flattened."""
    flat = layout.flatten(state)
    return state if layout.container is None else flat
