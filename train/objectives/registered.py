"""Objectives by name, and those that a user or a package registers."""

from collections.abc import Callable
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainValidator, model_validator
from pydantic.dataclasses import dataclass

from stabdeq.config import STRICT
from stabdeq.config.by_name import make, require_options, with_options
from stabdeq.registry import Registry
from train.objectives.outcome import Objective, Outcome

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stabdeq.model import StabilisedDEQ

OBJECTIVES = Registry(
    "objective",
    {
        "cross-entropy": "train.objectives.cross_entropy:CrossEntropy",
        "trades": "train.objectives.trades:Trades",
        "pgd-at": "train.objectives.pgd_at:PGDTraining",
        "ibp": "train.objectives.ibp:IntervalTraining",
    },
)


def register_objective(name: str, make_objective: Callable[..., Objective]) -> None:
    """Make the objective that ``make_objective(**settings)`` returns known as ``name``, for ``objective.name`` of a recipe.

    A package does the same by an entry point in the group "stabdeq.objective". Raises ConfigError where the name is taken by
    another.
    """
    OBJECTIVES.register(name, make_objective)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RegisteredObjective:
    """An objective of a user's or a package's; ``options`` are its maker's keyword arguments.

    In a recipe they stand beside ``name``. Raises ConfigError where the maker has no such argument, or refuses its value.
    """

    name: Annotated[str, PlainValidator(OBJECTIVES.require)]
    options: dict[str, Any] = field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, values: Any) -> Any:
        return with_options(cls, values)

    def __post_init__(self) -> None:
        require_options(OBJECTIVES, self.name, self.options)
        _ = self._made  # what the maker refuses is refused here

    @cached_property
    def _made(self) -> Objective:
        return make(OBJECTIVES, self.name, self.options)

    def __call__(
        self,
        model: "StabilisedDEQ",
        images: "Tensor",
        labels: "Tensor",
        *,
        generator: "torch.Generator",
        fraction: float,
    ) -> Outcome:
        """Run the objective."""
        return self._made(model, images, labels, generator=generator, fraction=fraction)
