"""An equilibrium model from its parts: features, cell, readout, and, where it has them, a V and a solver of its own."""

from collections.abc import Callable, Generator, Iterator
from types import MethodType
from typing import Any, ClassVar

from torch import Tensor, nn

from stabdeq.adapters.reached import modules_of
from stabdeq.errors import ConfigError
from stabdeq.lyapunov import LyapunovFunction
from stabdeq.model import Prediction, prediction
from stabdeq.solvers import Anderson, Solution, fixed_point

Map = Callable[[Tensor], Tensor]


class FunctionModel(nn.Module):
    """z* = cell(z*, inject(x)), and logits readout(z*); made by ``from_functions``."""

    def __init__(
        self,
        parts: dict[str, Any],
        lyapunov: LyapunovFunction | None,
        state_shape: tuple[int, ...] | None,
        tolerance: float,
        max_evaluations: int,
    ) -> None:
        super().__init__()
        self.parts = as_parts(parts)
        self.lyapunov = lyapunov
        self.state_shape, self.tolerance, self.max_evaluations = state_shape, tolerance, max_evaluations

    def inject(self, x: Tensor) -> Tensor:
        """Return the features h (B, *) of images ``x`` (B, C, H, W) in [0, 1]."""
        return self.parts["inject"](x)

    def cell(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the next state f(z, h), of the shape of ``z`` (B, *)."""
        return self.parts["cell"](z, h)

    def readout(self, z: Tensor) -> Tensor:
        """Return the logits (B, classes) of equilibria ``z``."""
        return self.parts["readout"](z)

    def solve(self, h: Tensor) -> Solution:
        """Return equilibria for features ``h``, from z = 0, by Anderson's method; ``z`` carries the implicit gradient."""
        shape = h.shape if self.state_shape is None else (len(h), *self.state_shape)
        return fixed_point(
            self.cell,
            h.new_zeros(shape),
            Anderson(),
            inputs=(h,),
            tolerance=self.tolerance,
            max_evaluations=self.max_evaluations,
        )

    def predict(self, x: Tensor) -> Prediction:
        """Run one forward pass and return all of it."""
        return prediction(self, x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of images ``x`` (B, C, H, W) in [0, 1]."""
        return self.predict(x).logits


def from_functions(
    inject: Map,
    cell: Callable[[Tensor, Tensor], Tensor],
    readout: Map,
    *,
    lyapunov: LyapunovFunction | None = None,
    state_shape: tuple[int, ...] | None = None,
    tolerance: float = 1e-3,
    max_evaluations: int = 50,
) -> FunctionModel:
    """Return the equilibrium model whose parts are functions or modules, for ``stabdeq.audit``, ``attack`` and ``compare_solvers``.

    ``inject`` maps images (B, C, H, W) in [0, 1] to features h (B, *), ``cell`` (z, h) to the next state, ``readout`` equilibria
    to logits (B, classes). States are of the shape of h, or (B, *``state_shape``). Weights must be of modules that are among the
    three parts, or that these reach (``modules_of``), as a lambda does by its closure: an audit widens them to float64.
    Equilibria are found from 0 by Anderson's method to ``tolerance`` in at most ``max_evaluations``, with the implicit gradient by
    the images and by all weights, so that the model can be trained as any other.

    Raises ConfigError where a part cannot be called.
    """
    parts = {"inject": inject, "cell": cell, "readout": readout}
    return FunctionModel(parts, lyapunov, state_shape, tolerance, max_evaluations)


def as_parts(parts: dict[str, Callable[..., Any]]) -> nn.ModuleDict:
    """Return functions and modules by name as modules, so that an audit widens their weights and puts them in evaluation mode.

    Raises ConfigError where one cannot be called.
    """
    for name, part in parts.items():
        if not callable(part):
            raise ConfigError(f"{name} is a {type(part).__name__}: expected a function of tensors or a module")
    return nn.ModuleDict({name: _as_module(part) for name, part in parts.items()})


def _as_module(part: Callable[..., Any]) -> nn.Module:
    if isinstance(part, nn.Module):
        return part
    if isinstance(part, MethodType) and isinstance(part.__self__, nn.Module):
        return _Function(part, [part.__self__])
    return _Function(part, modules_of(part))


class _Function(nn.Module):
    """A function as a module whose weights and modes are those of the modules that it reaches.

    One of these may hold this model, as where a module keeps models of its own methods: torch, which would go round for ever, is led
    to none from within itself. Their weights are no part of this one's ``state_dict``.
    """

    _led_to: ClassVar[set[int]] = (
        set()
    )  # the ids of the modules that torch is led to at the moment, by any of these functions

    def __init__(self, function: Callable[..., Any], reached: list[nn.Module]) -> None:
        super().__init__()
        self.function = function
        self._reached = tuple(reached)  # in a tuple they are not registered

    def forward(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def children(self) -> Iterator[nn.Module]:
        """Yield the modules that are reached: by these torch converts tensors and sets modes."""
        for _, one in self._led():
            yield one

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Generator[tuple[str, nn.Module], None, None]:
        """Yield this module and all that it reaches, by name: in these torch looks for parameters."""
        memo = set() if memo is None else memo
        yield from super().named_modules(memo, prefix, remove_duplicate)
        for place, one in self._led():
            yield from one.named_modules(memo, f"{prefix}.{place}".lstrip("."), remove_duplicate)

    def _led(self) -> Iterator[tuple[int, nn.Module]]:
        """Yield the modules that are reached, by their places, but for those within which torch is already."""
        for place, one in enumerate(self._reached):
            if id(one) in self._led_to:
                continue
            self._led_to.add(id(one))
            try:
                yield place, one
            finally:
                self._led_to.remove(id(one))
