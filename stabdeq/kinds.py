"""The kinds of model in the paper's tables, by name: which stability, which head, and what each claims."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from stabdeq.config import ArchitectureConfig, HeadName, ModelConfig, StabilityName
from stabdeq.errors import ConfigError, closest


@dataclass(frozen=True)
class Kind:
    """What sets one row of the paper's Table 1 apart."""

    stability: StabilityName
    head: HeadName
    summary: str


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "deq": Kind("none", "linear", "a plain deep equilibrium model"),
        "deq-orth": Kind("none", "orthogonal", "a DEQ behind an orthogonal layer (paper)"),
        "lyadeq-noorth": Kind("state", "linear", "the paper's stability module, no orthogonal layer"),
        "lyadeq": Kind("state", "orthogonal", "the paper's full model, V centred at the origin"),
        "lyadeq-anchored": Kind("anchored", "orthogonal", "ours: V centred at the equilibrium, decay trained"),
    }
)


# Readings of one kind that differ in a detail: the recipe may ask for the second in place of the first.
VARIANTS = {"state": ("state", "residual"), "orthogonal": ("orthogonal", "orthogonal-direct")}


def model_config(
    kind_name: str,
    architecture: ArchitectureConfig,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> ModelConfig:
    """Return the full settings of a model of the kind ``kind_name`` for the given data.

    The architecture's own ``stability`` and ``head`` may choose a variant of the kind's. Raises ConfigError where the kind is
    unknown or the architecture contradicts it.
    """
    if kind_name not in KINDS:
        raise ConfigError(f"unknown kind {kind_name!r}: {closest(kind_name, KINDS)}")
    kind = KINDS[kind_name]
    return ModelConfig(
        image_shape=image_shape,
        classes=classes,
        mean=mean,
        std=std,
        backbone=architecture.backbone,
        cell=architecture.cell,
        state_dim=architecture.state_dim,
        stability=_variant(kind_name, "stability", kind.stability, architecture.stability),
        head=_variant(kind_name, "head", kind.head, architecture.head),
        solver=architecture.solver,
        lyapunov=architecture.lyapunov,
    )


def _variant(kind: str, part: str, usual: Any, wanted: Any) -> Any:
    allowed = VARIANTS.get(usual, (usual,))
    if wanted is not None and wanted not in allowed:
        raise ConfigError(f"kind {kind} has {part} {' or '.join(allowed)}, not {wanted}: choose another kind")
    return wanted or usual


def kind_of(stability: StabilityName, head: HeadName) -> str:
    """Return the name of the kind with this stability and head, or a description where no kind has both."""
    for name, kind in KINDS.items():
        if stability in VARIANTS.get(kind.stability, (kind.stability,)) and head in VARIANTS.get(
            kind.head, (kind.head,)
        ):
            return name
    return f"{stability} stability, {head} head"
