"""The kinds of model in the paper's tables, by name: which stability, which head, and what each claims."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from stabdeq.config import ArchitectureConfig, BackboneName, CellName, HeadName, ModelConfig, StabilityName
from stabdeq.errors import ConfigError, closest
from stabdeq.registry import CELLS


@dataclass(frozen=True)
class Kind:
    """What sets one row of the paper's tables apart; with a ``backbone`` of its own, it is that network without an equilibrium.

    ``alpha`` is the decay rate that its V claims, ``tolerance`` that of its solver, where a recipe names none.
    """

    stability: StabilityName
    head: HeadName
    summary: str
    cell: CellName = "batchnorm"
    backbone: BackboneName | None = None
    alpha: float = 1.0
    tolerance: float = 1e-3


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "deq": Kind("none", "linear", "a plain deep equilibrium model"),
        "deq-orth": Kind("none", "orthogonal", "a DEQ behind an orthogonal layer (paper)"),
        "lyadeq-noorth": Kind("state", "linear", "the paper's stability module, no orthogonal layer"),
        "lyadeq": Kind("state", "orthogonal", "the paper's full model, V centred at the origin"),
        "lyadeq-anchored": Kind("anchored", "orthogonal", "ours: V centred at the equilibrium, decay trained"),
        # With 1e-3 the solver would take back more of its certificates than rounding does (theory: the model as it runs).
        "lyadeq-certified": Kind(
            "anchored",
            "orthogonal",
            "ours: as lyadeq-anchored, gain and decay proved",
            cell="certified",
            alpha=0.1,
            tolerance=1e-4,
        ),
        "mondeq": Kind("none", "linear", "a monotone operator equilibrium network", cell="monotone"),
        "ibp-mondeq": Kind("none", "linear", "a monotone network whose interval bounds converge", cell="interval"),
        "resnet20": Kind("none", "linear", "ResNet20, no equilibrium", cell="constant", backbone="resnet20"),
        "resnet56": Kind("none", "linear", "ResNet56, no equilibrium", cell="constant", backbone="resnet56"),
        "vgg16": Kind("none", "linear", "VGG16, no equilibrium", cell="constant", backbone="vgg16"),
        "wrn-28-10": Kind("none", "linear", "WRN-28-10, no equilibrium", cell="constant", backbone="wrn-28-10"),
    }
)


def unread(kind: Kind) -> dict[str, str]:
    """Return the settings of a recipe, and groups of them, that a model of ``kind`` does not have, and why it has not."""
    found = {}
    if kind.stability == "none":
        found["model.lyapunov"] = "has no V"
    if kind.stability != "anchored":
        found["decay"] = "has no V at the equilibrium"
    if kind.backbone:
        found |= dict.fromkeys(("model.backbone", "model.state_dim", "model.solver"), "is a network of its own")
    return found


# Readings of one kind that differ in a detail: the recipe may ask for another in place of the first.
VARIANTS = {"state": ("state", "residual"), "orthogonal": ("orthogonal", "orthogonal-direct")}


def completed(kind_name: str, architecture: ArchitectureConfig) -> ArchitectureConfig:
    """Return ``architecture`` with all that it leaves to the kind ``kind_name`` said, and the kind's own network if it has one.

    Its own ``stability``, ``head`` and ``cell`` may choose a variant of the kind's. Raises ConfigError where the kind is unknown
    or the architecture contradicts it.
    """
    if kind_name not in KINDS:
        raise ConfigError(f"unknown kind {kind_name!r}: {closest(kind_name, KINDS)}")
    kind = KINDS[kind_name]
    cell = _variant(kind_name, "cell", kind.cell, architecture.cell)
    # A model of its cell and stability is of that kind (``kind_of``), by whichever name it was asked for.
    usual = KINDS["lyadeq-certified"] if (cell, kind.stability) == ("certified", "anchored") else kind
    return replace(
        architecture,
        backbone=kind.backbone or architecture.backbone,
        cell=cell,
        stability=_variant(kind_name, "stability", kind.stability, architecture.stability),
        head=_variant(kind_name, "head", kind.head, architecture.head),
        solver=replace(architecture.solver, tolerance=architecture.solver.tolerance or usual.tolerance),
        lyapunov=replace(architecture.lyapunov, alpha=architecture.lyapunov.alpha or usual.alpha),
    )


def model_config(
    kind_name: str,
    architecture: ArchitectureConfig,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> ModelConfig:
    """Return the full settings of a model of the kind ``kind_name`` for the given data; raise ConfigError as ``completed`` does."""
    from stabdeq.backbones import native_width  # imports torch, which the table of kinds does without

    whole = completed(kind_name, architecture)
    settings = {field.name: getattr(whole, field.name) for field in fields(whole)}
    own = KINDS[kind_name].backbone
    settings["state_dim"] = (own and native_width(own)) or whole.state_dim
    return ModelConfig(image_shape=image_shape, classes=classes, mean=mean, std=std, **settings)


def _variant(kind: str, part: str, usual: Any, wanted: Any) -> Any:
    allowed = _variants(usual)
    if wanted is not None and wanted not in allowed:
        raise ConfigError(f"kind {kind} has {part} {' or '.join(allowed)}, not {wanted}: choose another kind")
    return wanted or usual


def kind_of(config: ModelConfig) -> str:
    """Return the name of the kind that ``config`` is of, with its cell where that is not the kind's own.

    Where no kind has its stability and head, they are described.
    """
    alike = {
        name: kind
        for name, kind in KINDS.items()
        if config.stability in _variants(kind.stability) and config.head in _variants(kind.head)
    }
    for name, kind in alike.items():
        if kind.cell == config.cell and kind.backbone in (None, config.backbone):
            return name
    name = next(iter(alike), f"{config.stability} stability, {config.head} head")
    return name if config.cell == "batchnorm" else f"{name}, {config.cell} cell"


def is_of_kind(config: ModelConfig, kind: Kind) -> bool:
    """Return whether a model of ``config`` may be of ``kind``, in one of its variants."""
    return (
        config.stability in _variants(kind.stability)
        and config.head in _variants(kind.head)
        and config.cell in _variants(kind.cell)
        and kind.backbone in (None, config.backbone)
    )


def _variants(usual: str) -> tuple[str, ...]:
    if usual == "batchnorm":
        return tuple(name for name in CELLS if name != "constant")  # without an equilibrium it is another kind
    return VARIANTS.get(usual, (usual,))
